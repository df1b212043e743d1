"""Running handlers: threads in a process, processes under a supervisor, and an orderly end.

On SIGTERM or SIGINT a worker stops receiving, lets its handlers finish, settles, closes, and says
what will be delivered again; a second signal ends it at once. Killing it loses nothing: what was
not settled comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from gearshift.app import App, Handler, Reject, Retry, load_app
from gearshift.bus import Bus, open_bus
from gearshift.capabilities import Prefetch
from gearshift.consumer import Consumer
from gearshift.delivery import Delivery
from gearshift.errors import (
    AlreadySettled,
    Closed,
    ConfigError,
    DecodeError,
    GearshiftError,
    NotSupported,
    StaleDelivery,
)
from gearshift.message import Semantics
from gearshift.telemetry.server import TelemetryServer, parse_address

__all__ = ["Worker", "WorkerReport", "run_target"]

log = logging.getLogger("gearshift.worker")

DRAIN_TIMEOUT_S = 30.0
_POLL_S = 0.2
_RESTART_AFTER_S = 1.0

#: Exit codes of errors that no other process would be spared.
_LASTING = frozenset((ConfigError.exit_code, NotSupported.exit_code))

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self.report = WorkerReport()
        self.failed = threading.Event()  #: a consumer has ended for good; ``error`` says why
        self.error: Exception | None = None

    def start(self) -> None:
        """Open every handler's consumer and begin. Raises what ``Bus.consumer`` raises."""
        if any(handler.is_async for handler in self._app.handlers):
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(
                target=self._loop.run_forever, name="gearshift-asyncio", daemon=True
            )
            self._loop_thread.start()
        for handler in self._app.handlers:
            consumer = self._bus.consumer(
                handler.channel,
                group=handler.group,
                value_type=handler.value_type,
                prefetch=self._prefetch(handler),
                rate_limit=handler.rate_limit,
                requires=handler.requires,
                serial_keys=True,
            )
            self._consumers.append(consumer)
            for number in range(handler.concurrency):
                self._spawn(handler, consumer, number)
            log.info("handling %s, concurrency %d", handler.name, handler.concurrency)

    def ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every consumer is assigned and positioned. Raises DeadlineExceeded."""
        for consumer in self._consumers:
            consumer.ready(timeout_s)

    def stop(self, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> WorkerReport:
        """Receive nothing more, wait for running handlers, settle, close. Returns the report."""
        deadline = time.monotonic() + drain_timeout_s
        for consumer in self._consumers:
            consumer.stop_receiving()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for consumer in self._consumers:
            self.report.unfinished += consumer.close(max(1.0, deadline - time.monotonic()))
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join()
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
        except Exception as error:
            self.error = error
            self.failed.set()

    def _handle(self, handler: Handler, consumer: Consumer[Any], delivery: Delivery[Any]) -> None:
        """Run the handler and settle by how it ended, unless it has settled the delivery itself."""
        begun_at = time.perf_counter()
        settle = self._verdict(handler, delivery)
        took_s = time.perf_counter() - begun_at
        try:
            if delivery.outcome is None:
                settle()
        except (StaleDelivery, AlreadySettled) as error:
            log.warning("%s", error)
            outcome = "stale"
        else:
            outcome = str(delivery.outcome)
        consumer.handled(outcome, took_s)
        self._count(_COUNTERS[outcome])

    def _verdict(self, handler: Handler, delivery: Delivery[Any]) -> Callable[[], None]:
        try:
            self._call(handler, delivery)
        except Reject as verdict:
            return partial(delivery.reject, verdict.reason)
        except Retry as verdict:
            return partial(delivery.retry, verdict.delay_s)
        except DecodeError as error:
            log.error("%s: message %r: %s", handler.name, delivery.id, error)
            return partial(delivery.reject, str(error))
        except Exception as error:
            log.exception(
                "%s failed on message %r, attempt %d", handler.name, delivery.id, delivery.attempt
            )
            return partial(delivery.retry, reason=f"{type(error).__name__}: {error}")
        return delivery.ack

    def _call(self, handler: Handler, delivery: Delivery[Any]) -> None:
        result = handler.function(*handler.arguments(delivery))
        if handler.is_async:
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(result, self._loop).result()

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

    With more than one process a supervisor starts them, starts again what dies, and passes signals
    on. ``metrics``, ``PORT`` or ``HOST:PORT``, is where the first process serves ``/metrics`` and
    ``/healthz``; each further one has the next port. Raises ConfigError, UsageError and what
    opening raises.
    """
    load_app(target)  # a mistake is told once, here, not by every process
    address = None if metrics is None else parse_address(metrics)
    job = _Job(target, config_path, profile, address)
    return _run_here(job) if processes == 1 else _Supervisor(job, processes).run()


@dataclass(frozen=True, slots=True)
class _Job:
    """What each process of a ``run`` does; ``metrics`` is the host and the first one's port."""

    target: str
    config_path: str | Path | None
    profile: str | None
    metrics: tuple[str, int] | None


def _run_here(job: _Job, place: int = 0) -> int:
    app = load_app(job.target)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        bus = stack.enter_context(open_bus(job.config_path, profile=job.profile))
        if job.metrics is not None:
            host, port = job.metrics
            server = TelemetryServer(bus, host, port + place if port else 0)
            stack.enter_context(server)
            log.info("metrics at http://%s:%d/metrics", host, server.port)
        worker = Worker(app, bus)
        try:
            worker.start()
            parent = os.getppid()
            while not stop.wait(_POLL_S) and not worker.failed.is_set():
                if os.getppid() != parent:
                    log.warning("the supervisor is gone, draining")
                    break
        finally:
            report = worker.stop()
        log.info(
            "stopped: %d acked, %d retried, %d rejected; %d in hand will be delivered again",
            report.acked, report.retried, report.rejected, len(report.unfinished),
        )  # fmt: skip
    if worker.error is not None:
        raise worker.error
    return 0


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    previous = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Supervisor:
    job: _Job
    processes: int
    children: list[SpawnProcess] = field(default_factory=list)

    def run(self) -> int:
        # Spawned, not forked: no connection or lock of this process may reach a child.
        self.children = [self._start(place) for place in range(self.processes)]
        with _stop_signals() as stop:
            while not stop.wait(_POLL_S) and not self._is_hopeless():
                for place, child in enumerate(self.children):
                    if child.exitcode is not None:
                        self._replace(place, child, stop)
        return self._drain()

    def _is_hopeless(self) -> bool:
        """A child found what another one would find too: a wrong setting, a missing capability."""
        return any(child.exitcode in _LASTING for child in self.children)

    def _start(self, place: int) -> SpawnProcess:
        child = multiprocessing.get_context("spawn").Process(target=_child, args=(self.job, place))
        child.start()
        return child

    def _replace(self, place: int, child: SpawnProcess, stop: threading.Event) -> None:
        log.error("worker process %s ended with %s, starting another", child.pid, child.exitcode)
        if not stop.wait(_RESTART_AFTER_S):
            self.children[place] = self._start(place)

    def _drain(self) -> int:
        for child in self.children:
            with contextlib.suppress(ProcessLookupError):
                if child.pid is not None and child.exitcode is None:
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S + 10.0
        for child in self.children:
            child.join(max(0.1, deadline - time.monotonic()))
            if child.exitcode is None:
                child.kill()
                child.join()
        codes = [abs(child.exitcode or 0) for child in self.children]
        # A child that was still starting dies of the signal, which is not what went wrong.
        return max(_LASTING.intersection(codes) or codes, default=0)


def _child(job: _Job, place: int) -> None:
    _log_to_stderr()
    try:
        raise SystemExit(_run_here(job, place))
    except GearshiftError as error:
        log.error("%s", error)
        raise SystemExit(error.exit_code) from None


def _log_to_stderr() -> None:
    """Gearshift's own lines. Clients' stay silent: their errors reach us as exceptions."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")
    )
    ours = logging.getLogger("gearshift")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.getLogger().addHandler(logging.NullHandler())  # or the last resort would print them
