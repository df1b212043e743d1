"""Pure functions over a history: each finds one sort of damage, by name, and nothing else.

A checker gets a ``View`` and yields a sentence per finding. What a backend does not declare is not
held against it, but the weaker form of the claim still is: without exact flags a duplicate may come
unflagged only after a fault, without order per key one consumer alone still gets what one queue
holds in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gearshift.conformance.checkers import delivery, order, ownership, repetition
from gearshift.conformance.view import View

__all__ = ["CHECKERS", "Checker", "Violation", "check"]

Checker: TypeAlias = Callable[[View], Iterator[str]]

#: Every checker by the name that mutants and known failures use.
CHECKERS: Mapping[str, Checker] = {
    name.replace("_", "-"): getattr(module, name)
    for module in (delivery, repetition, order, ownership)
    for name in module.__all__
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A finding and the name of the checker that made it."""

    checker: str
    text: str

    def __str__(self) -> str:
        return f"{self.checker}: {self.text}"


def check(view: View) -> list[Violation]:
    """The findings of every checker in ``view``."""
    return [Violation(name, text) for name, checker in CHECKERS.items() for text in checker(view)]
