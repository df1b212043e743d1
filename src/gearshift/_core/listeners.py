"""The hooks of a bus that core calls: see ``gearshift.hooks.specs``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gearshift.errors import GearshiftError

__all__ = ["Listeners", "OnConnection", "ignore"]


class OnConnection(Protocol):
    """Hears of a connection of one producer or consumer. Never blocks."""

    def __call__(
        self, kind: Literal["lost", "back", "draining"], error: GearshiftError | None = None
    ) -> object: ...


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
