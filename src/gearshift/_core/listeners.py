"""The hooks of a bus that core calls: see ``gearshift.hooks.specs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Listeners", "OnConnection", "ignore"]


#: Called with "lost" and an error, with "back" or with "draining". Never blocks.
OnConnection: TypeAlias = Callable[..., object]


def ignore(*_: object, **__: object) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """What to call with the parameters of each hook. They raise nothing.

    Those that every message passes are None if no plugin has them.
    """

    received: Callable[..., None] | None = None
    settled: Callable[..., None] | None = None
    retry: Callable[..., None] = ignore
    dead_letter: Callable[..., None] = ignore
    connection: Callable[..., None] = ignore
