"""``gearshift run``: an app by name, in one process or several."""

from __future__ import annotations

from pathlib import Path

from gearshift._core import logs
from gearshift.telemetry.server import parse_address
from gearshift.worker.loading import load_app
from gearshift.worker.service import Service, serve
from gearshift.worker.signals import StopRequest
from gearshift.worker.supervisor import Supervisor

__all__ = ["run_target"]


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
    service = Service(config_path, profile, None if metrics is None else parse_address(metrics))
    if processes > 1:
        logs.to_stderr()
        return Supervisor(target, service, processes).run()
    with StopRequest() as stop:
        serve(app, service, stop)
    return 0
