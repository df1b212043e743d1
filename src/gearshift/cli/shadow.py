"""``gearshift compare --shadow OLD NEW``: a switch rehearsed before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift.cli.context import Session, note
from gearshift.cli.output import cell, emit, new_table, show
from gearshift.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gearshift.compare.shadow import Difference, Rehearsal, Result

__all__ = ["rehearse"]

_EXIT_CODES = {"safe": 0, "inconclusive": 1, "differs": 5}
_COLOURS = {"safe": "bold green", "inconclusive": "bold yellow", "differs": "bold red"}
_STYLES = {"same": "green", "better": "green", "differs": "red", "unclear": "yellow",
           "measured": "dim"}  # fmt: skip


def rehearse(
    session: Session, sides: Sequence[str], out: Path | None, output: str, **wanted: Any
) -> int:
    """Rehearse with what the command line says, print it, and return the exit code."""
    if len(sides) != 2:
        raise click.UsageError("--shadow takes two profiles: OLD NEW")
    for name in ("channel", "handler"):
        if not wanted[name]:
            raise click.UsageError(f"--shadow needs --{name}")
    if out is not None and out.suffix != ".json":
        raise click.BadParameter("a rehearsal is written as .json", param_hint="--out")
    from gearshift.compare import shadow

    with progress_bar() as progress:
        rehearsal = shadow.rehearse(
            shadow.Request(old=sides[0], new=sides[1], **wanted),
            config=Path(session.config_path) if session.config_path else None,
            progress=progress,
        )
    if out is not None:
        out.write_bytes(shadow.encode(rehearsal))
    result = shadow.judge(rehearsal)
    if output == "table":
        _show(rehearsal, result)
    else:
        emit(_record(rehearsal, result), output, lambda: "")
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
    show(_table(rehearsal, result.differences))
    for one in result.differences:
        if one.examples:
            show(cell(f"{one.aspect}: see message {', '.join(one.examples)}", "dim"))
    show("")
    if rehearsal.repeated:
        show(cell(f"{rehearsal.repeated:,} messages came twice and were copied once.", "dim"))
    show(cell("What the handler does by itself, without Gearshift, was not held back.", "dim"))


def _table(rehearsal: Rehearsal, differences: Sequence[Difference]) -> RenderableType:
    table = new_table("aspect", "verdict", rehearsal.old.id, rehearsal.new.id)
    for one in differences:
        table.add_row(
            cell(one.aspect), cell(one.verdict, _STYLES[one.verdict]), cell(one.old), cell(one.new)
        )
    return table
