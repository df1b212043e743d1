"""What a proof found: a verdict, and for each thing that breaks a handler the smallest story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from gearshift.message import Key

__all__ = ["Proof", "Story", "StoryMessage", "Verdict"]


class Verdict(StrEnum):
    """What a proof says."""

    SAFE = "safe"
    NOT_SAFE = "not safe"
    CANNOT_BE_SAID = "cannot be said"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryMessage:
    """A message of a story, as it was sent."""

    id: str
    channel: str
    key: Key | None
    value: Any

    def __str__(self) -> str:
        key = "no key" if self.key is None else f"key {self.key!r}"
        return f"{self.id} on {self.channel}, {key}: {_shown(self.value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The smallest case that breaks the handlers.

    ``rule`` names the misfortune, ``capability`` what lets it happen, and ``because`` says so.
    ``lines`` are what happened, in order; ``expected`` is the outcome without misfortunes.
    ``on_broker`` is what was seen when it was run on the real one.
    """

    rule: str
    capability: str
    because: str
    messages: Sequence[StoryMessage]
    lines: Sequence[str]
    expected: str
    found: str
    help: str
    on_broker: str | None = None

    def __str__(self) -> str:
        parts = [
            f"{self.rule}: allowed by {self.because}",
            *(f"  sent     {message}" for message in self.messages),
            *(f"  {line}" for line in self.lines),
            f"  undisturbed  {self.expected}",
            f"  now          {self.found}",
            f"  what helps: {self.help}",
            *([f"  on the broker: {self.on_broker}"] if self.on_broker else []),
        ]
        return "\n".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The result of ``prove``: ``cases`` were run, ``rules`` are what was tried.

    ``sentence`` says it in words, ``why`` what kept it from being said, and ``note`` what was
    not tried.
    """

    verdict: Verdict
    profile: str
    backend: str
    cases: int
    rules: Sequence[str]
    stories: Sequence[Story] = ()
    why: str | None = None
    note: str | None = None

    @property
    def sentence(self) -> str:
        """The verdict in a sentence."""
        where = f"on {self.profile} ({self.backend})"
        match self.verdict:
            case Verdict.SAFE:
                return f"Safe {where}, as far as {self.cases} cases show."
            case Verdict.NOT_SAFE:
                return f"Not safe {where}: {_counted(len(self.stories), 'story', 'stories')}."
            case _:
                return f"Cannot be said {where}: {self.why}."

    def __str__(self) -> str:
        notes = [f"{self.note[0].upper()}{self.note[1:]}."] if self.note else []
        return "\n\n".join([self.sentence, *map(str, self.stories), *notes])

    def check(self) -> None:
        """Raise AssertionError, with the stories, unless the verdict is SAFE: for a test."""
        assert self.verdict is Verdict.SAFE, f"\n{self}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _shown(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)
