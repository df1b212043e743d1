"""``gearshift explain``: what a profile guarantees, and what switching to another would change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from gearshift import plugins
from gearshift.cli.context import Session, complete_profile, note, with_session
from gearshift.cli.output import cell, emit, new_table, output_option
from gearshift.exit_codes import exit_code
from gearshift.operations.explain import (
    Change,
    Explanation,
    Relation,
    changes,
    explain,
    load_profile,
)
from gearshift.operations.portability import between
from gearshift.operations.sentences import SEMANTICS

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["command"]

_STYLES = {Relation.WORSE: "red", Relation.BETTER: "green", Relation.DIFFERS: "yellow"}
_ORDER = list(Relation)


@click.command("explain")
@click.argument("first", metavar="[PROFILE]", required=False, shell_complete=complete_profile)
@click.argument("second", metavar="[PROFILE]", required=False, shell_complete=complete_profile)
@click.option("--app", "target", metavar="MODULE:APP", help="Explain for these handlers too.")
@click.option(
    "--against", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Compare with the settings in FILE: what a change of the configuration changes.",
)  # fmt: skip
@partial(output_option, more=("github", "sarif"))
@with_session
def command(
    session: Session,
    first: str | None,
    second: str | None,
    target: str | None,
    against: Path | None,
    output: str,
) -> int:
    """Say in plain words what each channel guarantees on a profile.

    With a second PROFILE: what would get worse, better or just different on switching to it, and
    what of a message does not get there. With --against FILE: the same between the settings in
    FILE and the present ones, as for a pull request; -o github prints annotations for it, -o sarif
    a document for code scanning. No connection is made and no secret is needed. The exit code is 4
    if a profile lacks what the configuration or a handler requires.
    """
    from gearshift.worker.loading import load_app

    app = load_app(target) if target else None
    if against is not None and second is not None:
        raise click.UsageError("--against FILE compares one PROFILE of two files: leave one out")
    chosen = first or session.profile
    before = explain(load_profile(against or session.config_path, chosen), app)
    if second is None and against is None:
        _print(output, before, (), (), lambda: _explained(before), list(map(_record, before)))
        return _exit_code(before)
    after = explain(load_profile(session.config_path, second or chosen), app)
    found = changes(before, after)
    lost = _on_the_way(before, after)
    _print(
        output, after, before, found, lambda: _compared(before, after, found, lost),
        _records(before, after, found, lost),
    )  # fmt: skip
    return _exit_code(after if against else [*before, *after])


def _print(
    output: str,
    explained: Sequence[Explanation],
    before: Sequence[Explanation],
    found: Sequence[Change],
    table: Callable[[], RenderableType],
    records: list[dict[str, Any]],
) -> None:
    if not explained:
        note("no channel is configured, and no handlers are given with --app")
    if output in ("table", "json", "jsonl"):
        emit(records, output, table)
        return
    from gearshift.operations.annotations import annotate, github, sarif

    listed = annotate(before, explained, found)
    if output == "sarif":
        emit(sarif(listed), "json", table)
    for line in github(listed) if output == "github" else ():
        click.echo(line)


def _on_the_way(before: Sequence[Explanation], after: Sequence[Explanation]) -> list[str]:
    if not before or not after:
        return []
    return between(plugins.load(before[0].backend), plugins.load(after[0].backend))


def _exit_code(explanations: Sequence[Explanation]) -> int:
    """That of the worst refusal: 4 where something is missing."""
    return max((exit_code(r.error) for one in explanations for r in one.refusals), default=0)


def _explained(explanations: Sequence[Explanation]) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = []
    for one in explanations:
        parts += [
            cell(f"{one.channel} on {one.profile} ({one.backend}): a {one.semantics}", "bold")
        ]
        table = new_table("", "BECAUSE OF")
        table.add_row(cell(SEMANTICS[one.semantics]), cell(one.because, "dim"))
        for fact in one.facts:
            others = [reason for reason in fact.because if reason != one.because]
            table.add_row(cell(fact.sentence), cell("; ".join(others), "dim"))
        parts += [table, *_refusals(one), cell("")]
    return Group(*parts[:-1])


def _compared(
    before: Sequence[Explanation],
    after: Sequence[Explanation],
    found: Sequence[Change],
    lost: Sequence[str],
) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = []
    for one in _only(before, after):
        parts += [cell(f"{one.channel} is not there any more", "bold red"), cell("")]
    for one in _only(after, before):
        new_one = f"{one.channel}: a new {one.semantics} on {one.profile}"
        parts += [cell(new_one, "bold"), *_refusals(one), cell("")]
    for old, new in _pairs(before, after):
        parts.append(cell(_headline(old, new), "bold"))
        mine = [change for change in found if change.channel == old.channel]
        differing = [change for change in mine if change.relation is not Relation.SAME]
        table = new_table("", old.profile.upper(), new.profile.upper())
        if old.semantics is not new.semantics:
            words = (SEMANTICS[old.semantics], SEMANTICS[new.semantics])
            table.add_row(cell("differs", "yellow"), *map(cell, words))
        for change in sorted(differing, key=lambda change: _ORDER.index(change.relation)):
            table.add_row(
                cell(change.relation.value, _STYLES[change.relation]),
                cell(change.before.sentence),
                cell(change.after.sentence),
            )
        if table.row_count:
            parts.append(table)
        same = len(mine) - len(differing)
        parts += [cell(f"{same} of {len(mine)} guarantees are the same", "dim")] if mine else []
        parts += [*_refusals(old), *_refusals(new), cell("")]
    if lost:
        way = f"a message that goes from {before[0].profile} to {after[0].profile}"
        parts += [cell(way, "bold"), *map(cell, lost), cell("")]
    return Group(*parts[:-1])


def _pairs(
    before: Sequence[Explanation], after: Sequence[Explanation]
) -> list[tuple[Explanation, Explanation]]:
    """The channels of both sides."""
    now = {one.channel: one for one in after}
    return [(old, now[old.channel]) for old in before if old.channel in now]


def _only(these: Sequence[Explanation], others: Sequence[Explanation]) -> list[Explanation]:
    """The channels of ``these`` that the others lack."""
    there = {one.channel for one in others}
    return [one for one in these if one.channel not in there]


def _headline(old: Explanation, new: Explanation) -> str:
    if old.semantics is new.semantics:
        return f"{old.channel}: a {old.semantics} on {old.profile} and on {new.profile}"
    return f"{old.channel}: a {old.semantics} on {old.profile}, a {new.semantics} on {new.profile}"


def _refusals(one: Explanation) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for refusal in one.refusals:
        lines.append(cell(f"refused on {one.profile}: {refusal.error.message}", "bold red"))
        if refusal.error.hint:
            lines.append(cell(f"  fix: {refusal.error.hint}", "cyan"))
    return lines


def _records(
    before: Sequence[Explanation],
    after: Sequence[Explanation],
    found: Sequence[Change],
    lost: Sequence[str],
) -> list[dict[str, Any]]:
    """One per channel: both sides' semantics and refusals, every fact's change, and what happens to
    a message that goes from one to the other."""
    return [
        {
            "channel": old.channel,
            "before": _side(old),
            "after": _side(new),
            "changes": [
                {
                    "capability": change.before.capability,
                    "relation": change.relation,
                    "before": change.before.level,
                    "after": change.after.level,
                    "before_sentence": change.before.sentence,
                    "after_sentence": change.after.sentence,
                }
                for change in found
                if change.channel == old.channel
            ],
            "on_the_way": list(lost),
        }
        for old, new in _pairs(before, after)
    ] + [
        {"channel": one.channel, side: _side(one), "changes": [], "on_the_way": []}
        for side, only in (("before", _only(before, after)), ("after", _only(after, before)))
        for one in only
    ]


def _side(one: Explanation) -> dict[str, Any]:
    record = _record(one)
    del record["facts"], record["channel"]
    return record


def _record(one: Explanation) -> dict[str, Any]:
    refusals = [
        {
            "text": refusal.error.message,
            "hint": refusal.error.hint,
            "exit_code": exit_code(refusal.error),
            "requires": refusal.requires,
        }
        for refusal in one.refusals
    ]
    return asdict(replace(one, refusals=())) | {"refusals": refusals}
