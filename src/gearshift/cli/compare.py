"""``gearshift compare``: what changes between a task queue and an event stream, by running it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import rich_click as click

from gearshift.cli.context import common_options, note, session_of
from gearshift.cli.output import NewFile, cell, emit, new_table, output_option, show
from gearshift.cli.progress import progress_bar
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gearshift.compare import Comparison
    from gearshift.compare.ledger import Scenario

__all__ = ["command"]

_SCENARIOS = ("ordering", "crash", "fan_out", "replay", "poison", "slow", "scaling")
_COLOURS = {"same": "green", "differs": "cyan", "unsupported": "dim", "inconclusive": "yellow"}


@click.command("compare")
@click.argument("columns", nargs=-1, metavar="[PROFILE[:SEMANTICS]]...")
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
@common_options
@click.pass_context
@sigterm_raises()
def command(
    ctx: click.Context,
    columns: tuple[str, ...],
    scenarios: tuple[str, ...],
    handler: str,
    seed: int,
    messages: int,
    repetitions: int,
    keys: int,
    prefetch: int,
    ack_first: bool,
    out: Path | None,
    source: Path | None,
    output: str,
) -> int:
    """Run the same workload on each column and show what each does.

    Without columns: a queue and a stream of the embedded broker, no server needed. With them:
    profiles of gearshift.toml, such as rabbit kafka, or rabbit:queue kafka:queue.
    Channels called compare_* are made for it and deleted again. The exit code is 5 if something
    was seen otherwise than declared, 1 if no scenario has a result.
    """
    from gearshift.compare import Comparison, Options, run

    if out is not None and out.suffix != ".json":
        import_module("gearshift.compare.report")  # raises MissingExtra before anything is run
    if source is not None:
        comparison = Comparison.load(source)
    else:
        options = Options(
            seed=seed,
            messages=messages,
            repetitions=repetitions,
            keys=keys,
            prefetch=prefetch,
            handler=handler,
            settle="first" if ack_first else "after",
        )
        session = session_of(ctx)
        with progress_bar() as progress:
            comparison = run(
                columns,
                config=Path(session.config_path) if session.config_path else None,
                scenarios=cast("tuple[Scenario, ...]", scenarios or _SCENARIOS),
                options=options,
                progress=progress,
            )
    if out is not None:
        comparison.save(out)
    if output == "table":
        _show(comparison)
    else:
        emit(_records(comparison), output, lambda: "")
    if out is not None:
        note(f"written to {out}")
    if any(_is_broken(finding) for finding in comparison.findings):
        return 5
    return int(all(finding.verdict == "inconclusive" for finding in comparison.findings))


def _is_broken(finding: object) -> bool:
    return any(o.agrees == "no" for o in finding.observations)  # type: ignore[attr-defined]


def _records(comparison: Comparison) -> list[dict[str, object]]:
    return [
        {
            "scenario": finding.scenario,
            "verdict": finding.verdict,
            "column": observation.column,
            "outcome": observation.outcome,
            "shown": observation.shown,
            "expected": observation.expected.outcome,
            "agrees": observation.agrees,
            "numbers": {number.name: list(number.values) for number in observation.numbers},
        }
        for finding in comparison.findings
        for observation in finding.observations
    ]


def _show(comparison: Comparison) -> None:
    show(cell(comparison.headline, "bold"))
    show("")
    show(_matrix(comparison))
    for finding in comparison.findings:
        for observation in finding.observations:
            if observation.agrees == "no":
                what = f"{finding.title}, {observation.column}: declared was that "
                show(cell(what + observation.expected.sentence, "bold red"))
    show("")
    for finding in comparison.findings:
        for choice in finding.choices:
            show(cell(f"If you need {choice.need}, take {' or '.join(choice.take)}."))
            show(cell(f"    {choice.evidence}", "dim"))
    if comparison.ledger.meta.embedded_only:
        show("")
        show(cell("Embedded broker: this shows semantics, not RabbitMQ or Kafka.", "yellow"))


def _matrix(comparison: Comparison) -> RenderableType:
    columns = [column.id for column in comparison.ledger.meta.columns]
    table = new_table("scenario", "verdict", *columns)
    for finding in comparison.findings:
        shown = {observation.column: observation.shown for observation in finding.observations}
        table.add_row(
            cell(finding.title),
            cell(finding.verdict, _COLOURS[finding.verdict]),
            *[cell(shown.get(column, "-")) for column in columns],
        )
    return table
