"""Running an app in this process until it is told to stop, with metrics.

On SIGTERM or SIGINT a worker stops receiving, lets its handlers finish, settles, closes, and logs
how many messages will be delivered again; a second signal ends it at once. Killing it loses
nothing: what was not settled comes again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gearshift import config as configuration
from gearshift._core import logs
from gearshift.bus import open_bus
from gearshift.errors import GearshiftError
from gearshift.telemetry.server import TelemetryServer
from gearshift.worker.app import App
from gearshift.worker.signals import StopRequest
from gearshift.worker.worker import DRAIN_TIMEOUT_S, Worker, WorkerReport

__all__ = ["POLL_S", "RETRY_AFTER_S", "START_TIMEOUT_S", "Service", "drain", "serve", "start"]

log = logging.getLogger("gearshift.worker")

POLL_S = 0.2
RETRY_AFTER_S = 1.0
START_TIMEOUT_S = 1.0  # for each try, so that a signal is not kept waiting


class Stop(Protocol):
    """A request to stop: a StopRequest or a threading.Event."""

    def wait(self, timeout_s: float, /) -> bool:
        """Wait for it so long; True once it has come."""


@dataclass(frozen=True, slots=True)
class Service:
    """What an app runs on; ``metrics`` is the host and port of its telemetry."""

    config_path: str | Path | None = None
    profile: str | None = None
    metrics: tuple[str, int] | None = None


def serve(
    app: App, service: Service, stop: StopRequest, *, on_ready: Callable[[], None] = lambda: None
) -> WorkerReport:
    """Run ``app`` in this process until ``stop``, and drain it. Raises what has ended it before.

    A broker that cannot be reached yet is waited for. ``on_ready`` is called once.
    """
    with contextlib.ExitStack() as stack:
        config = configuration.load(service.config_path, profile=service.profile)
        logs.to_stderr(config.masked)
        bus = stack.enter_context(open_bus(config=config, plugins=app.plugins))
        log.info("started: profile %s on %s", bus.profile, config.stack)
        if service.metrics is not None:
            host, port = service.metrics
            server = stack.enter_context(TelemetryServer(bus, host, port))
            log.info("metrics at http://%s:%d/metrics", host, server.port)
        worker = Worker(app, bus)
        try:
            if start(worker, stop):
                _watch(worker, stop, on_ready)
        finally:
            report = drain(worker)
    if isinstance(worker.error, Exception):
        raise worker.error
    if worker.error is not None:
        raise RuntimeError(f"a worker thread has ended: {worker.error!r}") from worker.error
    return report


def start(worker: Worker, stop: Stop) -> bool:
    """Start ``worker``, waiting for its broker; False if told to stop before. Blocks.

    Raises what waiting does not mend.
    """
    waiting = logs.LimitedLog(log, burst=1, period_s=logs.SAY_AGAIN_S)
    while True:
        try:
            worker.start(timeout_s=START_TIMEOUT_S)
            return True
        except GearshiftError as error:
            if not error.retryable:
                raise
            waiting.warning("waiting for the broker: %s", error)
        if stop.wait(RETRY_AFTER_S):
            return False


def drain(worker: Worker, timeout_s: float = DRAIN_TIMEOUT_S) -> WorkerReport:
    """Stop ``worker``, and log how its messages ended. Blocks."""
    report = worker.stop(timeout_s)
    log.info(
        "stopped: %d acked, %d retried, %d rejected; %d unsettled will be delivered again",
        report.acked, report.retried, report.rejected, len(report.unfinished),
    )  # fmt: skip
    return report


def _watch(worker: Worker, stop: StopRequest, on_ready: Callable[[], None]) -> None:
    """Wait for ``stop`` or the worker's failure; call ``on_ready`` once it is ready."""
    is_ready = False
    while not stop.wait(POLL_S) and not worker.failed.is_set():
        if not is_ready and worker.is_ready():
            is_ready = True
            log.info("ready")
            on_ready()
    log.info("draining: nothing more is received, up to %.0f s", DRAIN_TIMEOUT_S)
