"""Misfortunes: what a broker may do to a handler, and the capability that lets it.

Each ``Rule`` looks at what is declared for a channel and at how the handler runs, and says in a
sentence why its misfortune may happen there, or that it may not. No threads, no clocks, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gearshift.capabilities import Capabilities, Known, Lease, Order
from gearshift.message import Semantics

__all__ = ["RULES", "Rule", "Situation", "allowed", "may_overtake", "rule", "shares_memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A handler's group of a channel: what is declared there, and how many work at once.

    ``concurrency`` is that of a process, ``processes`` the number of them.
    """

    capabilities: Capabilities
    semantics: Semantics
    concurrency: int = 1
    processes: int = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """One misfortune: ``name``, the ``capability`` behind it, and what would help against it.

    ``why`` is the sentence that allows it, or None. ``happens`` is a line of the story. A handler
    that does not stand the rule ``after`` stands this one as little, for the same reason.
    """

    name: str
    capability: str
    happens: str
    help: str
    why: Callable[[Situation], str | None]
    after: str | None = None


_IDEMPOTENT = (
    "make the handler idempotent on delivery.id: write the id in the same transaction as the "
    "effect, and do nothing if it is there"
)


def _is_stream(situation: Situation) -> bool:
    return situation.semantics is Semantics.STREAM


def _comes_again(situation: Situation) -> str | None:
    if not situation.capabilities.redelivery:
        return None
    if _is_stream(situation):
        return (
            "redelivery: a stream goes on at the group's position, so the message comes again, "
            "with all that lies behind it in its partition"
        )
    return "redelivery: a message comes again until the broker has seen its ack"


def _flags_are_wrong(situation: Situation) -> str | None:
    level = situation.capabilities.redelivered
    if level is Known.EXACT or not situation.capabilities.redelivery:
        return None
    return (
        f"redelivered={level.value}: a message that comes again may look like its first delivery, "
        "in delivery.redelivered and delivery.attempt"
    )


def _is_stored_twice(situation: Situation) -> str | None:
    if not situation.capabilities.redelivery:
        return None
    return (
        "redelivery: a send whose confirmation was lost is sent again under its id, so the "
        "message may be stored twice"
    )


def _returns_late(situation: Situation) -> str | None:
    if not situation.capabilities.native_retry or situation.capabilities.order is Order.KEY:
        return None  # there a key waits while one of its messages is in hand or comes again
    return (
        "native_retry: the broker gives back single messages, and those behind them, also of the "
        "same key, do not wait"
    )


def _is_reordered(situation: Situation) -> str | None:
    order = situation.capabilities.order
    if order is Order.KEY:
        return "order=key: messages of other keys, and of other channels, come when they like"
    if order is Order.NONE:
        return "order=none: messages come in any order"
    several = "" if situation.processes == 1 else ", and here there are several"
    return f"order=single_consumer: messages come as sent while a group has one consumer{several}"


def _overlaps(situation: Situation) -> str | None:
    if situation.concurrency == 1 and situation.processes == 1:
        return None
    return (
        f"members={situation.capabilities.members.value}: several messages are worked on at once "
        f"(concurrency {situation.concurrency}, processes {situation.processes})"
    )


def _is_taken_twice(situation: Situation) -> str | None:
    if situation.capabilities.lease is not Lease.FIXED or situation.processes == 1:
        return None
    return (
        "lease=fixed: a message that is worked on for longer than the broker's limit is given to "
        "another process as well"
    )


#: Every misfortune, from the mildest on: stories are shrunk towards the first.
RULES: Sequence[Rule] = (
    Rule(
        "lost ack",
        "redelivery",
        "the connection was lost before the broker had the ack",
        _IDEMPOTENT,
        _comes_again,
    ),
    Rule(
        "unflagged",
        "redelivered",
        "the ack was lost, and the message comes again as if for the first time",
        "do not go by delivery.redelivered or delivery.attempt; " + _IDEMPOTENT,
        _flags_are_wrong,
        after="lost ack",
    ),
    Rule(
        "crash after",
        "redelivery",
        "the process died after the handler's end, before the broker had the ack",
        "keep what was seen where a dead process leaves it: " + _IDEMPOTENT,
        _comes_again,
        after="lost ack",
    ),
    Rule(
        "crash inside",
        "redelivery",
        "the process died in the middle of the handler",
        "make all effects of one message one transaction, or let each of them be repeated; what is "
        "sent goes through an outbox, or under an id made of delivery.id; settle last",
        _comes_again,
        after="lost ack",
    ),
    Rule(
        "duplicate",
        "redelivery",
        "the sender lost the confirmation and sent the message again",
        _IDEMPOTENT,
        _is_stored_twice,
        after="lost ack",
    ),
    Rule(
        "reordered",
        "order",
        "later messages overtook it",
        "let the message carry a version or a time and drop what is older; or give messages that "
        "need an order one key, on a channel with order=key",
        _is_reordered,
    ),
    Rule(
        "returns late",
        "native_retry",
        "the ack was lost, and the message came again after later ones",
        "compare a version before writing, or use a stream, which repeats a key in order",
        _returns_late,
        after="lost ack",
    ),
    Rule(
        "overlap",
        "members",
        "another message was handled in the middle of it",
        "change shared state in one atomic step (UPDATE ... SET n = n + 1, a lock, a version "
        "check), and keep nothing about one message in a shared variable",
        _overlaps,
    ),
    Rule(
        "taken twice",
        "lease",
        "the broker's limit was over, and another process handled it at the same time",
        "let a unique key decide who was first, inside the transaction; or lower the time that a "
        "message takes",
        _is_taken_twice,
        after="lost ack",
    ),
)


def rule(name: str) -> Rule:
    """The rule of that name."""
    return next(one for one in RULES if one.name == name)


def allowed(situation: Situation) -> list[Rule]:
    """Rules whose misfortune may happen there."""
    return [rule for rule in RULES if rule.why(situation) is not None]


def may_overtake(situation: Situation, *, same_key: bool) -> bool:
    """True if a first delivery may come before an earlier one of its channel and group."""
    match situation.capabilities.order:
        case Order.NONE:
            return True
        case Order.SINGLE_CONSUMER if situation.processes > 1:
            return True
        case Order.SINGLE_CONSUMER:
            return situation.concurrency > 1 and not same_key
        case _:
            return not same_key


def shares_memory(situation: Situation) -> bool:
    """True if two messages of a group may be worked on at once inside one process."""
    return situation.concurrency > 1
