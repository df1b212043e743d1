"""What tools make on a broker goes with them: all that is there is listed before and after."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from redis import Redis as RedisClient
from support.settings import profile_of
from support.waiting import take

import gearshift
from native_brokers import Kafka, RabbitMQ, Redis

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300, func_only=True)]

#: What Python runs before anything else: SIGTERM from without might come when all is over.
ENDS_ITSELF = """\
import os, signal
from gearshift.producer import Producer

send = Producer.send

def send_and_end(*arguments, **options):
    receipt = send(*arguments, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return receipt

Producer.send = send_and_end
"""

Listing = Callable[[], set[str]]

#: Made by the server itself, once, for whoever comes first.
_SERVERS_OWN = {"__consumer_offsets", "__share_group_state"}

_KINDS = ["rabbitmq:queue", "rabbitmq:stream", "kafka:queue", "kafka:stream", "redis:queue",
          "sqlite:queue", "sqlite:stream"]  # fmt: skip

HANDLERS = """\
import os

def leave(order):
    os._exit(1)
"""


def _of_rabbitmq(broker: RabbitMQ) -> set[str]:
    return broker.names()


def _of_kafka(broker: Kafka) -> set[str]:
    client = AdminClient({"bootstrap.servers": broker.url})
    groups = client.list_consumer_groups(request_timeout=10).result().valid
    return {*client.list_topics(timeout=10).topics, *(group.group_id for group in groups)}


def _of_redis(broker: Redis) -> set[str]:
    with RedisClient.from_url(broker.url) as client:
        return {key.decode() for key in client.scan_iter()}


def _of_sqlite(file: Path) -> set[str]:
    """Each row of each table, but for those of SQLite's own."""
    database = sqlite3.connect(file, timeout=30)
    try:
        tables = [name for (name,) in database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )]  # fmt: skip
        return {
            f"{table}: {row}"
            for table in tables
            for row in database.execute(f"SELECT * FROM {table}")
        }
    finally:
        database.close()


@pytest.fixture(params=_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A profile with semantics, as ``compare`` takes it."""
    return str(request.param)


@pytest.fixture
def listing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Listing:
    """Settings with the profile of ``kind``; returns what is on that broker, but the server's."""
    backend = kind.partition(":")[0]
    listed: Callable[[Any], set[str]]
    if backend == "sqlite":
        server: Any = tmp_path / "dev.db"
        profile, listed = f'backend = "sqlite"\npath = "{server}"', _of_sqlite
    else:
        server = request.getfixturevalue(backend)
        profile = profile_of(server)
        listed = {"rabbitmq": _of_rabbitmq, "kafka": _of_kafka, "redis": _of_redis}[backend]
    (tmp_path / "service.py").write_text(HANDLERS)
    (tmp_path / "gearshift.toml").write_text(
        f'profile = "{backend}"\n[profiles.{backend}]\n{profile}\n'
    )
    return lambda: listed(server) - _SERVERS_OWN


class Command:
    """A running ``gearshift``, whose temporary files are in a folder of their own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._temporary = folder / "temporary"
        self._temporary.mkdir()
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("gearshift")), *arguments],
            cwd=folder,
            env=os.environ | {"TMPDIR": str(self._temporary), "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for what the command does on the broker."""
        while not holds():
            assert self._process.poll() is None, self.ended()
            threading.Event().wait(0.05)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Wait for its end: exit code and what it printed. No process and no file is left."""
        printed, _ = self._process.communicate()
        with pytest.raises(ProcessLookupError):  # its workers are in the same session
            os.killpg(self._process.pid, 0)
        assert list(self._temporary.iterdir()) == []
        return self._process.returncode, printed


def semantics_of(kind: str) -> str:
    return kind.partition(":")[2]


def test_deleting_a_channel_leaves_nothing_of_it(kind: str, listing: Listing) -> None:
    """Groups that no settings list, positions, retries that wait, dead letters."""
    with gearshift.open() as bus:
        bus.server()
    before = listing()
    settings = Path("gearshift.toml")
    with settings.open("a") as file:
        file.write(f'[channels.orders]\nsemantics = "{semantics_of(kind)}"\ngroups = ["g"]\n')
    with gearshift.open() as bus:
        bus.declare("orders")
        with bus.producer("orders") as producer:
            for group in ("g", "late"):
                with bus.consumer("orders", group=group, create=True) as consumer:
                    consumer.ready()
                    producer.send({"n": 1}, key="k")
                    take(consumer, 1)[0].reject("dead")
                    producer.send({"n": 2}, key="k")
                    take(consumer, 1)[0].retry(30)
        assert listing() > before
        bus.delete("orders")
        bus.delete("orders.dead")
    assert listing() == before


def test_doctor_leaves_nothing(kind: str, listing: Listing, tmp_path: Path) -> None:
    """Ended by SIGTERM in its round trip, between the message's way there and its way back."""
    with gearshift.open() as bus:
        bus.server()  # the file of SQLite is there now
    before = listing()
    (tmp_path / "sitecustomize.py").write_text(ENDS_ITSELF)
    code, printed = Command(tmp_path, "doctor").ended()
    assert code == 143, printed
    assert listing() == before


def test_an_interrupted_comparison_leaves_nothing(
    kind: str, listing: Listing, tmp_path: Path
) -> None:
    """With a worker of it that hangs, as a scenario wants it; it would go on for a while.

    That of a queue is ended by SIGTERM, that of a stream by Ctrl-C.
    """
    number = signal.SIGTERM if semantics_of(kind) == "queue" else signal.SIGINT
    with gearshift.open() as bus:
        bus.server()
    before = listing()
    comparison = Command(tmp_path, "compare", kind, "--scenario", "crash", "--messages", "5000")
    comparison.until(lambda: listing() != before)
    comparison.signal(number)
    code, printed = comparison.ended()
    assert code == 128 + number, printed
    assert listing() == before


# Kafka and Redis keep a sign of a member that died until they miss it.
@pytest.mark.parametrize("kind", ["rabbitmq:queue"], indirect=True)
def test_a_comparison_whose_worker_dies_leaves_nothing(
    kind: str, listing: Listing, tmp_path: Path
) -> None:
    """The worker that ran the handler is gone; so is what was there for it."""
    before = listing()
    comparison = Command(
        tmp_path, "compare", kind, "--scenario", "slow", "--messages", "40",
        "--handler", "service:leave", "-o", "json",
    )  # fmt: skip
    code, printed = comparison.ended()
    assert code == 1  # no scenario has a result
    assert "not clear" in printed
    assert listing() == before


def test_the_conformance_kit_leaves_nothing(kind: str, listing: Listing, tmp_path: Path) -> None:
    """After behaviours that make groups, retries and dead letters; and ended by SIGTERM."""
    with gearshift.open() as bus:
        bus.server()
    before = listing()
    wanted: Sequence[str] = ("a_rejected_message_becomes_a_dead_letter", "a_new_group_sees_history")
    arguments = ["conformance", "--semantics", semantics_of(kind)]
    kit = Command(tmp_path, *arguments, *(f"--behaviour={name}" for name in wanted))
    code, printed = kit.ended()
    assert code == 0, printed
    assert listing() == before
    (tmp_path / "temporary").rmdir()
    kit = Command(tmp_path, *arguments)
    kit.until(lambda: listing() != before)
    kit.signal(signal.SIGTERM)
    code, printed = kit.ended()
    assert code == 143, printed
    assert listing() == before
