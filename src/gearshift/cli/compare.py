"""``gearshift compare``: what changes between a task queue and an event stream, by running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import rich_click as click
from click.core import ParameterSource

from gearshift.cli import shadow as shadowing
from gearshift.cli.context import common_options, complete_channel, note, session_of
from gearshift.cli.output import NewFile, cell, emit, new_table, output_option, show
from gearshift.cli.progress import progress_bar
from gearshift.cli.replay import start_option
from gearshift.driver import Start
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gearshift.compare import Comparison
    from gearshift.compare.ledger import Scenario

__all__ = ["command"]

#: Fewer do not show what the scenarios are about.
_LEAST_MESSAGES = 40

#: Options that only one of the two ways has.
_COMPARING = {"scenarios": "--scenario", "seed": "--seed", "repetitions": "--repetitions",
              "keys": "--keys", "prefetch": "--prefetch", "ack_first": "--ack-first",
              "source": "--from"}  # fmt: skip
_REHEARSING = {"channel": "--channel", "seconds": "--seconds", "workers": "--workers",
               "start": "--since"}  # fmt: skip

_SCENARIOS = ("ordering", "crash", "fan_out", "replay", "poison", "slow", "scaling")
_COLOURS = {"same": "green", "differs": "cyan", "unsupported": "dim", "inconclusive": "yellow"}


@click.command("compare")
@click.argument("columns", nargs=-1, metavar="[PROFILE[:SEMANTICS]]...")
@click.option("--scenario", "scenarios", multiple=True, type=click.Choice(_SCENARIOS))
@click.option("--handler", default="", metavar="MODULE:FUNCTION", help="Run this handler.")
@click.option("--seed", default=1, show_default=True, help="Of the workload.")
@click.option(
    "--messages", default=200, show_default=True, type=click.IntRange(1, 5000), help="To send."
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
@click.option("--shadow", is_flag=True, help="Rehearse the switch from OLD to NEW: see below.")
@click.option(
    "--channel",
    metavar="NAME",
    shell_complete=complete_channel,
    help="With --shadow: the live one.",
)
@click.option(
    "--seconds", default=30.0, show_default=True, type=click.FloatRange(1, 3600),
    help="With --shadow: to look at the channel, then for the handler on each side.",
)  # fmt: skip
@click.option(
    "--workers", default=3, show_default=True, type=click.IntRange(1, 16),
    help="With --shadow: processes that run the handler.",
)  # fmt: skip
@click.option(
    "--since", "start", default="earliest", show_default=True, metavar="WHERE",
    callback=start_option, help="With --shadow, of a stream: where to begin, as in replay.",
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
    shadow: bool,
    channel: str | None,
    seconds: float,
    workers: int,
    start: Start,
    output: str,
) -> int:
    """Run the same workload on each column and show what each does.

    Without columns: a queue and a stream of the embedded broker, no server needed. With them:
    profiles of gearshift.toml, such as rabbit kafka, or rabbit:queue kafka:queue.
    Channels called compare_* are made for it and deleted again. The exit code is 5 if something
    was seen otherwise than declared, 1 if no scenario has a result.

    [bold]compare --shadow OLD NEW --channel NAME --handler MODULE:FUNCTION[/bold] rehearses a
    switch. It looks at the live channel on OLD with a reader of its own, which takes nothing from
    anybody: a stream from --since on, a queue as messages come. It copies up to --messages to
    channels of its own on OLD and on NEW, runs the handler on them, and tells what differs. The
    exit code is 5 if something does.

    Nothing that the handler sends through Gearshift goes out: it is written down and compared. What
    it does by itself, such as an HTTP call or a write to a database, Gearshift cannot hold back:
    let it ask gearshift.rehearsing() first, or look for GEARSHIFT_REHEARSAL in its environment.
    """
    if shadow:
        _refuse(ctx, _COMPARING, "does not go with --shadow")
        return shadowing.rehearse(
            session_of(ctx),
            columns,
            out,
            output,
            channel=channel or "",
            handler=handler,
            messages=messages,
            seconds=seconds,
            workers=workers,
            start=start,
        )
    _refuse(ctx, _REHEARSING, "goes with --shadow only")
    if messages < _LEAST_MESSAGES:
        raise click.BadParameter(f"a comparison needs {_LEAST_MESSAGES}", param_hint="--messages")
    from gearshift.compare import Comparison, Options, run

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


def _refuse(ctx: click.Context, names: Mapping[str, str], why: str) -> None:
    """Raise a usage error for an option that was given and would be ignored."""
    for name, option in names.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} {why}", ctx)


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
