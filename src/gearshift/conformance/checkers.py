"""Pure functions over a history: each finds one sort of damage, by name, and nothing else.

A checker gets a ``View``: what concerns one group of one channel, in the order of recording. It
yields a sentence per finding. What a backend does not declare is not held against it, but the
weaker form of the claim still is: without exact flags a duplicate may come unflagged only after a
fault, without order per key one consumer alone still gets what one queue holds in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from gearshift.capabilities import Capabilities, Known, Order
from gearshift.conformance.history import Event, History, Kind, Phase
from gearshift.message import Semantics

__all__ = ["CHECKERS", "Checker", "View", "Violation", "check"]

_OURS = frozenset(Kind) - {Kind.PUBLISH, Kind.FAULT}


@dataclass(frozen=True, slots=True)
class Violation:
    """A finding and the name of the checker that made it."""

    checker: str
    text: str

    def __str__(self) -> str:
        return f"{self.checker}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class View:
    """One group of one channel, and what its backend declares.

    ``drained`` says that fresh clients have received all that was left: only then can something
    be missing. ``expected`` limits what the group should have got, for one that came late.
    """

    history: History
    channel: str
    group: str
    semantics: Semantics
    capabilities: Capabilities
    drained: bool = True
    expected: frozenset[str] | None = None

    @cached_property
    def events(self) -> list[Event]:
        """What this group's consumers did, and every fault."""
        return [
            event
            for event in self.history
            if event.kind is Kind.FAULT
            or (event.kind in _OURS and (event.channel, event.group) == (self.channel, self.group))
        ]

    @cached_property
    def faulted(self) -> bool:
        """True if anything was broken on purpose."""
        return any(event.kind is Kind.FAULT for event in self.events)

    @cached_property
    def published(self) -> dict[str, Event]:
        """How each publish to the channel ended, by id."""
        return self.history.published(self.channel)

    @cached_property
    def stored(self) -> dict[str, Event]:
        """What must reach the group."""
        return {
            id: event
            for id, event in self.published.items()
            if event.phase is Phase.OK and (self.expected is None or id in self.expected)
        }

    @cached_property
    def deliveries(self) -> list[Event]:
        return [event for event in self.events if event.kind is Kind.DELIVER]

    @cached_property
    def copies(self) -> frozenset[str]:
        """Ids that may be stored twice: their publish was uncertain, or sent again."""
        return frozenset(
            id
            for id, event in self.published.items()
            if event.phase is Phase.INFO or event.note == "resent"
        )

    @cached_property
    def replays(self) -> bool:
        """True if a consumer went back by ``seek``: then everything may come twice."""
        return any(event.kind is Kind.SEEK for event in self.events)

    @cached_property
    def settled(self) -> frozenset[tuple[str, str | None]]:
        """Who has acked or rejected what, without being told that it was too late."""
        found: set[tuple[str, str | None]] = set()
        for event in self.events:
            if event.kind is Kind.SETTLE and event.phase is Phase.FAIL:
                found.discard((event.actor, event.id))
            elif event.kind is Kind.SETTLE and event.verdict != "retry":
                found.add((event.actor, event.id))
        return frozenset(found)

    @cached_property
    def retries(self) -> bool:
        return any(event.verdict == "retry" for event in self.events)

    @cached_property
    def shared(self) -> bool:
        """True if the group had more than one consumer: working ones, or any at the same time."""
        opened: set[str] = set()
        at_once = 0
        for event in self.events:
            if event.kind is Kind.OPEN:
                opened.add(event.actor)
            elif event.kind is Kind.CLOSE and event.phase is Phase.OK:
                opened.discard(event.actor)
            at_once = max(at_once, len(opened))
        return max(at_once, len({event.actor for event in self.deliveries})) > 1


Checker: TypeAlias = Callable[[View], Iterator[str]]


def lost(view: View) -> Iterator[str]:
    """A message whose send returned reached nobody in the group."""
    if not view.drained:
        return
    got = {event.id for event in view.deliveries}
    for id, event in view.stored.items():
        if id not in got:
            yield f"{_message(event)} was stored and never delivered to {view.group!r}"


def phantom(view: View) -> Iterator[str]:
    """A message came that nobody sent, or whose send had failed for certain."""
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is None and not _elsewhere(view, event):
            yield f"{event.id} was delivered and never sent"
        elif sent is not None and sent.phase is Phase.FAIL:
            yield f"{_message(sent)} was delivered though its send had failed"


def leak(view: View) -> Iterator[str]:
    """A message came out of another channel than it was sent to."""
    for event in view.deliveries:
        if event.id not in view.published and (other := _elsewhere(view, event)):
            yield f"{event.id} was sent to {other!r} and delivered from {view.channel!r}"


def redelivered_after_settled(view: View) -> Iterator[str]:
    """What was acked, and the broker told so, came again without any fault.

    On a stream what lies behind a message that its consumer gave up unsettled comes again rightly.
    """
    if view.faulted:
        return
    done: set[str | None] = set()
    held: dict[str | None, Event] = {}
    given_up: list[tuple[int, int]] = []
    for event in view.events:
        match event.kind:
            case Kind.SEEK:
                done.clear()
            case Kind.SETTLE:
                held.pop(event.id, None)
                if event.phase is Phase.OK and event.verdict != "retry":
                    done.add(event.id)
            case Kind.CLOSE:
                mine = [other for other in held.values() if other.actor == event.actor]
                given_up += [other.position for other in mine if other.position is not None]
            case Kind.DELIVER:
                held[event.id] = event
                rightly = event.id in view.copies or _is_behind(event.position, given_up)
                if event.id in done and not rightly:
                    yield f"{event.id} was delivered to {event.actor} after it was settled"


def first_delivery_order(view: View) -> Iterator[str]:
    """First deliveries of one producer's messages of one key came in another order than sent."""
    order = view.capabilities.order
    if order is Order.NONE or (order is Order.SINGLE_CONSUMER and view.shared):
        return
    last: dict[tuple[str, str | None], int] = {}
    seen: set[str] = set()
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is None or sent.sequence is None or sent.id in seen:
            continue
        seen.add(sent.id or "")
        lane = (sent.actor, sent.key)
        if sent.key is None and view.semantics is Semantics.STREAM:
            continue  # without a key a log has no order to keep
        if sent.sequence < last.get(lane, -1):
            yield f"{_message(sent)} came after number {last[lane]}"
        last[lane] = max(sent.sequence, last.get(lane, -1))


def unflagged_duplicate(view: View) -> Iterator[str]:
    """A message came a second time and was not flagged as redelivered."""
    if view.replays:
        return
    seen: set[str | None] = set()
    for event in view.deliveries:
        again = event.id in seen
        seen.add(event.id)
        if not again or event.redelivered or event.id in view.copies:
            continue
        if view.faulted and (event.actor, event.id) not in view.settled:
            continue  # a member that was cut off hands out what it had, and its word is not taken
        if _must_be_flagged(view.capabilities.redelivered, event, faulted=view.faulted):
            yield f"{event.id} came again with redelivered={event.redelivered}"


def attempt_count(view: View) -> Iterator[str]:
    """The attempt did not begin at one, or did not rise by one with a retry."""
    if view.replays or view.faulted:
        return
    before: dict[str | None, Event] = {}
    verdicts: dict[str | None, str] = {}
    for event in view.events:
        if event.kind is Kind.SETTLE:
            verdicts[event.id] = event.verdict
        elif event.kind is Kind.DELIVER and event.id not in view.copies:
            retried = verdicts.pop(event.id, None) == "retry"
            if problem := _attempt_problem(view, event, before.get(event.id), retried):
                yield problem
            before[event.id] = event


def _attempt_problem(view: View, event: Event, before: Event | None, retried: bool) -> str | None:
    """``retried`` says how the delivery ``before`` this one ended."""
    exact = view.capabilities.attempt is Known.EXACT
    now = event.attempt or 0
    if before is None:
        return f"{event.id} came first with attempt {now}" if exact and now != 1 else None
    then = before.attempt or 0
    if retried and (exact or before.actor == event.actor) and now != then + 1:
        return f"{event.id} was retried at attempt {then} and came with {now}"
    if exact and now not in (then, then + 1):
        return f"{event.id} went from attempt {then} to {now}"
    return None


def retried_not_redelivered(view: View) -> Iterator[str]:
    """A retried message never came again."""
    waiting: dict[str | None, Event] = {}
    for event in view.events if view.drained else ():
        if event.kind is Kind.SETTLE and event.verdict == "retry" and event.phase != Phase.FAIL:
            waiting[event.id] = event
        elif event.kind in (Kind.DELIVER, Kind.SETTLE):
            waiting.pop(event.id, None)
    for id, event in waiting.items():
        yield f"{id} was retried by {event.actor} and never came again"


def unsettled_lost(view: View) -> Iterator[str]:
    """On a queue: what a consumer held unsettled when it went away never came again."""
    if view.semantics is Semantics.QUEUE:
        yield from _abandoned(view)


def position_past_unsettled(view: View) -> Iterator[str]:
    """On a stream: the group's position passed a message that nobody had settled."""
    if view.semantics is Semantics.STREAM:
        yield from _abandoned(view)


def two_owners(view: View) -> Iterator[str]:
    """Two consumers of a group held one message at once while no member came or went."""
    holder: dict[str | None, str] = {}
    for event in view.events:
        match event.kind:
            case Kind.OPEN | Kind.CLOSE | Kind.FAULT | Kind.SEEK:
                holder.clear()
            case Kind.SETTLE:
                if holder.get(event.id) == event.actor:
                    del holder[event.id]
            case Kind.DELIVER:
                other = holder.get(event.id, event.actor)
                if other != event.actor and event.id not in view.copies:
                    yield f"{event.id} was given to {event.actor} while {other} held it"
                holder[event.id] = event.actor


def partition_owners(view: View) -> Iterator[str]:
    """A partition was given to a member before the one that had it was told to let go.

    A member that was cut off or frozen is told later than the next owner, so faults excuse it.
    """
    if view.faulted:
        return
    owner: dict[int, str] = {}
    for event in view.events:
        for partition in event.partitions:
            before = owner.get(partition, event.actor)
            if event.kind is Kind.ASSIGN:
                if before != event.actor:
                    yield f"partition {partition} was given to {event.actor} while {before} had it"
                owner[partition] = event.actor
            elif before == event.actor:
                owner.pop(partition, None)


def poll_order(view: View) -> Iterator[str]:
    """On a stream: one consumer's offsets went backwards, or left out a stored message that no
    other consumer had been given before: partitions may go away and come back."""
    if view.semantics is not Semantics.STREAM or view.retries:
        return
    stored: dict[int, list[int]] = defaultdict(list)
    for event in view.stored.values():
        if event.position is not None:
            stored[event.position[0]].append(event.position[1])
    reached: dict[tuple[str, int], int] = {}
    takers: dict[tuple[int, int], set[str]] = defaultdict(set)
    seen: set[str | None] = set()
    for event in view.events:
        if event.kind in (Kind.SEEK, Kind.OPEN, Kind.CLOSE, Kind.FAULT):
            reached.clear()
            takers.clear()
        if event.kind is not Kind.DELIVER or event.position is None:
            continue
        partition, offset = event.position
        before = reached.get((event.actor, partition))
        reached[event.actor, partition] = offset
        takers[partition, offset].add(event.actor)
        again = event.id in seen
        seen.add(event.id)
        if before is None or (view.faulted and again):
            continue  # a lost connection rightly begins again at the committed position
        if offset <= before:
            yield f"{event.actor} got offset {offset} of partition {partition} after {before}"
        skipped = [
            other
            for other in stored[partition]
            if before < other < offset and not takers[partition, other] - {event.actor}
        ]
        if skipped:
            yield f"{event.actor} went from offset {before} to {offset} past {skipped[:5]}"


def over_prefetch(view: View) -> Iterator[str]:
    """A consumer had more messages in hand than its prefetch allows."""
    limit: dict[str, int] = {}
    hand: Counter[str] = Counter()
    held: set[tuple[str, str | None]] = set()
    for event in view.events:
        entry = (event.actor, event.id)
        if event.kind is Kind.OPEN and event.prefetch is not None:
            limit[event.actor] = event.prefetch
        elif event.kind is Kind.SETTLE and entry in held:
            held.discard(entry)
            hand[event.actor] -= 1
        elif event.kind is Kind.DELIVER and entry not in held:
            held.add(entry)
            hand[event.actor] += 1
            count, most = hand[event.actor], limit.get(event.actor)
            if most is not None and count > most:
                yield f"{event.actor} held {count}, its prefetch is {most}"


def changed(view: View) -> Iterator[str]:
    """Body, key, headers or properties arrived otherwise than they were sent."""
    for event in view.deliveries:
        sent = view.published.get(event.id or "")
        if sent is not None and sent.digest and sent.digest != event.digest:
            yield f"{_message(sent)} came changed, at attempt {event.attempt}"


def after_close(view: View) -> Iterator[str]:
    """A consumer was given a message after its close had returned."""
    closed: set[str] = set()
    for event in view.events:
        if event.kind is Kind.CLOSE:
            closed.add(event.actor)
        elif event.kind is Kind.DELIVER and event.actor in closed:
            yield f"{event.id} was delivered to {event.actor} after it was closed"


#: Every checker by the name that mutants and known failures use.
CHECKERS: Mapping[str, Checker] = {
    checker.__name__.replace("_", "-"): checker
    for checker in (
        lost,
        phantom,
        leak,
        redelivered_after_settled,
        first_delivery_order,
        unflagged_duplicate,
        attempt_count,
        retried_not_redelivered,
        unsettled_lost,
        position_past_unsettled,
        two_owners,
        partition_owners,
        poll_order,
        over_prefetch,
        changed,
        after_close,
    )
}


def check(view: View) -> list[Violation]:
    """What every checker finds in ``view``."""
    return [Violation(name, text) for name, checker in CHECKERS.items() for text in checker(view)]


def _message(event: Event) -> str:
    return f"message {event.sequence} of {event.actor} ({event.id})"


def _elsewhere(view: View, event: Event) -> str | None:
    """The other channel that a delivered message was sent to, if any."""
    for other in view.history.events(Kind.PUBLISH):
        if other.id == event.id and other.channel != view.channel:
            return other.channel
    return None


def _is_behind(position: tuple[int, int] | None, places: list[tuple[int, int]]) -> bool:
    return position is not None and any(
        partition == position[0] and offset <= position[1] for partition, offset in places
    )


def _must_be_flagged(declared: Known, event: Event, *, faulted: bool) -> bool:
    """NONE: the backend cannot tell, but must not claim that it is the first."""
    match declared:
        case Known.EXACT:
            return True
        case Known.HINT:
            return not faulted
        case _:
            return event.redelivered is False


def _abandoned(view: View) -> Iterator[str]:
    """What somebody held, did not settle, and nobody was given afterwards."""
    held: dict[str | None, Event] = {}
    settled: dict[tuple[str, str | None], Event] = {}
    for event in view.events if view.drained else ():
        holder = held.get(event.id)
        if event.kind is Kind.DELIVER:
            held[event.id] = event
        elif event.kind is Kind.SETTLE and event.phase is Phase.FAIL:
            if holder is None and (event.actor, event.id) in settled:
                held[event.id] = settled[event.actor, event.id]
        elif event.kind is Kind.SETTLE and holder and holder.actor == event.actor:
            settled[event.actor, event.id] = held.pop(event.id)
    done = {id for _, id in view.settled}
    for id, event in held.items():
        if id not in done:
            yield f"{id} was held unsettled by {event.actor} and never came again"
