"""``gearshift bench``: how fast a broker is, measured on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

import rich_click as click

from gearshift.cli.context import Session, note, with_session
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.cli.progress import progress_bar
from gearshift.driver.measuring import Load
from gearshift.operations.bench import WORKS, Figures, Plan, measure
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["command"]

#: One at a time takes longer than many at once: so many times fewer are sent.
_FEWER_ALONE = 10
_PACED_MOST = 2_000


@click.command("bench")
@click.argument("broker", required=False, metavar="[PROFILE]")
@click.option(
    "--semantics", type=click.Choice(["queue", "stream"]), default=None,
    help="Of the channel; else the backend's default.",
)  # fmt: skip
@click.option(
    "--work", "works", multiple=True, type=click.Choice(list(WORKS)), help="Default: all."
)
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
@click.option(
    "--rounds", default=3, show_default=True, type=click.IntRange(1, 100),
    help="Of which the middle is shown.",
)  # fmt: skip
@click.option(
    "--beside/--alone", default=True, show_default=True,
    help="Measure the broker's own client in turns with Gearshift.",
)  # fmt: skip
@output_option
@with_session
@sigterm_raises()
def command(
    session: Session,
    broker: str | None,
    semantics: str | None,
    works: tuple[str, ...],
    messages: int,
    sizes: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    beside: bool,
    output: str,
) -> None:
    """Measure sending and receiving on a profile's broker, beside its own client.

    Every message is confirmed, and acknowledged one by one. Channels called bench_* are made for
    it and deleted again. The ratio is Gearshift's figure by the client's, in turns round by round:
    the middle, and from the least to the greatest. A rate is better above 1, a time below. A busy
    machine or broker shows in the figures, less so in ratios.
    """
    plans = [
        plan
        for size in sizes
        for work in works or WORKS
        for plan in _plans(work, messages, size, threads, rounds)
    ]
    session.profile = broker or session.profile
    config = session.config()
    found: list[Figures] = []
    with progress_bar() as progress:
        for done, plan in enumerate(plans):

            def told(who: str, title: str = _title(plan), done: int = done) -> None:
                progress(f"{title}: {who}", done, len(plans))

            found.append(measure(config, semantics or "", plan, beside=beside, progress=told))
    emit([figures.as_dict() for figures in found], output, lambda: _table(found))
    if output == "table":
        for line in dict.fromkeys(
            f"{one.client}, {one.plan.work}: {one.how}" for one in found if one.client
        ):
            note(line)


def _plans(
    work: str, messages: int, size: int, threads: Sequence[int], rounds: int
) -> Iterator[Plan]:
    fewer = max(1, messages // _FEWER_ALONE)
    if work == "send":
        yield from (Plan(work, Load(fewer, size, each), rounds) for each in threads)
    else:
        total = min(fewer, _PACED_MOST) if work == "end_to_end" else messages
        yield Plan(work, Load(total, size), rounds)


def _title(plan: Plan) -> str:
    threads = plan.load.threads
    return f"{plan.work}, {threads} threads" if threads > 1 else plan.work


def _table(found: Sequence[Figures]) -> Table:
    numbers = ("bytes", "messages", "a second", "median ms", "99 % ms", "CPU µs")
    table = new_table("work", "client", *numbers, "Gearshift by it", right=numbers)
    for one in found:
        load = one.plan.load
        about = cell(_title(one.plan)), cell("Gearshift"), cell(load.size), cell(load.total)
        table.add_row(*about, *_measured(one, raw=False), cell(""))
        if one.client is not None:
            ratios = cell(" / ".join(_ratios(one)))
            table.add_row(*map(cell, ("", one.client, "", "")), *_measured(one, raw=True), ratios)
    return table


def _measured(one: Figures, *, raw: bool) -> Iterator[Text]:
    for measure_, digits in (("rate", 0), ("p50_ms", 1), ("p99_ms", 1), ("cpu_us", 1)):
        value = one.median(measure_, raw=raw)
        yield cell("" if value is None else f"{value:,.{digits}f}")


def _ratios(one: Figures) -> Iterator[str]:
    for measure_ in ("rate", "p50_ms", "p99_ms"):
        if ratios := one.ratios(measure_):
            yield f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
