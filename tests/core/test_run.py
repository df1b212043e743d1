"""``gearshift run`` as a service: its signals, its log lines, and a broker that comes late."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, until

import gearshift
from native_brokers import Redis
from native_brokers.ports import reserve_ports

SETTINGS = """
profile = "p"
[profiles.p]
backend = "sqlite"
path = "test.db"
[profiles.away]
backend = "rabbitmq"
url = "amqp://guest:guest@127.0.0.1:PORT/%2F"
[channels.orders]
prefetch = 1
max_attempts = 2
retry_delay_s = 0
"""

#: Handlers begin, and are done once the test says so.
HOLDING = """
import pathlib, time
import gearshift

app = gearshift.App()
here = pathlib.Path.cwd()

@app.handler("orders")
def handle(number: int) -> None:
    (here / f"begun-{number}").touch()
    while not (here / "release").exists():
        time.sleep(0.01)
    (here / f"done-{number}").touch()
"""

#: Its first message ends the process, before that has told anybody that it is ready.
DEADLY = """
import os, pathlib
import gearshift

app = gearshift.App()

@app.handler("orders")
def handle(number: int, delivery: gearshift.Delivery) -> None:
    if delivery.attempt == 1:
        os._exit(1)
    pathlib.Path(f"done-{number}").touch()
"""

#: An app that runs itself, with a plugin.
ITSELF = """
import gearshift
from gearshift.hooks import hookimpl

class Around:
    @hookimpl(wrapper=True)
    def gearshift_handle(self):
        print("around", flush=True)
        return (yield)

app = gearshift.App(plugins=[Around()])

@app.handler("orders")
def handle(number: int) -> None:
    print("handled", number, flush=True)

print(app.run(profile="p"))
"""

#: The service's own line, and one failure each time.
LOGGING = """
import logging
import gearshift

# CONFIGURE

app = gearshift.App()
log = logging.getLogger("shop")

@app.handler("orders")
def handle(number: int) -> None:
    log.error("the shop says %d", number)
    raise ValueError("poison")
"""


class Service:
    """A running ``gearshift run``, the leader of a process group; its stderr, line by line."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = str(Path(sys.executable).with_name("gearshift"))
        self.process = subprocess.Popen(
            [program, "run", "service:app", *options],
            cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.lines.extend(line.rstrip("\n") for line in iter(lines.readline, ""))
            # Only after the last process that may write has gone.

    def said(self, text: str) -> list[str]:
        """The lines with ``text``."""
        return [line for line in self.lines if text in line]

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for all of its processes; the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert not self._reader.is_alive(), "a process of the service is still there"
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal_group(signal.SIGKILL)
        self.end()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: settings with a broker in a file, and one that is not there."""
    (tmp_path / "gearshift.toml").write_text(SETTINGS.replace("PORT", str(reserve_ports(1)[0])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def service(folder: Path, code: str, *options: str) -> Iterator[Service]:
    (folder / "service.py").write_text(code)
    running = Service(folder, *options)
    try:
        yield running
    finally:
        running.kill()


def begun(folder: Path) -> set[str]:
    return {path.name.partition("-")[2] for path in folder.glob("begun-*")}


def done(folder: Path) -> set[str]:
    return {path.name.partition("-")[2] for path in folder.glob("done-*")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_drains_every_process_once(
    folder: Path, number: signal.Signals
) -> None:
    """Ctrl-C, systemd, ``tini -g``: workers get it themselves, and are not told a second time."""
    with gearshift.open() as bus:
        bus.producer("orders").send_many(range(2))
    with service(folder, HOLDING, "--processes", "2") as running:
        assert until(lambda: len(begun(folder)) == 2)
        running.signal_group(number)
        assert until(lambda: len(running.said("draining: ")) == 2)
        (folder / "release").touch()
        assert running.end() == 0
        assert len(running.said("stopped: 1 acked")) == 2
    assert begun(folder) == done(folder)


@pytest.mark.parametrize("to_group", [True, False])
def test_a_second_signal_ends_every_process_at_once(folder: Path, to_group: bool) -> None:
    """Somebody insists: no worker is left behind, also if only the supervisor was told."""
    with gearshift.open() as bus:
        bus.producer("orders").send_many(range(2))
    with service(folder, HOLDING, "--processes", "2") as running:
        tell = running.signal_group if to_group else running.process.send_signal
        assert until(lambda: len(begun(folder)) == 2)
        tell(signal.SIGTERM)
        assert until(lambda: len(running.said("draining: ")) == 2)
        tell(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
    assert done(folder) == set()


def test_workers_drain_when_their_supervisor_is_killed(folder: Path) -> None:
    """They finish what they have in hand, and none is left without anybody to end it."""
    with gearshift.open() as bus:
        bus.producer("orders").send_many(range(2))
    with service(folder, HOLDING, "--processes", "2") as running:
        assert until(lambda: len(begun(folder)) == 2)
        running.process.kill()
        assert until(lambda: len(running.said("draining: ")) == 2)
        (folder / "release").touch()
        running.end()
    assert begun(folder) == done(folder)


def test_a_handler_that_ends_its_process_at_once_does_not_end_the_service(folder: Path) -> None:
    """Only an error that another process would meet too does, and only a process tells that."""
    with gearshift.open() as bus:
        bus.producer("orders").send(1)
    with service(folder, DEADLY, "--processes", "2") as running:
        assert until(lambda: running.said("starting another")), running.lines
        assert until(lambda: (folder / "done-1").exists()), running.lines


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_an_operator_needs_is_logged_in_one_format(folder: Path, processes: str) -> None:
    """From the start to the end, with any number of processes; and what the service logs itself."""
    with service(folder, LOGGING, "--processes", processes) as running:
        assert until(lambda: len(running.said("gearshift.worker ready")) == int(processes))
        with gearshift.open() as bus:
            sent = bus.producer("orders").send(7).id
        assert until(lambda: running.said("dead letters"))
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        ours = [line.split(" ", 3)[3] for line in running.lines if " gearshift." in line]
        handler, consumer = "gearshift.worker handle on orders/default", "gearshift.consumer"
        message = f"{consumer} orders/default: message '{sent}'"
        for line in (
            "INFO gearshift.worker started: profile p on sqlite",
            "INFO gearshift.worker handling handle on orders/default, concurrency 1",
            "INFO gearshift.worker ready",
            f"ERROR {handler} failed on message '{sent}', attempt 1",
            f"INFO {message}: attempt 1 of 2 failed, again in 0.0 s",
            f"WARNING {message} moved to the dead letters: gave up after 2 attempts: "
            "ValueError: poison",
            "INFO gearshift.worker draining: nothing more is received, up to 30 s",
        ):
            assert line in ours, running.lines
        assert running.lines.count("the shop says 7") == 2


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    "configure",
    ['logging.basicConfig(format="SHOP %(name)s %(message)s")',
     'logging.getLogger("shop").addHandler(logging.StreamHandler())'],
)  # fmt: skip
def test_a_services_own_logging_is_left_alone(folder: Path, processes: str, configure: str) -> None:
    """Its lines come out as it wants them, once; ours follow its configuration if it has one."""
    with gearshift.open() as bus:
        bus.producer("orders").send(7)
    code = LOGGING.replace("# CONFIGURE", configure)
    with service(folder, code, "--processes", processes) as running:
        assert until(lambda: running.said("dead letters"))
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        if "basicConfig" in configure:
            assert running.lines.count("SHOP shop the shop says 7") == 2
            ours = running.said(" gearshift.")
            assert ours
            assert all(line.startswith("SHOP gearshift.") for line in ours)
            assert not running.said("started")  # the root's level is the service's as well
        else:
            assert len(running.said("the shop says 7")) == 2
            assert running.said("INFO gearshift.worker started")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_broker_that_is_not_there_yet_is_waited_for(folder: Path, processes: str) -> None:
    """With any number of processes, each saying so in a line, and not a line for each attempt."""
    with service(folder, LOGGING, "--processes", processes, "--profile", "away") as running:
        assert until(lambda: len(running.said("waiting for the broker")) == int(processes))
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0
        assert len(running.said("not connected yet")) == int(processes)
        assert not running.said("ended with")
        assert not running.said("Traceback")


@pytest.mark.broker
def test_a_broker_that_comes_late_is_worked_on(folder: Path) -> None:
    """As soon as it is there, without another start of the service."""
    with Redis() as broker:
        late = f'[profiles.late]\nbackend = "redis"\nurl = "{broker.url}"\n[channels.orders]'
        file = folder / "gearshift.toml"
        file.write_text(file.read_text().replace("[channels.orders]", late))
        broker.kill()
        with service(folder, LOGGING, "--profile", "late") as running:
            assert until(lambda: running.said("waiting for the broker"))
            broker.start()
            with gearshift.open(profile="late") as bus:
                bus.producer("orders").send(7)
            assert until(lambda: running.said("the shop says 7"))


REFUSED = """
import gearshift
from gearshift.errors import AuthenticationFailed

app = gearshift.App()

@app.handler("orders")
def handle(number: int) -> None: ...

def consumer(*_, **__):
    raise AuthenticationFailed("the broker refuses the password", hint="see the profile")

gearshift.Bus.consumer = consumer
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_waiting_does_not_mend_ends_it(folder: Path, processes: str) -> None:
    """Refused credentials: the reason, and exit code 3, with any number of processes."""
    with service(folder, REFUSED, "--processes", processes) as running:
        assert running.end() == 3
        assert running.said("the broker refuses the password")
        assert not running.said("starting another")
        assert not running.said("draining: ")


STATELESS = """
from collections.abc import AsyncIterator
import gearshift

app = gearshift.App()

@app.lifespan
async def database() -> AsyncIterator[None]:
    raise OSError("it is away")
    yield

@app.handler("orders")
def handle(number: int) -> None: ...
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_state_that_cannot_be_made_ends_it(folder: Path, processes: str) -> None:
    """One line says which it was; exit code 1, with any number of processes."""
    with service(folder, STATELESS, "--processes", processes) as running:
        assert running.end() == 1
        assert running.said("lifespan database failed: OSError: it is away")
        assert not running.said("starting another")
        assert not running.said("Traceback")


def test_an_app_can_run_itself_until_it_is_told_to_stop(folder: Path) -> None:
    """``App.run`` drains at the first signal and returns what was done."""
    with gearshift.open() as bus:
        bus.producer("orders").send(7)
    program = subprocess.Popen(
        [sys.executable, "-c", ITSELF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == ["around\n", "handled 7\n"]
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=PATIENCE_S)
    assert "acked=1" in out
    assert program.returncode == 0
    assert "draining" in err
