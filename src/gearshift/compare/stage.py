"""Where a trial takes place: a channel of its own, its producer, workers and tape; then gone."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gearshift import config as configuration
from gearshift.bus import Bus, open_bus
from gearshift.compare.actor import Actor, Role
from gearshift.compare.ledger import Event, Sample
from gearshift.compare.memory import watch
from gearshift.compare.notebook import apart
from gearshift.compare.tape import Recorder, Tape
from gearshift.compare.worker import Assignment, Site
from gearshift.compare.workload import Order
from gearshift.driver import GroupStatus
from gearshift.errors import GearshiftError, InvalidMessage, NotSupported
from gearshift.message import Message, Receipt, Semantics, message_id
from gearshift.operations.cleanup import delete_channels, finish
from gearshift.producer import Producer

__all__ = ["PARTITIONS", "Broker", "Stage", "WorkerFailed", "count"]

log = logging.getLogger("gearshift.compare")

#: Partitions of every stream, so that all columns have the same.
PARTITIONS = 4

TIMEOUT_S = 90.0  # of each wait; a busy machine starts its workers slowly
LETTERS_TIMEOUT_S = 30.0
_LOOK_S = 0.5
_SAMPLE_S = 0.1
_QUIET_S = 1.5
_STOP_S = 10.0


class WorkerFailed(GearshiftError):
    """A worker of a scenario ended although nobody had told it to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where a column's messages go: a profile of a settings file (None: the nearest), and how."""

    config: Path | None
    profile: str
    semantics: Semantics

    def open(self, channels: Mapping[str, Mapping[str, Any]]) -> tuple[Bus, dict[str, str]]:
        """A bus that knows ``channels`` too, and the environment that tells others of them."""
        environment = {
            f"GEARSHIFT_CHANNELS__{name.upper()}__{setting.upper()}": _toml(value)
            for name, settings in channels.items()
            for setting, value in settings.items()
        }
        config = configuration.load(
            self.config, profile=self.profile, environ=os.environ | environment
        )
        return open_bus(config=config), environment


@dataclass(slots=True)
class Stage:
    """What a scenario plays on. Made by ``Stage.set_up``; one thread."""

    bus: Bus
    broker: Broker
    channel: str
    folder: Path
    tape: Tape
    recorder: Recorder
    keyed: bool
    partitions: int | None  #: of the channel, if it is a stream and they are known
    _environment: dict[str, str]
    _origin_ns: int
    events: tuple[Event, ...] = ()  #: everything that happened, once it is over
    samples: tuple[Sample, ...] = ()
    _threads: list[_Thread] = field(default_factory=list)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    @staticmethod
    @contextlib.contextmanager
    def set_up(
        broker: Broker,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        keyed: bool,
        partitions: int | None = PARTITIONS,
    ) -> Iterator[Stage]:
        """A fresh channel with ``settings``; stopped, deleted, closed at the end in any case.

        What cannot be deleted, because the broker has gone, is logged as a warning.

        ``partitions`` is for a stream; None is what the backend takes.
        """
        channel = f"compare_{message_id()[-14:]}"
        wanted = {"semantics": broker.semantics.value, **settings}
        if broker.semantics is Semantics.STREAM and partitions is not None:
            wanted["partitions"] = partitions
        bus, environment = broker.open({channel: wanted})
        path = folder / f"{channel}.tape"
        origin_ns = time.monotonic_ns()
        with bus, Tape(path) as tape:
            recorder = Recorder(path, origin_ns)
            stage = Stage(
                bus, broker, channel, folder, tape, recorder, keyed, partitions, environment,
                origin_ns,
            )  # fmt: skip
            try:
                bus.declare(channel)
                yield stage
            finally:
                finish(stage._clear)
                recorder.close()
                stage.events, stage.samples = tape.events(), tape.samples()

    # ── sending ──

    def send(self, orders: Sequence[Order], *, per_s: float | None = None) -> None:
        """Send with confirmation, each its own, pipelined; all receipts are there on return."""
        started = time.monotonic()
        with self.bus.producer(self.channel) as producer:
            for number, order in enumerate(orders):
                if per_s is not None:
                    time.sleep(max(0.0, started + number / per_s - time.monotonic()))
                value, key = msgspec.to_builtins(order), order.customer
                message = producer.message(value, key=key if self.keyed else None)
                self._submit(producer, order.order_id, key, message)

    def send_copies(self, messages: Sequence[tuple[str | None, Message]]) -> None:
        """Send messages as they are, each with the key to write down; also returns with receipts.

        One that cannot be sent here is written down as refused.
        """
        with self.bus.producer(self.channel) as producer:
            for seq, (key, message) in enumerate(messages):
                self._submit(producer, seq, key, message)

    def _submit(self, producer: Producer, seq: int, key: str | None, message: Message) -> None:
        self.recorder.event("send", "producer", seq=seq, key=key)
        sent_ns = time.monotonic_ns()

        def refused(error: BaseException) -> None:
            what = self.bus.config.masked(f"{type(error).__name__}: {error}")
            self.recorder.event("refused", "producer", seq=seq, key=key, what=what)

        def resolved(future: Future[Receipt]) -> None:
            error = future.exception()
            if error is not None:
                refused(error)
                return
            taken = round((time.monotonic_ns() - sent_ns) / 1e6, 3)
            self.recorder.event("receipt", "producer", seq=seq, key=key, ms_taken=taken)

        try:
            producer.submit(message).add_done_callback(resolved)
        except (InvalidMessage, NotSupported) as error:
            refused(error)

    # ── workers ──

    def thread(self, role: Role) -> None:
        """Start a worker on a thread of this process."""
        self._threads.append(_Thread(Actor(self.bus, role, self.recorder), role.name))

    def process(self, role: Role) -> None:
        """Start a worker as a process, with a connection of its own."""
        self.spawn(role.name, "gearshift.compare.worker", Assignment(role=role, site=self.site()))

    def site(self) -> Site:
        """Where a process finds this stage."""
        return Site(
            config=None if self.bus.config.file is None else str(self.bus.config.file),
            profile=self.broker.profile,
            tape=str(self.folder / f"{self.channel}.tape"),
            origin_ns=self._origin_ns,
        )

    def spawn(self, name: str, module: str, told: msgspec.Struct) -> None:
        """Start ``module`` as a process that is given the name of a file with ``told``."""
        order = self.folder / f"{self.channel}-{name}.json"
        order.write_bytes(msgspec.json.encode(told))

        def start() -> None:
            with order.with_suffix(".log").open("wb") as output:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", module, str(order)],
                    env=os.environ | self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )

        finish(start)  # one that was started and is not known here would never be stopped

    def kill(self, name: str) -> None:
        """SIGKILL a worker process."""
        self._ended.add(name)
        self._processes[name].kill()
        self.recorder.event("fault", name, what="SIGKILL")
        self._processes[name].wait()

    def stop_threads(self) -> None:
        """Let every worker thread drain and leave."""
        for thread in self._threads:
            thread.stop.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    # ── waiting ──

    def wait(
        self,
        condition: Callable[[list[Event]], bool],
        what: str,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """See Tape.wait; a worker that ended on its own ends this too."""
        self.tape.wait(condition, timeout_s, what, self._check_workers)

    def wait_ready(self, members: int) -> None:
        """Until so many workers are ready and, on a stream, share its partitions."""
        self.wait(lambda events: count(events, "ready") >= members, "workers ready")
        if self.broker.semantics is Semantics.STREAM:
            self.wait(
                lambda events: _is_balanced(events, members, self.partitions),
                "partitions shared",
            )

    def wait_ready_each(self, groups: Sequence[str]) -> None:
        """Until the single worker of each of ``groups`` is ready, with all partitions."""

        def is_ready(events: list[Event]) -> bool:
            return all(
                any(event.kind == "ready" and event.group == group for event in events)
                and (
                    self.broker.semantics is Semantics.QUEUE
                    or _owns_all(events, group, self.partitions)
                )
                for group in groups
            )

        self.wait(is_ready, f"groups {', '.join(groups)} ready")

    def wait_done(self, orders: Sequence[Order], group: str = "workers") -> None:
        """Until ``group`` has done every one of ``orders``."""
        wanted = {order.order_id for order in orders}
        self.wait(lambda events: wanted <= done(events, group), f"{len(wanted)} messages done")

    def wait_done_or_drained(self, orders: Sequence[Order], group: str = "workers") -> None:
        """As ``wait_done``, or until the broker has nothing more and nobody has anything in hand.

        What is missing then is lost. Where the broker cannot tell, only time ends the wait.
        """
        wanted = {order.order_id for order in orders}
        seen, quiet_since = -1, time.monotonic()

        def is_over(events: list[Event]) -> bool:
            nonlocal seen, quiet_since
            if wanted <= done(events, group):
                return True
            if len(events) != seen:
                seen, quiet_since = len(events), time.monotonic()
            if time.monotonic() - quiet_since < _QUIET_S:
                return False
            quiet_since = time.monotonic()
            return self._is_drained(group)

        self.wait(is_over, f"{len(wanted)} messages done or gone")

    def wait_acks_heard(self, group: str = "workers") -> None:
        """Until the broker has every ack that is on the tape; at once where it cannot tell.

        Some clients send acks when they like (Kafka's does): killed before, they have not acked.
        """

        def is_heard(events: list[Event]) -> bool:
            acked = _acked(events, group)
            status = self.status(group)
            if status is None:
                return False
            left = status.lag
            if self.broker.semantics is Semantics.QUEUE:
                if status.ready is None or status.in_flight is None:
                    return True
                left = status.ready + status.in_flight
            stored = {event.seq for event in events if event.kind == "receipt"}
            # An ack that came onto the tape meanwhile may or may not be in that number.
            return left == len(stored - acked) and acked == _acked(self.tape.events(), group)

        if self.bus.capabilities(self.channel).depth:
            self.wait(is_heard, "the acks at the broker")

    def wait_replayed_or_refused(self, messages: int) -> None:
        """After a seek: until so many messages were delivered again, or at once if refused."""

        def is_over(events: list[Event]) -> bool:
            at = next(n for n, event in enumerate(events) if event.kind == "seek")
            refused = events[at].what != "earliest"
            return refused or count(events[at:], "done") >= messages

        self.wait(is_over, "the replay")

    def read_dead_letters(self) -> None:
        """Write down what lies in the dead-letter channel, until all that was rejected has come.

        What is missing after ``LETTERS_TIMEOUT_S`` is not there.
        """
        apart(self._read_dead_letters)

    def _read_dead_letters(self) -> None:
        missing = {event.seq for event in self.tape.events() if event.what == "reject"}
        deadline = time.monotonic() + LETTERS_TIMEOUT_S
        with self.bus.consumer(f"{self.channel}.dead") as dead:
            dead.ready()
            while missing and time.monotonic() < deadline:
                for delivery in dead.receive(timeout_s=_LOOK_S):
                    order = msgspec.json.decode(delivery.body or b"", type=Order)
                    self.recorder.event(
                        "dead",
                        "reader",
                        seq=order.order_id,
                        key=order.customer,
                        what=str(delivery.headers.get("dead-letter-reason", "")),
                    )
                    delivery.ack()
                    missing.discard(order.order_id)

    def status(self, group: str) -> GroupStatus | None:
        """The group as the broker has it, written onto the tape as samples."""
        for status in self.bus.groups(self.channel):
            if status.group != group:
                continue
            for name in ("ready", "in_flight", "lag"):
                value = getattr(status, name)
                if value is not None:
                    self.recorder.sample(f"{name}_messages", value, group=group)
            return status
        return None

    @contextlib.contextmanager
    def sampled(self, group: str) -> Iterator[None]:
        """Sample the group's state and this process' memory while the block runs."""
        stop = threading.Event()

        def sample() -> None:
            while not stop.wait(_SAMPLE_S):
                with contextlib.suppress(GearshiftError):
                    self.status(group)

        threads = [
            threading.Thread(target=sample, daemon=True),
            threading.Thread(target=watch, args=("producer", self.recorder, stop), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    # ── inside ──

    def _is_drained(self, group: str) -> bool:
        status = self.status(group)
        if status is None:
            return False
        if status.lag is not None:
            return status.lag == 0
        return status.ready == 0 and not status.in_flight

    def _check_workers(self) -> None:
        for thread in self._threads:
            if thread.error is not None:
                raise thread.error
        for name, process in self._processes.items():
            if name not in self._ended and process.poll() is not None:
                self._ended.add(name)
                log = (self.folder / f"{self.channel}-{name}.log").read_text(errors="replace")
                last = self.bus.config.masked(log.strip().splitlines()[-1]) if log.strip() else ""
                raise WorkerFailed(f"worker {name} ended with {process.returncode}: {last}")

    def _clear(self) -> None:
        """Stop everybody and remove the channel."""
        for thread in self._threads:
            thread.stop.set()
        for thread in self._threads:
            thread.join(_STOP_S)  # one that hangs in a user's handler is left to the process' end
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for problem in delete_channels(self.bus, self.channel):
            log.warning("%s", self.bus.config.masked(problem))


class _Thread(threading.Thread):
    """An actor on a thread; ``error`` is what ended it early."""

    def __init__(self, actor: Actor, name: str) -> None:
        super().__init__(name=f"compare-{name}", daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._actor = actor
        self.start()

    def run(self) -> None:
        """See threading.Thread."""
        try:
            self._actor.run(self.stop)
        except Exception as error:
            self.error = error


def count(events: Sequence[Event], kind: str, who: str | None = None) -> int:
    """How many events of ``kind``, of ``who`` if given."""
    return sum(event.kind == kind and who in (None, event.who) for event in events)


def done(events: Sequence[Event], group: str) -> set[int | None]:
    """The messages that ``group`` has done."""
    return {event.seq for event in events if event.kind == "done" and event.group == group}


def _acked(events: Sequence[Event], group: str) -> set[int | None]:
    """The messages that ``group`` has acked."""
    return {
        event.seq
        for event in events
        if event.kind == "settle" and event.what == "ack" and event.group == group
    }


def _is_balanced(events: Sequence[Event], members: int, partitions: int | None) -> bool:
    """Every partition has one owner, and as many workers as possible own one.

    Where nobody knows how many ``partitions`` there are, those that were ever owned are all.
    """
    assigned = [event for event in events if event.kind == "assign"]
    known = partitions or len({number for event in assigned for number in event.partitions})
    owned = {event.who: event.partitions for event in assigned}
    shared = [partition for own in owned.values() for partition in own]
    owners = sum(bool(own) for own in owned.values())
    return 0 < len(shared) == len(set(shared)) == known and owners == min(members, known)


def _owns_all(events: Sequence[Event], group: str, partitions: int | None) -> bool:
    last = [event for event in events if event.kind == "assign" and event.group == group]
    return bool(last) and len(last[-1].partitions) == partitions


def _toml(value: object) -> str:
    """A setting as the environment gives it: TOML for what is no text."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
