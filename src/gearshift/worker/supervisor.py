"""``gearshift run``: an app in this process, or in several that are started again if they die."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from gearshift._core import logs
from gearshift.errors import GearshiftError
from gearshift.exit_codes import FAILED, MISSING_CAPABILITY, UNREACHABLE, WRONG_SETTINGS, exit_code
from gearshift.telemetry.server import parse_address
from gearshift.worker.loading import load_app
from gearshift.worker.service import POLL_S, RETRY_AFTER_S, Service, serve
from gearshift.worker.signals import STOP_SIGNALS, StopRequest
from gearshift.worker.worker import DRAIN_TIMEOUT_S

__all__ = ["run_target"]

log = logging.getLogger("gearshift.worker")

#: Exit codes of errors that another process would meet too.
_LASTING = frozenset((WRONG_SETTINGS, MISSING_CAPABILITY))


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
    ``metrics``, ``PORT`` or ``HOST:PORT``, is where the first process serves ``/metrics`` and
    ``/healthz``; each further one has the next port. Raises ConfigError, UsageError and what
    opening raises.
    """
    app = load_app(target)  # a mistake is told once, here, not by every process
    if processes == 1:
        app.run(config_path, profile=profile, metrics=metrics)
        return 0
    service = Service(config_path, profile, None if metrics is None else parse_address(metrics))
    logs.to_stderr()
    return _Supervisor(target, service, processes).run()


@dataclass(slots=True)
class _Child:
    """A worker process. It sends through ``pipe`` that it is ready, and the exit code of an error
    that ends it; it drains when that closes. One that a handler has ended sends nothing."""

    process: SpawnProcess
    pipe: Connection
    error_code: int | None = None

    def listen(self) -> bool:
        """Take in what it has sent; True if that it is ready. Does not block."""
        is_ready = False
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                self.error_code = self.pipe.recv()
                is_ready = is_ready or self.error_code is None
        return is_ready


@dataclass(slots=True)
class _Supervisor:
    """Runs ``target`` in processes until SIGTERM or SIGINT, which may reach the whole group.

    So children are not sent a signal to drain: one that gets the group's signal as well would take
    it for the second one, which ends it at once. Main thread only.
    """

    target: str
    service: Service
    processes: int
    children: list[_Child] = field(default_factory=list)
    was_ready: bool = False  # at least one of them, once

    def run(self) -> int:
        """Returns the exit code."""
        with StopRequest(at_once=self._kill) as stop:
            self.children = [self._start(place) for place in range(self.processes)]
            while not stop.wait(POLL_S):
                codes = [child.process.exitcode for child in self.children]
                for child in self.children:
                    self.was_ready = child.listen() or self.was_ready
                if self._is_hopeless():
                    break
                for place, code in enumerate(codes):
                    if code is not None:
                        self._replace(place, stop)
            return self._drain()

    def _is_hopeless(self) -> bool:
        """True if a child has met an error that another one would meet too: a wrong setting, a
        missing capability; from the start, refused credentials or whatever ends one process."""
        lasting = _LASTING if self.was_ready else _LASTING | {UNREACHABLE, FAILED}
        return any(child.error_code in lasting for child in self.children)

    def _start(self, place: int) -> _Child:
        # Spawned, not forked: no connection or lock of this process may reach a child.
        ours, its = multiprocessing.Pipe()
        service, level = self.service, logging.getLogger("gearshift").level
        if service.metrics is not None and service.metrics[1]:
            host, port = service.metrics
            service = replace(service, metrics=(host, port + place))
        process = multiprocessing.get_context("spawn").Process(
            target=_child, args=(self.target, service, its, level)
        )
        resource_tracker.ensure_running()  # or ``start`` does it, and unblocks signals
        # A signal waits until the child can take it: before that it would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its.close()
        return _Child(process, ours)

    def _replace(self, place: int, stop: StopRequest) -> None:
        child = self.children[place]
        process = child.process
        log.error(
            "worker process %s ended with %s, starting another", process.pid, process.exitcode
        )
        child.pipe.close()
        if not stop.wait(RETRY_AFTER_S):
            self.children[place] = self._start(place)

    def _drain(self) -> int:
        log.info("draining %d processes", len(self.children))
        for child in self.children:
            child.pipe.close()
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


def _child(target: str, service: Service, pipe: Connection, log_level: int) -> None:
    def tell(error_code: int | None = None) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, which ``stop`` notices
            pipe.send(error_code)

    code = 0
    with StopRequest(pipe) as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if log_level:
            logging.getLogger("gearshift").setLevel(log_level)
        try:
            serve(load_app(target), service, stop, on_ready=tell)
        except Exception as error:
            code = exit_code(error)
            tell(code)
            if not isinstance(error, GearshiftError):
                raise
            logs.to_stderr()  # it may have failed before
            log.error("%s", error)
    raise SystemExit(code)
