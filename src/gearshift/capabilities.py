"""Capabilities of a backend for one semantics: a closed vocabulary, declared, checked, proved.

Two sorts. *Operations* are true or false: where false, the call raises ``NotSupported`` before any
effect. *Guarantees* have levels, in rising order: ``requires`` names the least that will do.
Every field must be given: a backend that says nothing about a capability does not load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gearshift.errors import ConfigError

__all__ = [
    "Capabilities",
    "Durability",
    "Known",
    "Lease",
    "Members",
    "Order",
    "Prefetch",
    "Requirement",
    "levels",
]


class _Level(Enum):
    """An enum whose members are declared from the weakest to the strongest."""

    def satisfies(self, least: _Level) -> bool:
        members = list(type(self))
        return members.index(self) >= members.index(least)


class Order(_Level):
    """In which order first deliveries reach one group."""

    NONE = "none"
    SINGLE_CONSUMER = "single_consumer"  # as sent, while the group has one consumer
    KEY = "key"  # messages of one key as sent, with any number of consumers


class Known(_Level):
    """Trust in a fact on a delivery: ``redelivered``, ``attempt``."""

    NONE = "none"
    HINT = "hint"  # may be wrong after a crash
    EXACT = "exact"


class Prefetch(_Level):
    """``prefetch`` bounds what the broker hands over, or only what the client asks for."""

    SOFT = "soft"
    STRICT = "strict"


class Durability(_Level):
    """What a stored message and a group's progress outlive."""

    NOTHING = "nothing"  # they live in this process
    PROCESS = "process"  # every client process may die
    BROKER_RESTART = "broker_restart"  # the broker may be killed and started again


class Lease(_Level):
    """The time for which a consumer that is alive may work on what it was given."""

    FIXED = "fixed"  # as long as the broker's limit; then it goes to another
    HELD = "held"  # as long as it likes


class Members(_Level):
    """The number of consumers of one group that can work at once."""

    PARTITIONS = "partitions"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One entry of ``requires``: a capability's name and, for a guarantee, the least level."""

    name: str
    level: _Level | None

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name}={self.level.value}"

    @staticmethod
    def parse(text: str) -> Requirement:
        """Read ``"dead_letter"`` or ``"order=key"``. Raises ConfigError with the vocabulary."""
        if not isinstance(text, str):
            raise ConfigError(
                f"expected texts in requires, got {text!r}",
                hint='such as "dead_letter" or "order=key"',
            )
        name, separator, wanted = text.partition("=")
        level_type = _LEVELS.get(name)
        if name not in _FIELDS or (separator and level_type is None):
            raise ConfigError(
                f"unknown capability {text!r} in requires",
                hint="one of " + ", ".join(_vocabulary()),
            )
        if level_type is None:
            return Requirement(name=name, level=None)
        members = list(level_type)
        if not separator:
            return Requirement(name=name, level=members[1])
        try:
            return Requirement(name=name, level=level_type(wanted))
        except ValueError:
            choices = ", ".join(str(member.value) for member in members)
            raise ConfigError(
                f"unknown level {wanted!r} of {name}", hint=f"one of {choices}"
            ) from None

    @staticmethod
    def parse_all(texts: Sequence[str]) -> tuple[Requirement, ...]:
        """Read a list of them. Raises ConfigError, also for one text in place of a list."""
        if isinstance(texts, str):
            raise ConfigError(f"requires {texts!r} is not a list", hint=f"write [{texts!r}]")
        return tuple(Requirement.parse(text) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The capabilities of one backend for channels of one semantics."""

    # operations
    redelivery: bool  #: unfinished work of a dead consumer comes again to its group
    native_retry: (
        bool  #: the broker itself can give one message back (else the portable layer holds it)
    )
    native_delay: bool  #: the broker keeps a retried message until its delay is over
    dead_letter: (
        bool  #: a rejected message can be moved to another channel, confirmed before it is settled
    )
    fan_out: bool  #: every group gets every message
    replay: bool  #: settled messages can be read again; a new group may start at the beginning
    seek: bool  #: a consumer can go to the start, the end, an offset or a time
    purge: bool  #: what waits for a group can be thrown away
    ephemeral_group: bool  #: a group that leaves nothing behind, as ``tail`` uses
    unroutable_detected: bool  #: a message that nothing would receive is refused
    tombstone: bool  #: a message may have no body at all (None)
    depth: bool  #: what waits for a group can be counted
    durable_group: bool  #: a group's progress outlives its consumers

    # guarantees
    order: Order
    redelivered: Known
    attempt: Known
    prefetch: Prefetch
    durability: Durability
    lease: Lease
    members: Members

    # limits
    max_message_bytes: int  #: largest ``Message.size`` that a default broker takes

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            limit = int if field.name == "max_message_bytes" else bool
            wanted = _LEVELS.get(field.name, limit)
            if type(getattr(self, field.name)) is not wanted:
                raise TypeError(f"capability {field.name} must be a {wanted.__name__}")

    def satisfies(self, requirement: Requirement) -> bool:
        """True if this is at least what ``requirement`` asks."""
        mine = getattr(self, requirement.name)
        if requirement.level is None:
            return bool(mine)
        return bool(mine.satisfies(requirement.level))

    def as_dict(self) -> dict[str, bool | str | int]:
        """Field name to plain value, for tables, JSON and ``explain``."""
        return {
            field.name: value.value
            if isinstance(value := getattr(self, field.name), Enum)
            else value
            for field in dataclasses.fields(self)
        }


_LEVELS: dict[str, type[_Level]] = {
    "order": Order,
    "redelivered": Known,
    "attempt": Known,
    "prefetch": Prefetch,
    "durability": Durability,
    "lease": Lease,
    "members": Members,
}
_FIELDS = {field.name for field in dataclasses.fields(Capabilities)} - {"max_message_bytes"}


def levels(name: str) -> list[Any]:
    """The levels of a guarantee, weakest first; empty for an operation."""
    return list(_LEVELS.get(name, ()))


def _vocabulary() -> list[str]:
    names: list[Any] = [field.name for field in dataclasses.fields(Capabilities)]
    return [
        f"{name}={'|'.join(str(level.value) for level in list(_LEVELS[name])[1:])}"
        if name in _LEVELS
        else name
        for name in names
        if name in _FIELDS
    ]
