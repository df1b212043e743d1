"""``gearshift compare``: what changes between a task queue and an event stream, by running it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from gearshift.cli.context import Session, note, with_session
from gearshift.cli.output import NewFile, cell, emit, new_table, output_option, show
from gearshift.cli.progress import progress_bar
from gearshift.errors import UsageError
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gearshift.compare import Comparison
    from gearshift.compare.ledger import Scenario

__all__ = ["command"]

_SCENARIOS = ("ordering", "crash", "fan_out", "replay", "poison", "slow", "scaling")
#: Options that say how to run, so that ``--from`` has no use for them.
_OF_A_RUN = {
    "scenarios", "handler", "seed", "messages", "repetitions", "keys", "prefetch", "ack_first",
}  # fmt: skip
_MARKS = {
    "keeps": ("\N{CHECK MARK}", "green"),
    "loses": ("\N{MULTIPLICATION X}", "red"),
    "cannot": ("\N{EN DASH}", "dim"),
    "unclear": ("?", "yellow"),
}


class _Needs(click.ParamType[tuple[str, ...]]):
    """Names of needs, with commas between them."""

    name = "needs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The names. Raises BadParameter."""
        from gearshift.compare.needs import parse

        try:
            return parse(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)


@click.command("compare")
@click.argument("columns", nargs=-1, metavar="[PROFILE[:SEMANTICS]]...")
@click.option(
    "--need",
    "needs",
    type=_Needs(),
    metavar="NAMES",
    help="Rank the columns by these, such as order,replay,more-workers. A wrong name lists all.",
)
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(_SCENARIOS))
@click.option("--handler", default="", metavar="MODULE:FUNCTION", help="Run this handler.")
@click.option("--seed", default=1, show_default=True, help="Of the workload.")
@click.option(
    "--messages", default=200, show_default=True, type=click.IntRange(40, 5000), help="To send."
)
@click.option("--repetitions", default=1, show_default=True, type=click.IntRange(1, 20))
@click.option(
    "--keys", default=8, show_default=True, type=click.IntRange(0, 1000), help="0: send without."
)
@click.option("--prefetch", default=10, show_default=True, type=click.IntRange(1, 5000))
@click.option(
    "--ack-first", is_flag=True, help="Sabotage: ack before the work, to see what it costs."
)
@click.option(
    "--out", type=NewFile(), metavar="FILE", help="Write the report, or a .json ledger, there."
)
@click.option(
    "--from", "source", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Draw this report or ledger again instead of running.",
)  # fmt: skip
@output_option
@with_session
@sigterm_raises()
def command(
    session: Session,
    /,
    columns: tuple[str, ...],
    needs: tuple[str, ...] | None,
    scenarios: tuple[str, ...],
    ack_first: bool,
    out: Path | None,
    source: Path | None,
    output: str,
    **options: Any,
) -> int:
    """Run the same workload on each column and show what each does.

    Without columns: a queue and a stream of the embedded broker, no server needed. With them:
    profiles of gearshift.toml, such as rabbit kafka, or rabbit:queue kafka:queue. On a terminal
    it asks what you need, unless --need says so, and ranks the columns by it.
    Channels called compare_* are made for it and deleted again. The exit code is 5 if something
    was seen otherwise than declared, 1 if no scenario has a result.
    """
    from gearshift.compare import Comparison, Options, run

    if out is not None and out.suffix != ".json":
        import_module("gearshift.compare.report")  # raises MissingExtra before anything is run
    if source is not None:
        _refuse_to_run(columns)
        comparison = Comparison.load(source)
        if needs is not None:
            comparison = comparison.with_needs(needs)
    else:
        if needs is None and output == "table":
            needs = _asked()
        session.said = set()  # a bus a trial would give the same warnings a trial
        with progress_bar() as progress:
            comparison = run(
                columns,
                config=Path(session.config_path) if session.config_path else None,
                scenarios=cast("tuple[Scenario, ...]", scenarios or _SCENARIOS),
                options=Options(settle="first" if ack_first else "after", **options),
                needs=needs or (),
                progress=progress,
            )
    if out is not None:
        comparison.save(out)
    emit(_records(comparison), output, lambda: _show(comparison))
    if out is not None:
        note(f"written to {out}")
    if any(_is_broken(finding) for finding in comparison.findings):
        return 5
    return int(all(finding.verdict == "inconclusive" for finding in comparison.findings))


def _refuse_to_run(columns: tuple[str, ...]) -> None:
    """``--from`` runs nothing: what would only count for a run is a mistake."""
    ctx = get_current_context()
    given = [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name in _OF_A_RUN
        and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if columns or given:
        raise click.UsageError(f"--from runs nothing: leave out {', '.join([*columns, *given])}")


def _asked() -> tuple[str, ...]:
    """The needs that somebody at a terminal names; nothing anywhere else."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return ()
    from gearshift.compare.needs import NEEDS

    width = max(map(len, NEEDS))
    for name, known in NEEDS.items():
        click.echo(f"  {name:{width}}  {known.need.text}", err=True)
    question = "What do you need? Names with commas, the most important first, or just Enter"
    given: tuple[str, ...] = click.prompt(
        question, default="", show_default=False, type=_Needs(), err=True
    )
    return given


def _is_broken(finding: object) -> bool:
    return any(o.agrees == "no" for o in finding.observations)  # type: ignore[attr-defined]


def _records(comparison: Comparison) -> list[dict[str, object]]:
    return [
        {
            "scenario": finding.scenario,
            "verdict": finding.verdict,
            "column": observation.column,
            "outcome": observation.outcome,
            "mark": observation.mark,
            "shown": observation.shown,
            "sentence": observation.sentence,
            "expected": observation.expected.outcome,
            "agrees": observation.agrees,
            "numbers": {number.name: list(number.values) for number in observation.numbers},
            "needs": {
                answer.need.name: answer.met
                for one in comparison.ranked
                if one.column == observation.column
                for answer in one.answers
                if answer.scenario == finding.scenario
            },
        }
        for finding in comparison.findings
        for observation in finding.observations
    ]


def _show(comparison: Comparison) -> None:
    decision = comparison.decision
    show(cell(decision.sentence, "bold"))
    for line in decision.more:
        show(cell(line))
    if comparison.ranked:
        _show_ranking(comparison)
    for advice in decision.advice:
        show("")
        show(cell(f"Take {advice.take} if you need", "bold"))
        for reason in advice.reasons:
            show(cell(f"  {reason.need}"))
            show(cell(f"      {reason.met}; but {reason.unmet}", "dim"))
    show("")
    show(_matrix(comparison))
    told: set[str] = set()
    for finding in comparison.findings:
        for observation in finding.observations:
            where = f"{finding.title}, {observation.column}: "
            if observation.agrees == "no":
                what = f"declared was: {observation.expected.sentence}"
                show(cell(where + what, "bold red"))
            if observation.caution:
                show(cell(where + observation.caution, "yellow"))
            if observation.mark == "unclear" and observation.column not in told:
                show(cell(where + observation.sentence, "yellow"))
                if comparison.ledger.meta.handler:  # nothing was run after that
                    told.add(observation.column)
    if comparison.ledger.meta.embedded_only:
        show("")
        show(cell("Embedded broker: this shows semantics, not RabbitMQ or Kafka.", "yellow"))


def _show_ranking(comparison: Comparison) -> None:
    from gearshift.compare.needs import verdict

    show("")
    show(cell(verdict(comparison.ranked), "bold"))
    for number, one in enumerate(comparison.ranked, 1):
        show(cell(f"{number}. {one.column}: {one.met} of {len(one.answers)}"))
        for answer in one.answers:
            mark = "unclear" if answer.met is None else "keeps" if answer.met else "loses"
            sign, colour = _MARKS[mark]
            show(cell(f"   {sign} {answer.need.name}: {answer.shown}", colour))
        if one.costs:
            show(cell(f"   gives up: {', '.join(cost.need.text for cost in one.costs)}", "dim"))


def _matrix(comparison: Comparison) -> RenderableType:
    columns = [column.id for column in comparison.ledger.meta.columns]
    table = new_table("does it keep ...", *columns)
    for finding in comparison.findings:
        shown = dict.fromkeys(columns, cell("-"))
        for one in finding.observations:
            sign, colour = _MARKS[one.mark]
            shown[one.column] = cell(f"{sign} {one.shown}", colour)
        table.add_row(cell(finding.subject), *shown.values())
    return table
