"""``gearshift run``: the handlers of an app, on threads and processes."""

from __future__ import annotations

import rich_click as click

from gearshift.cli.context import Session, with_session

__all__ = ["command"]


@click.command("run")
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--processes", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N",
    help="Worker processes; a dead one is replaced.",
)  # fmt: skip
@click.option(
    "--metrics", metavar="[HOST:]PORT",
    help="Serve /metrics for Prometheus and /healthz; each further process has the next port.",
)  # fmt: skip
@with_session
def command(session: Session, target: str, processes: int, metrics: str | None) -> int:
    """Run the handlers of an app until SIGTERM or Ctrl-C.

    MODULE:APP is where the App object is: [bold]gearshift run shop.handlers:app[/bold]. The first
    signal finishes what is in hand and gives the rest back; a second one ends it at once.
    """
    from gearshift.worker.supervisor import run_target

    session.leave_logs_alone()
    return run_target(
        target,
        processes=processes,
        config_path=session.config_path,
        profile=session.profile,
        metrics=metrics,
    )
