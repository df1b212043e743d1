"""The native brokers keep what they confirmed, can be broken on purpose, and leave nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from support.waiting import PATIENCE_S, until

from gearshift.conformance.proxy import Proxy
from native_brokers import Broker, BrokerUnavailable, Kafka, RabbitMQ, RabbitMQ43, Redis
from native_brokers.process import descendants

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(240)]

COMPOSE = Path(__file__).parents[2] / "compose"
BODIES = [f"message {number}".encode() for number in range(100)]


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as broker:
        yield broker


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with Kafka() as broker:
        yield broker


@pytest.fixture(params=["rabbitmq", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Broker)
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that the user rabbitmq can reach, which pytest's own ones are not for root."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def publish_to_queue(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        persistent = pika.BasicProperties(delivery_mode=2)
        for body in BODIES:
            channel.basic_publish("", queue, body, persistent, mandatory=True)


def read_queue(url: str, queue: str) -> list[bytes]:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        bodies: list[bytes] = []
        for method, _, body in channel.consume(queue, inactivity_timeout=PATIENCE_S):
            if method is None or body is None:
                break
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(bodies) == len(BODIES):
                break
        return bodies


def publish_to_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic)])[topic].result(PATIENCE_S)
    failures = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for body in BODIES:
        producer.produce(topic, body, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(PATIENCE_S) == 0
    assert failures == [None] * len(BODIES)


def read_topic(bootstrap: str, topic: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-readers",
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    bodies: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(bodies) < len(BODIES) and time.monotonic() < deadline:
        bodies += [message.value() or b"" for message in consumer.consume(len(BODIES), 1.0)]
    consumer.close()
    return bodies


def group_members(group: int) -> list[int]:
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state not in "ZX":
            members.append(int(stat.parent.name))
    return members


def test_a_paused_broker_is_silent_until_it_is_resumed(broker: Broker) -> None:
    """`pause` keeps the port open and answers nothing; `resume` brings the answers back."""
    broker.pause()
    try:
        socket.create_connection(("127.0.0.1", broker.port), timeout=2.0).close()
        assert not broker._answers()
    finally:
        broker.resume()
    assert until(broker._answers)


@pytest.mark.parametrize("kind", [RabbitMQ, RabbitMQ43, Kafka, Redis])
def test_stop_leaves_no_process_no_folder_and_no_mount(kind: type[Broker]) -> None:
    """After `stop` neither a process nor the private folder of the broker is left."""
    mounts = Path("/proc/self/mounts").read_text()
    broker = kind()
    broker.start()
    group, folder = broker.pid, broker.log.parent
    # Not all that this process has started meanwhile: another broker here may need a helper.
    started = [seen for seen in descendants(os.getpid()) if seen.pid == group]
    started += descendants(group)
    assert Path("/proc/self/mounts").read_text() == mounts
    broker.stop()
    broker.stop()
    assert started
    assert group_members(group) == []
    assert [seen for seen in started if seen.alive()] == []
    assert not folder.exists()


def test_rabbitmq_4_is_another_server_of_the_same_kind() -> None:
    """It is 4.3, and is not run by root."""
    with RabbitMQ43() as broker:
        assert broker.ctl("version").startswith("4.3.")
        assert Path(f"/proc/{broker.pid}").stat().st_uid != 0


def test_two_rabbitmq_nodes_do_not_see_each_other(rabbitmq: RabbitMQ) -> None:
    """A second node runs beside the first, with other queues, and its end leaves the first be.

    A quorum queue can be declared at once: `start` returns when a node is up in full, not when its
    port is open.
    """
    publish_to_queue(rabbitmq.url, "only-here")
    with RabbitMQ() as other:
        publish_to_queue(other.url, "first")
        assert other.port != rabbitmq.port
        assert other.names() == {"first"}
        assert read_queue(other.url, "first") == BODIES
    assert read_queue(rabbitmq.url, "only-here") == BODIES


def test_two_kafka_nodes_do_not_see_each_other(kafka: Kafka) -> None:
    """A second node runs beside the first, with other topics.

    `advertised` is what its metadata name, so that clients stay on a proxy.
    """
    publish_to_topic(kafka.url, "only-here")
    with Proxy(("127.0.0.1", 0)) as proxy:
        advertised = f"127.0.0.1:{proxy.port}"
        with Kafka(advertised=advertised) as other:
            proxy.target = ("127.0.0.1", other.port)
            client = AdminClient({"bootstrap.servers": other.url})
            metadata = client.list_topics(timeout=PATIENCE_S)
    assert "only-here" not in metadata.topics
    addresses = {f"{node.host}:{node.port}" for node in metadata.brokers.values()}
    assert addresses == {advertised}


@pytest.mark.parametrize("kind", [RabbitMQ, Kafka])
def test_data_in_a_folder_of_ones_own_outlive_the_broker(
    kind: type[Broker], open_folder: Path
) -> None:
    """A second broker on the same folder, on other ports, serves what the first one kept."""
    publish, read = (
        (publish_to_queue, read_queue) if kind is RabbitMQ else (publish_to_topic, read_topic)
    )
    with kind(open_folder) as first:
        publish(first.url, "kept")
        first_port = first.port
    with kind(open_folder) as second:
        assert second.port != first_port
        assert sorted(read(second.url, "kept")) == sorted(BODIES)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Listen on the port as a program that knows nothing of reservations."""
    with socket.socket() as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        intruder.bind(("127.0.0.1", port))
        intruder.listen()
        yield


@pytest.mark.parametrize("kind", [RabbitMQ, Kafka])
def test_only_the_first_start_leaves_a_port_that_was_taken(kind: type[Broker]) -> None:
    """It picks others; a restart, which clients count on, says which port is taken."""
    broker = kind()
    picked = broker.port
    try:
        with taken(picked):
            broker.start()
        assert broker.port != picked
        broker.kill()
        with taken(broker.port), pytest.raises(BrokerUnavailable, match=str(broker.port)):
            broker.start()
        broker.start()
    finally:
        broker.stop()


def test_a_port_taken_at_the_last_moment_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the launcher's look and the server's own attempt."""
    broker = Redis()
    picked = broker.port
    with ExitStack() as stack:
        stack.callback(broker.stop)

        def take_first(ports: Iterable[int]) -> None:
            if picked in ports:
                stack.enter_context(taken(picked))

        monkeypatch.setattr("native_brokers.redis.require_free", take_first)
        broker.start()
        assert broker.port != picked


def test_a_broker_that_cannot_start_shows_its_log() -> None:
    """The error of a failed start ends with what the server logged last."""
    broker = Kafka(settings={"log.segment.bytes": "none"})
    with pytest.raises(BrokerUnavailable, match=r"log\.segment\.bytes"):
        broker.start()
    broker.stop()


@pytest.mark.parametrize("kind", [RabbitMQ, RabbitMQ43, Kafka])
def test_brokers_do_not_outlive_a_killed_owner(kind: type[Broker]) -> None:
    """SIGKILL of the Python process that started a broker ends the broker."""
    script = textwrap.dedent(
        f"""
        import time
        from native_brokers import {kind.__name__}
        broker = {kind.__name__}()
        broker.start()
        print(broker.pid, broker.log.parent, flush=True)
        time.sleep(600)
        """
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COMPOSE)},
    )
    assert owner.stdout is not None
    with owner, owner.stdout as output:
        pid, folder = output.readline().split()
        started = descendants(owner.pid)
        assert int(pid) in {seen.pid for seen in started}
        owner.kill()
    assert until(lambda: not any(seen.alive() for seen in started))
    assert until(lambda: not Path(folder).exists())


def test_a_fork_does_not_keep_stop_waiting() -> None:
    """`stop` returns although a fork of this process holds a copy of every pipe."""
    script = textwrap.dedent(
        """
        import os, time
        from native_brokers import Redis
        broker = Redis()
        broker.start()
        owner, fork = os.getpid(), os.fork()
        if not fork:
            while os.getppid() == owner:
                time.sleep(0.1)
            os._exit(0)
        broker.stop()
        os.kill(fork, 9)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(COMPOSE)}
    subprocess.run(
        [sys.executable, "-c", script], env=environment, timeout=2 * PATIENCE_S, check=True
    )


def command_line(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "native_brokers", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COMPOSE)},
    )


def test_run_with_a_command_passes_addresses_in_and_the_exit_code_out() -> None:
    """`run -- COMMAND` gives COMMAND both addresses and exits with its code."""
    program = "import os, sys; print(*map(os.environ.get, sys.argv[1:])); sys.exit(7)"
    variables = ("RABBITMQ_URL", "KAFKA_BOOTSTRAP")
    with command_line("run", "--", sys.executable, "-c", program, *variables) as running:
        output, _ = running.communicate(timeout=3 * PATIENCE_S)
    rabbitmq_url, bootstrap = output.split()
    assert running.returncode == 7
    assert rabbitmq_url.startswith("amqp://guest:guest@127.0.0.1:")
    assert bootstrap.startswith("127.0.0.1:")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_what_to_paste_and_stops_when_told(ending: signal.Signals) -> None:
    """`run` prints one export line, serves until Ctrl-C or SIGTERM, and leaves no process."""
    with command_line("run", "--only", "redis") as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        started = descendants(running.pid)
        running.send_signal(ending)
        assert running.wait(PATIENCE_S) == 0
    assert line.startswith("export REDIS_URL=redis://127.0.0.1:")
    assert not any(seen.alive() for seen in started)
