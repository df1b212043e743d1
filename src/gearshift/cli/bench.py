"""``gearshift bench``: how fast a broker is, measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import rich_click as click

from gearshift.cli.context import common_options, session_of
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.cli.progress import progress_bar
from gearshift.operations.bench import WORKS, Figure, Plan, measure
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["command"]

#: One at a time takes longer than many at once: so many times fewer are sent.
_FEWER_ALONE = 10


@click.command("bench")
@click.argument("broker", required=False, metavar="[PROFILE]")
@click.option(
    "--semantics", type=click.Choice(["queue", "stream"]), default=None,
    help="Of the channel; else the backend's default.",
)  # fmt: skip
@click.option("--work", "works", multiple=True, type=click.Choice(WORKS), help="Default: all.")
@click.option(
    "--messages", default=10_000, show_default=True, type=click.IntRange(100, 1_000_000),
    help="To send at once; a tenth of it one at a time.",
)  # fmt: skip
@click.option(
    "--size", "sizes", multiple=True, default=[256], show_default=True,
    type=click.IntRange(64, 100_000_000), help="Bytes of a body; may be repeated.",
)  # fmt: skip
@click.option(
    "--threads", multiple=True, default=[1, 32], show_default=True, type=click.IntRange(1, 500),
    help="That send one at a time; may be repeated.",
)  # fmt: skip
@output_option
@common_options
@click.pass_context
@sigterm_raises()
def command(
    ctx: click.Context,
    broker: str | None,
    semantics: str | None,
    works: tuple[str, ...],
    messages: int,
    sizes: tuple[int, ...],
    threads: tuple[int, ...],
    output: str,
) -> None:
    """Measure sending and receiving on a profile's broker.

    Every message is confirmed, and acknowledged one by one. Channels called bench_* are made for
    it and deleted again. A busy machine or broker shows in the figures: run it twice.
    """
    plans = [
        plan
        for size in sizes
        for work in works or WORKS
        for plan in _plans(work, messages, size, threads)
    ]
    session = session_of(ctx)
    session.profile = broker or session.profile
    config = session.config()
    figures: list[Figure] = []
    with progress_bar() as progress:
        for done, plan in enumerate(plans):
            progress(_title(plan.work, plan.threads), done, len(plans))
            figures += measure(config, semantics or "", [plan])
    emit([asdict(figure) for figure in figures], output, lambda: _table(figures))


def _plans(work: str, messages: int, size: int, threads: Sequence[int]) -> list[Plan]:
    if work == "send":
        return [Plan(work, max(1, messages // _FEWER_ALONE), size, each) for each in threads]
    return [Plan(work, messages // (_FEWER_ALONE if work == "end_to_end" else 1), size)]


def _title(work: str, threads: int) -> str:
    return f"{work}, {threads} threads" if threads > 1 else work


def _table(figures: Sequence[Figure]) -> Table:
    numbers = ("bytes", "messages", "a second", "median ms", "99 % ms", "CPU µs")
    table = new_table("work", *numbers, right=numbers)
    for figure in figures:
        shown = (figure.p50_ms, figure.p99_ms, figure.cpu_us)
        table.add_row(
            cell(_title(figure.work, figure.threads)),
            cell(figure.size),
            cell(figure.messages),
            cell("" if figure.rate is None else round(figure.rate)),
            *[cell("" if value is None else f"{value:.1f}") for value in shown],
        )
    return table
