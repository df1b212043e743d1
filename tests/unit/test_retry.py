"""How often, and how long in between."""

from __future__ import annotations

import math

import pytest

from gearshift._core.consuming.retry import RetryPolicy
from gearshift.errors import UsageError


def policy(jitter: float = 0.5) -> RetryPolicy:
    return RetryPolicy(max_attempts=3, delay_s=1.0, max_delay_s=10.0, random=lambda: jitter)


def test_waits_double_up_to_the_longest() -> None:
    """From delay_s to max_delay_s, however many attempts there were."""
    waits = [policy().wait_s(attempts) for attempts in (1, 2, 3, 4, 5, 5000)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_jitter_is_a_tenth_either_way() -> None:
    """What failed together does not come back together."""
    assert policy(0.0).wait_s(1) == pytest.approx(0.9)
    assert policy(1.0).wait_s(1) == pytest.approx(1.1)


def test_attempts_are_used_up_at_the_maximum() -> None:
    """The failed one included."""
    assert [policy().exhausted(attempts) for attempts in (2, 3, 4)] == [False, True, True]


@pytest.mark.parametrize("chosen", [0, 0.5, 604800])
def test_a_chosen_delay_is_taken_as_it_is(chosen: float) -> None:
    """Without jitter, and zero is a delay too."""
    assert policy().wait_s(1, chosen) == chosen


@pytest.mark.parametrize("chosen", [-1, math.nan, math.inf, 604801, "1"])
def test_any_other_chosen_delay_is_refused(chosen: float) -> None:
    """The text says the value and the range."""
    with pytest.raises(UsageError, match="is out of range"):
        policy().wait_s(1, chosen)
