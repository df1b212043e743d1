"""One group of one channel in a history, as checkers look at it, in the order of recording."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gearshift.capabilities import Capabilities
from gearshift.conformance.history import Event, History, Kind, Phase
from gearshift.message import Semantics

__all__ = ["View"]

_OURS = frozenset(Kind) - {Kind.PUBLISH, Kind.FAULT}


@dataclass(frozen=True, kw_only=True)
class View:
    """One group of one channel, and what its backend declares.

    Fresh clients must have received all that was left: what is missing counts as lost.
    ``expected`` limits what the group should have got, for one that came late.
    """

    history: History
    channel: str
    group: str
    semantics: Semantics
    capabilities: Capabilities
    expected: frozenset[str] | None = None

    @cached_property
    def events(self) -> list[Event]:
        """Events of this group's consumers, and every fault."""
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
        """The end of each publish to the channel, by id."""
        return self.history.published(self.channel)

    @cached_property
    def stored(self) -> dict[str, Event]:
        """Publishes that must reach the group, by id."""
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
        """Acks and rejects that were not too late, as consumer and id."""
        found: set[tuple[str, str | None]] = set()
        for event in self.events:
            if event.kind is Kind.SETTLE and event.phase is Phase.FAIL:
                found.discard((event.who, event.id))
            elif event.kind is Kind.SETTLE and event.action != "retry":
                found.add((event.who, event.id))
        return frozenset(found)

    @cached_property
    def retries(self) -> bool:
        return any(event.action == "retry" for event in self.events)

    @cached_property
    def shared(self) -> bool:
        """True if the group had more than one consumer: working ones, or any at the same time."""
        opened: set[str] = set()
        at_once = 0
        for event in self.events:
            if event.kind is Kind.OPEN:
                opened.add(event.who)
            elif event.kind is Kind.CLOSE and event.phase is Phase.OK:
                opened.discard(event.who)
            at_once = max(at_once, len(opened))
        return max(at_once, len({event.who for event in self.deliveries})) > 1
