"""Runs behaviours against a backend, one or many at once, and decides whether each is proved."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gearshift.capabilities import Requirement, levels
from gearshift.conformance.behaviour import Area, Behaviour, Needs, Refusal
from gearshift.conformance.checkers import Violation
from gearshift.conformance.harness import Faults, Harness
from gearshift.conformance.history import Kind
from gearshift.conformance.kit import Broken, Kit
from gearshift.errors import NotSupported

__all__ = ["Result", "Status", "execute", "execute_together"]


class Status(StrEnum):
    """The state of a cell of the matrix."""

    VERIFIED = "verified"
    UNSUPPORTED = "verified-unsupported"
    KNOWN_FAILURE = "known-failure"
    NOT_RUN = "not-run (no faults given)"
    NOT_APPLICABLE = "not-applicable"  # what it breaks cannot exist here: no server, no network
    FAILED = "failed"
    VACUOUS = "vacuous"

    @property
    def is_failure(self) -> bool:
        return self in (Status.FAILED, Status.VACUOUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of one behaviour on one harness; ``level`` is what its capability declares."""

    behaviour: str
    area: Area
    capability: str | None
    level: str | None
    status: Status
    text: str = ""
    checkers: tuple[str, ...] = ()
    deliveries: int = 0
    faults: int = 0
    seconds: float = 0.0


def execute(behaviour: Behaviour, harness: Harness) -> Result:
    """Run ``behaviour`` on ``harness``. Blocks; never raises for what the backend does wrong.

    Its channels are deleted in any case, also when a signal's exception ends it.
    """
    claim = _claim(behaviour, harness)
    if (absent := _absent(behaviour.needs, harness.faults)) is not None:
        return Result(**claim, status=absent)
    kit = Kit(harness)
    started = time.monotonic()
    try:
        status, text, violations = _judge(behaviour, kit)
    finally:
        kit.close()
    reason = harness.known_failures.get(behaviour.name)
    if reason is not None:
        status, text = _against_known(status, text, reason)
    return Result(
        **claim,
        status=status,
        text=text,
        checkers=tuple(dict.fromkeys(violation.checker for violation in violations)),
        deliveries=len(kit.history.events(Kind.DELIVER)),
        faults=kit.broken,
        seconds=round(time.monotonic() - started, 3),
    )


def execute_together(
    behaviours: Sequence[Behaviour], harness: Harness, copies: int
) -> Iterator[Result]:
    """Run those of ``behaviours`` that break nothing, each ``copies`` times, ``copies`` at once.

    Each copy has a random order of its own, the same at every call. Yields a result whenever one
    has ended. Work that is slow because the machine is busy must not look dead: give ``harness`` a
    lease and a patience of half a minute or more.
    """
    harmless = [behaviour for behaviour in behaviours if behaviour.needs is None]
    orders = [random.Random(copy).sample(harmless, len(harmless)) for copy in range(copies)]
    pool = ThreadPoolExecutor(copies, "gearshift-conformance")
    try:
        running = [
            pool.submit(execute, behaviour, harness)
            for turn in zip(*orders, strict=True)
            for behaviour in turn
        ]
        for ended in as_completed(running):
            yield ended.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _claim(behaviour: Behaviour, harness: Harness) -> dict[str, Any]:
    capability = behaviour.capability
    return {
        "behaviour": behaviour.name,
        "area": behaviour.area,
        "capability": capability,
        "level": str(harness.capabilities.as_dict()[capability]) if capability else None,
    }


def _absent(needs: Needs | None, faults: Faults | None) -> Status | None:
    """The status of a fault behaviour that cannot run here; None if it can."""
    if needs is None:
        return None
    if faults is None:
        return Status.NOT_RUN
    return None if getattr(faults, needs) else Status.NOT_APPLICABLE


def _judge(behaviour: Behaviour, kit: Kit) -> tuple[Status, str, list[Violation]]:
    try:
        unsupported = _is_unsupported(behaviour.capability, kit)
        if unsupported:
            _prove_requirement_refused(kit, str(behaviour.capability))
        if unsupported and behaviour.refused is not None:
            _prove_refused(kit, behaviour.refused)
            return Status.UNSUPPORTED, "", []
        behaviour.run(kit)
    except Broken as broken:
        return Status.FAILED, str(broken), broken.violations
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{text} ({where.name}, line {where.lineno})"
        return Status.FAILED, text, [Violation("error", text)]
    if shortfall := _shortfall(behaviour, kit):
        return Status.VACUOUS, shortfall, []
    return (Status.UNSUPPORTED if unsupported else Status.VERIFIED), "", []


def _shortfall(behaviour: Behaviour, kit: Kit) -> str:
    """Tell of what the run saw too little to prove anything; empty if it saw enough."""
    retries = sum(event.action == "retry" for event in kit.history.events(Kind.SETTLE))
    seen = {
        "deliveries": (len(kit.history.events(Kind.DELIVER)), behaviour.deliveries),
        "retries": (retries, behaviour.retries),
        "faults": (kit.broken, 1 if behaviour.needs else 0),
    }
    return ", ".join(
        f"saw {count} {what}, needs {least}"
        for what, (count, least) in seen.items()
        if count < least
    )


def _against_known(status: Status, text: str, reason: str) -> tuple[Status, str]:
    if status.is_failure:
        return Status.KNOWN_FAILURE, reason
    return Status.FAILED, f"it is listed as a known failure ({reason}) and passed"


def _is_unsupported(capability: str | None, kit: Kit) -> bool:
    """True if the capability is declared false, or at the lowest of its levels."""
    if capability is None:
        return False
    declared = getattr(kit.capabilities, capability)
    steps = levels(capability)
    return declared is steps[0] if steps else not declared


def _prove_requirement_refused(kit: Kit, capability: str) -> None:
    """Opening a channel that requires more than is declared raises before any effect."""
    steps = levels(capability)
    wanted = Requirement(name=capability, level=steps[1] if steps else None)
    channel = kit.fresh("refused")
    kit.configure(channel, requires=[str(wanted)])
    with kit.refusal(NotSupported, "requirement", f"requires = {str(wanted)!r}"):
        kit.connect().producer(channel, create=True)
    kit.configure(channel)
    kit.require(
        not kit.connect().exists(channel), "requirement", "a refused open created its channel"
    )


def _prove_refused(kit: Kit, refused: Refusal) -> None:
    """The call raises NotSupported; the delivery in hand stays unsettled, the consumer works."""
    channel = kit.channel()
    producer = kit.producer(channel)
    consumer = kit.consumer(channel)
    producer.send()
    delivery = kit.one(consumer)
    with kit.refusal(NotSupported, "refusal", "an operation that is not declared"):
        refused(kit, channel, consumer)
    kit.require(delivery.outcome is None, "refusal", "the refused call settled a delivery")
    producer.send()
    second = kit.one(consumer)
    consumer.ack(second)
    consumer.ack(delivery)
    kit.verify(channel)
