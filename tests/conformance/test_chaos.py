"""The kit on embedded backends under chaos; real brokers: ``chaos_brokers.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conformance import misfortunes
from conformance.conftest import embedded, on_embedded
from conformance.misfortunes import (
    MISFORTUNES,
    under_chaos,
)
from conformance.misfortunes import (
    test_what_chaos_does_is_declared as test_what_chaos_does_is_declared,
)

from gearshift.chaos.consumers import ChaosLogConsumer
from gearshift.chaos.injector import Injector
from gearshift.chaos.late import LateMessages
from gearshift.chaos.producer import ChaosProducer
from gearshift.chaos.settings import Kind, Rates, Settings
from gearshift.conformance import Status, execute
from gearshift.driver import Outcome, Place, Received, Stored
from gearshift.message import Semantics

gearshift_backend = on_embedded(under_chaos)

# ── Chaos that does what it must not ─────────────────────────────────────────────────────────────


def _passes_all(self: LateMessages, received: Received, earlier: Received) -> bool:
    return True


def _says_why(self: Injector, kind: Kind) -> str:
    return "because"


def _confirms_all(self: ChaosProducer, submit: Any, messages: Any, on_outcomes: Any) -> None:
    lost = any(self._injector.strikes(Kind.SEND_UNCONFIRMED) for _ in messages)
    submit(messages[: len(messages) // 2] if lost else messages, lambda outcomes: None)
    if lost:
        self._injector.drop(Kind.SEND_UNCONFIRMED, "")
    on_outcomes([Outcome(number, Stored.YES) for number in range(len(messages))])


def _commits_ahead(self: ChaosLogConsumer, positions: Mapping[int, Place]) -> None:
    self.inner.commit({number: Place(at + 5, at.note) for number, at in positions.items()})
    if self._injector.strikes(Kind.LOST_ACK):
        raise self._injector.drop(Kind.LOST_ACK, "")


#: A message that a position passes was in hand, or had not been given out yet.
_SKIPPED = {"position-past-unsettled", "lost"}


@pytest.mark.parametrize(
    ("semantics", "mutant", "checkers"),
    [
        (Semantics.QUEUE, (LateMessages, "_may_pass", _passes_all), {"first-delivery-order"}),
        (Semantics.STREAM, (LateMessages, "_may_pass", _passes_all), {"first-delivery-order"}),
        (Semantics.QUEUE, (Injector, "why", _says_why), {"unflagged-duplicate"}),
        (Semantics.QUEUE, (ChaosProducer, "_submit", _confirms_all), {"lost"}),
        (Semantics.STREAM, (ChaosLogConsumer, "commit", _commits_ahead), _SKIPPED),
    ],
    ids=["key-reordered", "key-of-a-log-reordered", "flag-lost", "false-receipt", "commits-ahead"],
)
def test_chaos_beyond_what_is_declared_is_found(
    semantics: Semantics, mutant: tuple[type, str, Any], checkers: set[str], tmp_path: Path
) -> None:
    """By a checker of what it breaks."""
    harness = embedded("memory", semantics, tmp_path, patience_s=20.0)
    often = Rates(late=0.3, unflagged=0.5)
    with patch.object(*mutant), patch.object(misfortunes, "_EVERYTHING", _everything(often)):
        result = execute(MISFORTUNES[0], harness)
    assert result.status is Status.FAILED, f"survived: {result}"
    assert checkers & set(result.checkers), result.text


def _everything(rates: Rates) -> Settings:
    return Settings(over="p", seed=7, rate=0.01, rates=rates, quiet_s=0.0, late_s=0.05)
