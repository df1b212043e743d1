"""Running handlers: threads in a process, processes under a supervisor, and an orderly end.

On SIGTERM or SIGINT a worker stops receiving, lets its handlers finish, settles, closes, and says
what will be delivered again; a second signal ends it at once, and its children with it. Killing it
loses nothing: what was not settled comes again.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from gearshift import config as configuration
from gearshift._core import logs
from gearshift.bus import Bus, open_bus
from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.capabilities import Prefetch
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import (
    AlreadySettled,
    Closed,
    GearshiftError,
    StaleDelivery,
)
from gearshift.exit_codes import MISSING_CAPABILITY, UNREACHABLE, WRONG_SETTINGS, exit_code
from gearshift.message import Semantics
from gearshift.telemetry.server import TelemetryServer, parse_address
from gearshift.worker import dispatch
from gearshift.worker.app import App, Handler, load_app
from gearshift.worker.event_loop import EventLoop

__all__ = ["Worker", "WorkerReport", "run_target"]

log = logging.getLogger("gearshift.worker")

DRAIN_TIMEOUT_S = 30.0
_POLL_S = 0.2
_RESTART_AFTER_S = 1.0
_START_TIMEOUT_S = 1.0  # for each try, so that a signal is not kept waiting

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: Exit codes of errors that no other process would be spared.
_LASTING = frozenset((WRONG_SETTINGS, MISSING_CAPABILITY))

#: Delivery.outcome → field of the report.
_COUNTERS = {"ack": "acked", "retry": "retried", "reject": "rejected", "stale": "stale"}


@dataclass(slots=True)
class WorkerReport:
    """What a worker has done: deliveries by outcome. ``unfinished`` will be delivered again."""

    acked: int = 0
    retried: int = 0
    rejected: int = 0
    stale: int = 0
    unfinished: list[str | None] = field(default_factory=list)


class Worker:
    """Runs an App's handlers on threads of this process.

    ``start`` connects and returns; ``stop`` drains. Any thread may call them, once each.
    """

    def __init__(self, app: App, bus: Bus) -> None:
        self._app = app
        self._bus = bus
        self._lock = threading.Lock()
        self._consumers: list[Consumer[Any]] = []
        self._threads: list[threading.Thread] = []
        self._loop = EventLoop(on_end=self._fail)
        self._log = logs.LimitedLog(log)
        self.report = WorkerReport()
        self.failed = threading.Event()  #: a consumer has ended for good; ``error`` says why
        self.error: BaseException | None = None

    def start(self, *, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        """Open every handler's consumer and begin; ``timeout_s`` as in ``Bus.consumer``.

        Raises what that raises. If it is retryable, call it again: it goes on where it failed.
        """
        for handler in self._app.handlers[len(self._consumers) :]:
            consumer = self._bus.consumer(
                handler.channel,
                group=handler.group,
                value_type=handler.call.value_type,
                prefetch=self._prefetch(handler),
                rate_limit=handler.rate_limit,
                requires=handler.requires,
                serial_keys=True,
                timeout_s=timeout_s,
            )
            self._consumers.append(consumer)
            for number in range(handler.concurrency):
                self._spawn(handler, consumer, number)
            log.info("handling %s, concurrency %d", handler.name, handler.concurrency)

    def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every consumer is assigned and positioned. Raises DeadlineExceeded."""
        for consumer in self._consumers:
            consumer.ready(timeout_s)

    def is_ready(self) -> bool:
        """True if ``ready`` would return at once. Does not block."""
        try:
            self.ready(0.0)
        except GearshiftError:
            return False
        return True

    def stop(self, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> WorkerReport:
        """Receive nothing more, wait for running handlers, settle, close. Returns the report."""
        deadline = time.monotonic() + drain_timeout_s
        for consumer in self._consumers:
            consumer.stop_receiving()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for consumer in self._consumers:
            self.report.unfinished += consumer.close(max(1.0, deadline - time.monotonic()))
        self._loop.close()
        return self.report

    def _prefetch(self, handler: Handler) -> int | None:
        """The handler's own; else, on a queue that locks what it hands out in batches, one for
        each thread: what waited behind a slow handler would lose its lock, and others could have
        had it."""
        channel = handler.channel
        if handler.prefetch is not None or self._bus.semantics(channel) is not Semantics.QUEUE:
            return handler.prefetch
        is_soft = self._bus.capabilities(channel).prefetch is Prefetch.SOFT
        return handler.concurrency if is_soft else None

    def _spawn(self, handler: Handler, consumer: Consumer[Any], number: int) -> None:
        thread = threading.Thread(
            target=self._work,
            args=(handler, consumer),
            name=f"gearshift-{handler.channel}-{number}",
            daemon=True,
        )
        self._threads.append(thread)
        thread.start()

    def _work(self, handler: Handler, consumer: Consumer[Any]) -> None:
        try:
            while True:
                for delivery in consumer.receive():
                    self._handle(handler, consumer, delivery)
        except Closed:
            return
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A thread that handlers need has ended: nobody must believe that this worker works."""
        self.error = self.error or error
        self.failed.set()

    def _handle(self, handler: Handler, consumer: Consumer[Any], delivery: Delivery[Any]) -> None:
        """Run the handler and settle by how it ended, unless it has settled the delivery itself."""
        begun_at = time.perf_counter()
        ending = dispatch.run(partial(handler.call, delivery), self._loop.wait)
        took_s = time.perf_counter() - begun_at
        if ending.failed:
            self._log.error(
                "%s failed on message %r, attempt %d",
                handler.name, delivery.id, delivery.attempt, exc_info=ending.error,
            )  # fmt: skip
        try:
            if delivery.outcome is None:
                ending.settle(delivery)
        except (StaleDelivery, AlreadySettled) as error:
            self._log.warning("%s: %s", handler.name, error)
            outcome = "stale"
        else:
            outcome = str(delivery.outcome)
        consumer.handled(outcome, took_s)
        self._count(_COUNTERS[outcome])

    def _count(self, outcome: str) -> None:
        with self._lock:
            setattr(self.report, outcome, getattr(self.report, outcome) + 1)


def run_target(
    target: str,
    *,
    processes: int = 1,
    config_path: str | Path | None = None,
    profile: str | None = None,
    metrics: str | None = None,
) -> int:
    """Run ``module:app`` until SIGTERM or SIGINT; returns the exit code. Main thread only.

    With more than one process a supervisor starts them, starts again what dies, and has them drain.
    A broker that is not there yet is waited for. ``metrics``, ``PORT`` or ``HOST:PORT``, is where
    the first process serves ``/metrics`` and ``/healthz``; each further one has the next port.
    Raises ConfigError, UsageError and what opening raises.
    """
    load_app(target)  # a mistake is told once, here, not by every process
    address = None if metrics is None else parse_address(metrics)
    job = _Job(target, config_path, profile, address, logging.getLogger("gearshift").level)
    if processes > 1:
        logs.to_stderr()
        return _Supervisor(job, processes).run()
    with _Stop() as stop:
        return _run_here(job, stop)


@dataclass(frozen=True, slots=True)
class _Job:
    """What each process of a ``run`` does; ``metrics`` is the host and the first one's port."""

    target: str
    config_path: str | Path | None
    profile: str | None
    metrics: tuple[str, int] | None
    log_level: int


def _run_here(
    job: _Job, stop: _Stop, *, place: int = 0, on_ready: Callable[[], None] = lambda: None
) -> int:
    app = load_app(job.target)
    with contextlib.ExitStack() as stack:
        config = configuration.load(job.config_path, profile=job.profile)
        logs.to_stderr(config.masked)
        bus = stack.enter_context(open_bus(config=config))
        log.info("started: profile %s on %s", bus.profile, bus.backend)
        if job.metrics is not None:
            host, port = job.metrics
            server = TelemetryServer(bus, host, port + place if port else 0)
            stack.enter_context(server)
            log.info("metrics at http://%s:%d/metrics", host, server.port)
        worker = Worker(app, bus)
        try:
            if _start(worker, stop):
                _watch(worker, stop, on_ready)
        finally:
            report = worker.stop()
        log.info(
            "stopped: %d acked, %d retried, %d rejected; %d in hand will be delivered again",
            report.acked, report.retried, report.rejected, len(report.unfinished),
        )  # fmt: skip
    if worker.error is None:
        return 0
    if isinstance(worker.error, Exception):
        raise worker.error
    raise RuntimeError(f"a worker thread has ended: {worker.error!r}") from worker.error


def _start(worker: Worker, stop: _Stop) -> bool:
    """Start ``worker``, waiting for a broker that is not there; False if told to stop before."""
    waiting = logs.LimitedLog(log, burst=1, period_s=logs.SAY_AGAIN_S)
    while True:
        try:
            worker.start(timeout_s=_START_TIMEOUT_S)
            return True
        except GearshiftError as error:
            if not error.retryable:
                raise
            waiting.warning("waiting for the broker: %s", error)
        if stop.wait(_RESTART_AFTER_S):
            return False


def _watch(worker: Worker, stop: _Stop, on_ready: Callable[[], None]) -> None:
    """Wait until somebody says stop or the worker fails; call ``on_ready`` once."""
    is_ready = False
    while not stop.wait(_POLL_S) and not worker.failed.is_set():
        if not is_ready and worker.is_ready():
            is_ready = True
            log.info("ready")
            on_ready()
    log.info("draining: nothing more is received, up to %.0f s", DRAIN_TIMEOUT_S)


class _Stop:
    """Whether to stop: a SIGTERM or SIGINT has come, or ``supervisor`` was closed.

    A further signal calls ``at_once`` and ends the process. Main thread only, in a ``with`` block.
    """

    def __init__(
        self, supervisor: Connection | None = None, at_once: Callable[[], None] = lambda: None
    ) -> None:
        self._supervisor = supervisor
        self._at_once = at_once
        self._signalled = False
        self._stack = contextlib.ExitStack()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s``; True as soon as it is time to stop, and from then on."""
        told: list[int | Connection] = [self._read]
        if self._supervisor is not None:
            told.append(self._supervisor)
        return bool(connection.wait(told, timeout_s))

    def __enter__(self) -> _Stop:
        # A pipe, because no lock may be taken in a signal's handler.
        self._read, self._write = os.pipe()
        self._stack.callback(os.close, self._read)
        self._stack.callback(os.close, self._write)
        for number in _STOP_SIGNALS:
            self._stack.callback(signal.signal, number, signal.signal(number, self._on_signal))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._signalled:
            self._at_once()
            os._exit(128 + number)
        self._signalled = True
        os.write(self._write, b".")


@dataclass(slots=True)
class _Child:
    """A worker process. It says on ``link`` that it is ready, and drains once that is closed."""

    process: SpawnProcess
    link: Connection

    def has_been_ready(self) -> bool:
        """True once, after it said so."""
        try:
            return self.link.poll() and bool(self.link.recv())
        except (EOFError, OSError):
            return False


@dataclass(slots=True)
class _Supervisor:
    """Signals may reach the whole process group (Ctrl-C, systemd, ``tini -g``) or this process.

    So children are not sent any to drain: one that gets the group's signal as well would take it
    for the second one, which ends it at once.
    """

    job: _Job
    processes: int
    children: list[_Child] = field(default_factory=list)
    was_ready: bool = False  # at least one of them, once

    def run(self) -> int:
        with _Stop(at_once=self._kill) as stop:
            self.children = [self._start(place) for place in range(self.processes)]
            while not stop.wait(_POLL_S) and not self._is_hopeless():
                for place, child in enumerate(self.children):
                    self.was_ready = child.has_been_ready() or self.was_ready
                    if child.process.exitcode is not None:
                        self._replace(place, child, stop)
            return self._drain()

    def _is_hopeless(self) -> bool:
        """A child found what another one would find too: a wrong setting, a missing capability,
        refused credentials from the start."""
        lasting = _LASTING if self.was_ready else _LASTING | {UNREACHABLE}
        return any(child.process.exitcode in lasting for child in self.children)

    def _start(self, place: int) -> _Child:
        # Spawned, not forked: no connection or lock of this process may reach a child.
        link, its = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_child, args=(self.job, place, its)
        )
        resource_tracker.ensure_running()  # or ``start`` does it, and unblocks signals
        # A signal waits until the child can take it: before that it would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its.close()
        return _Child(process, link)

    def _replace(self, place: int, child: _Child, stop: _Stop) -> None:
        process = child.process
        log.error(
            "worker process %s ended with %s, starting another", process.pid, process.exitcode
        )
        child.link.close()
        if not stop.wait(_RESTART_AFTER_S):
            self.children[place] = self._start(place)

    def _drain(self) -> int:
        log.info("draining %d processes", len(self.children))
        for child in self.children:
            child.link.close()
        deadline = time.monotonic() + DRAIN_TIMEOUT_S + 10.0
        for child in self.children:
            child.process.join(max(0.1, deadline - time.monotonic()))
        self._kill()
        codes = [abs(child.process.exitcode or 0) for child in self.children]
        return max(_LASTING.intersection(codes) or codes, default=0)

    def _kill(self) -> None:
        for child in self.children:
            if child.process.exitcode is None:
                child.process.kill()
                child.process.join()


def _child(job: _Job, place: int, link: Connection) -> None:
    def tell_ready() -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, which ``stop`` notices
            link.send(True)

    with _Stop(link) as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        if job.log_level:
            logging.getLogger("gearshift").setLevel(job.log_level)
        try:
            code = _run_here(job, stop, place=place, on_ready=tell_ready)
        except GearshiftError as error:
            logs.to_stderr()  # it may have failed before
            log.error("%s", error)
            code = exit_code(error)
    raise SystemExit(code)
