"""``gearshift rehearse OLD NEW``: a switch of the broker, tried on copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.output import NewFile, cell, emit, new_table, output_option, show
from gearshift.cli.progress import progress_bar
from gearshift.cli.replay import start_option
from gearshift.operations.cleanup import sigterm_raises

if TYPE_CHECKING:
    from gearshift.compare.rehearsal import Rehearsal, Result

__all__ = ["command"]

_EXIT_CODES = {"safe": 0, "inconclusive": 1, "differs": 5}
_COLOURS = {"safe": "bold green", "inconclusive": "bold yellow", "differs": "bold red"}
_STYLES = {"same": "green", "better": "green", "differs": "red", "unclear": "yellow",
           "measured": "dim"}  # fmt: skip


class _Ledger(NewFile):
    """A new file whose name ends in .json."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises BadParameter."""
        path = super().convert(value, param, ctx)
        if path.suffix != ".json":
            self.fail("a rehearsal is written as .json", param, ctx)
        return path


@click.command("rehearse")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--channel", metavar="NAME", required=True, shell_complete=complete_channel,
    help="The live one.",
)  # fmt: skip
@click.option("--handler", required=True, metavar="MODULE:FUNCTION", help="Run this handler.")
@click.option(
    "--messages", default=200, show_default=True, type=click.IntRange(1, 5000),
    help="To copy at most.",
)  # fmt: skip
@click.option(
    "--seconds", default=30.0, show_default=True, type=click.FloatRange(1, 3600),
    help="To look at the channel, then for the handler on each side.",
)  # fmt: skip
@click.option(
    "--workers", default=3, show_default=True, type=click.IntRange(1, 16),
    help="Processes that run the handler.",
)  # fmt: skip
@click.option(
    "--since", "start", default="earliest", show_default=True, metavar="WHERE",
    callback=start_option, help="Of a stream: where to begin, as in replay.",
)  # fmt: skip
@click.option("--out", type=_Ledger(), metavar="FILE", help="Write what was seen to this .json.")
@output_option
@with_session
@sigterm_raises()
def command(session: Session, /, out: Path | None, output: str, **request: Any) -> int:
    """Try a switch on copies of a live channel's messages and show what differs.

    OLD and NEW are profiles, or PROFILE:SEMANTICS. It looks at the live channel on OLD with a
    reader of its own, which takes nothing from anybody: a stream from --since on, a queue as
    messages come. It copies up to --messages to channels of its own on OLD and on NEW, runs the
    handler on them, and tells what differs. The exit code is 5 if something does.

    Nothing that the handler sends through Gearshift goes out: it is written down and compared. What
    it does by itself, such as an HTTP call or a write to a database, Gearshift cannot hold back:
    let it ask gearshift.rehearsing() first, or look for GEARSHIFT_REHEARSAL in its environment.
    """
    from gearshift.compare.rehearsal import Request, encode, judge, rehearse

    with progress_bar() as progress:
        rehearsal = rehearse(
            Request(**request),
            config=Path(session.config_path) if session.config_path else None,
            progress=progress,
        )
    if out is not None:
        out.write_bytes(encode(rehearsal))
    result = judge(rehearsal)
    emit(_record(rehearsal, result), output, lambda: _show(rehearsal, result))
    if out is not None:
        note(f"written to {out}")
    return _EXIT_CODES[result.verdict]


def _record(rehearsal: Rehearsal, result: Result) -> dict[str, object]:
    return {
        "channel": rehearsal.channel,
        "old": rehearsal.old.id,
        "new": rehearsal.new.id,
        "handler": rehearsal.handler,
        "messages": len(rehearsal.originals),
        "repeated": rehearsal.repeated,
        "verdict": result.verdict,
        "sentence": result.sentence,
        "differences": result.differences,
    }


def _show(rehearsal: Rehearsal, result: Result) -> None:
    show(cell(result.sentence, _COLOURS[result.verdict]))
    show("")
    rows = (
        (one.aspect, cell(one.relation, _STYLES[one.relation]), one.old, one.new)
        for one in result.differences
    )
    show(new_table("aspect", "relation", rehearsal.old.id, rehearsal.new.id, rows=rows))
    for one in result.differences:
        if one.examples:
            show(cell(f"{one.aspect}: see message {', '.join(one.examples)}", "dim"))
    show("")
    if rehearsal.repeated:
        show(cell(f"{rehearsal.repeated:,} messages came twice and were copied once.", "dim"))
    show(cell("What the handler does by itself, without Gearshift, was not held back.", "dim"))
