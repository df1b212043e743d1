"""Changes of guarantees as annotations of a pull request: GitHub's workflow commands, and SARIF.

A refusal is an error, what gets worse a warning, what differs or gets better a note. Each stands at
the line of the setting that is behind it, as far as one is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gearshift
from gearshift.operations.explain import Change, Explanation, Relation

__all__ = ["Annotation", "annotate", "github", "sarif"]

Level = Literal["error", "warning", "note"]
_LEVELS: tuple[Level, ...] = get_args(Level)

#: "semantics = queue (gearshift.toml:12)" and "gearshift.toml:12".
_PLACE = re.compile(r"(?:^|\()([^()]+):(\d+)\)?$")
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Annotation:
    """A line of a pull request's review. ``file`` is "" where no line of a file is behind it."""

    level: Level
    rule: str
    title: str
    text: str
    file: str
    line: int


def annotate(
    before: Sequence[Explanation], after: Sequence[Explanation], found: Iterable[Change]
) -> list[Annotation]:
    """Annotations of the side ``after``, the gravest first: GitHub shows ten of each level a step.

    ``before`` may be empty, or have other channels.
    """
    then, now = ({one.channel: one for one in side} for side in (before, after))
    listed = [
        _at(
            one.place, "error", refusal.requires or "refused", f"{one.channel} on {one.profile}",
            refusal.error.message + (f"; {hint}" if (hint := refusal.error.hint) else ""),
        )
        for one in after
        for refusal in one.refusals
    ]  # fmt: skip
    for change in found:
        if change.relation is not Relation.SAME:
            new, old = now[change.channel], then[change.channel]
            listed.append(
                _of_change(change, [new.because] * (new.because != old.because), new.place)
            )
    for old in before:
        if old.channel not in now:
            text = f"{old.channel} is a {old.semantics} on {old.profile} and not there any more."
            listed.append(_at(after[0].place if after else "", "warning", "channel",
                              f"{old.channel}: gone", text))  # fmt: skip
    return sorted(listed, key=lambda one: _LEVELS.index(one.level))


def github(found: Iterable[Annotation]) -> list[str]:
    """Workflow commands, which GitHub Actions shows beside the lines of the pull request."""
    lines = []
    for one in found:
        properties = {"file": one.file, "line": one.line} if one.file else {}
        properties |= {"title": one.title}
        shown = ",".join(f"{name}={_escaped(str(v), ':,')}" for name, v in properties.items())
        command = "notice" if one.level == "note" else one.level
        lines.append(f"::{command} {shown}::{_escaped(one.text)}")
    return lines


def sarif(found: Sequence[Annotation]) -> dict[str, Any]:
    """A SARIF 2.1.0 document, as code scanning takes it."""
    driver = {
        "name": "gearshift explain",
        "version": gearshift.__version__,
        "rules": [{"id": rule} for rule in dict.fromkeys(one.rule for one in found)],
    }
    results = [
        {
            "ruleId": one.rule,
            "level": one.level,
            "message": {"text": f"{one.title}. {one.text}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": one.file},
                        "region": {"startLine": one.line},
                    }
                }
            ]
            if one.file
            else [],
        }
        for one in found
    ]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _of_change(change: Change, semantics: Sequence[str], place: str) -> Annotation:
    """At the setting that the change comes from, other ``semantics``, or the profile's choice."""
    reasons = [why for why in change.after.because if why not in change.before.because]
    reasons += semantics
    where = next((why for why in reasons if _PLACE.search(why)), place)
    level: Level = "warning" if change.relation is Relation.WORSE else "note"
    return _at(
        where, level, change.after.capability, f"{change.channel}: {change.relation}",
        f"{change.after.sentence} Before: {change.before.sentence}",
    )  # fmt: skip


def _at(place: str, level: Level, rule: str, title: str, text: str) -> Annotation:
    found = _PLACE.search(place)
    file, line = (found[1], int(found[2])) if found else ("", 0)
    return Annotation(level=level, rule=rule, title=title, text=text, file=file, line=line)


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
