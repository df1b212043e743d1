"""``gearshift conformance``: does a backend do what it declares, on your broker?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from gearshift.cli.context import Session, note, with_session
from gearshift.cli.output import NewFile, cell, emit, new_table, output_option, terminal
from gearshift.message import Semantics
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gearshift.config import Config
    from gearshift.conformance import Harness, Result
    from gearshift.conformance.matrix import BackendResults

__all__ = ["command"]

FAILED = 5


@click.command("conformance")
@click.argument("tested", metavar="[PROFILE]", required=False)
@click.option(
    "--semantics",
    type=click.Choice([str(semantics) for semantics in Semantics]),
    help="Only this one; both that the backend offers otherwise.",
)
@click.option("--behaviour", "wanted", multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--copies",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="So many runs at once, each in an order of its own.",
)
@click.option("--report", type=NewFile(), metavar="FILE", help="Also write results as JSON.")
@click.option("--patience", default=30.0, show_default=True, help="Seconds to wait for anything.")
@output_option
@with_session
@sigterm_raises()
def command(
    session: Session,
    tested: str | None,
    semantics: str | None,
    wanted: tuple[str, ...],
    copies: int,
    report: Path | None,
    patience: float,
    output: str,
) -> int:
    """Run the conformance kit against PROFILE's broker.

    It makes channels of its own, called kit.*, and deletes them. Nothing is broken on purpose:
    faults need a broker that the kit may kill, see the guide for backend authors. The exit code
    is 5 if anything fails.
    """
    from gearshift.conformance.matrix import Matrix

    if tested is not None:
        session.profile = tested
    matrix = Matrix()
    for harness in _harnesses(session.config(), semantics, patience):
        column = matrix.column(harness.label)
        column.capabilities = harness.capabilities.as_dict()
        for result in _results(harness, wanted, copies):
            before = column.results.get(result.behaviour)
            if before is None or not before.status.is_failure:
                column.results[result.behaviour] = result
        column.server, column.day = harness.server, str(date.today())
    if report is not None:
        matrix.save(report)
    columns = list(matrix.columns.values())
    emit(
        [_record(column, result) for column in columns for result in column.results.values()],
        output,
        lambda: _table(columns),
    )
    for column in columns:
        note(f"{column.label} on {column.server}: {column.badge}")
    return FAILED if any(column.failures() for column in columns) else 0


def _harnesses(config: Config, semantics: str | None, patience_s: float) -> Iterator[Harness]:
    from gearshift.conformance import Harness, shared
    from gearshift.conformance.harness import lives_in_process

    plugin = config.load_plugin()
    for offered in plugin.capabilities:
        if semantics in (None, str(offered)):
            yield Harness(
                config=config,
                semantics=offered,
                plugin=shared(plugin) if lives_in_process(plugin) else plugin,
                patience_s=patience_s,
            )


def _results(harness: Harness, wanted: tuple[str, ...], copies: int) -> Iterator[Result]:
    """Run what is wanted, with progress on a terminal."""
    from rich.progress import Progress

    from gearshift.conformance import execute, execute_together
    from gearshift.conformance.suite import SUITE

    unknown = set(wanted) - {behaviour.name for behaviour in SUITE}
    if unknown:
        raise click.BadParameter(f"no such behaviour: {', '.join(sorted(unknown))}")
    chosen = [behaviour for behaviour in SUITE if not wanted or behaviour.name in wanted]
    with Progress(console=terminal(stderr=True), transient=True) as progress:
        task = progress.add_task(harness.label, total=copies * len(chosen))
        if copies > 1:
            results = execute_together(chosen, harness, copies)
        else:
            results = (execute(behaviour, harness) for behaviour in chosen)
        for result in results:
            progress.update(task, advance=1, description=f"{harness.label}: {result.behaviour}")
            yield result


def _record(column: BackendResults, result: Result) -> dict[str, object]:
    return {"column": column.label, **asdict(result)}


def _table(columns: list[BackendResults]) -> RenderableType:
    """A line per behaviour, a column per semantics, and what failed below."""
    table = new_table("area", "behaviour", *[column.label for column in columns])
    names = list(dict.fromkeys(name for column in columns for name in column.results))
    for name in names:
        results = [column.results.get(name) for column in columns]
        area = next(result.area for result in results if result)
        statuses = [cell(str(r.status), _style(r)) if r else cell("-") for r in results]
        table.add_row(str(area), name.replace("_", " "), *statuses)
    for column in columns:
        for result in column.failures():
            table.add_row("", cell(f"{column.label}: {result.behaviour}: {result.text}", "red"))
    return table


def _style(result: Result) -> str:
    if result.status.is_failure:
        return "bold red"
    return "green" if result.status == "verified" else "dim"
