"""Trying again until it works, is given up, is too late or nobody wants it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gearshift import errors
from gearshift._core.error_translation import ErrorTranslator
from gearshift._core.reconnect import Pauses, connect_until, is_lasting, is_lasting_after, never


class Backend:
    def classify(self, error: Exception) -> errors.GearshiftError | None:
        match error:
            case ConnectionError():
                return errors.ConnectionFailed(str(error))
            case PermissionError():
                return errors.AuthenticationFailed(str(error))
            case LookupError():
                return errors.UnknownChannel(str(error))
        return None


FAILURES = ErrorTranslator(Backend(), "fake", "c")  # type: ignore[arg-type]


def failing(*ends: Exception | str) -> Callable[[], str]:
    """Raises or returns one after the other."""
    following = iter(ends)

    def connect() -> str:
        end = next(following)
        if isinstance(end, Exception):
            raise end
        return end

    return connect


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event on which waiting takes no time."""
    event = threading.Event()
    monkeypatch.setattr(event, "wait", lambda timeout=None: event.is_set())
    return event


def test_it_is_tried_until_it_works(stop: threading.Event) -> None:
    """Every failure is told, translated, with the client's error as its cause."""
    told: list[errors.GearshiftError] = []
    connect = failing(ConnectionError("1"), ConnectionError("2"), "driver")
    assert connect_until(connect, FAILURES, stop=stop, on_failure=told.append) == "driver"
    assert [str(failure) for failure in told] == ["fake/c: 1", "fake/c: 2"]
    assert isinstance(told[0].__cause__, ConnectionError)


@pytest.mark.parametrize("error", [PermissionError("wrong password"), ZeroDivisionError()])
def test_what_no_wait_mends_is_raised_at_once(stop: threading.Event, error: Exception) -> None:
    """Wrong credentials, and what a driver cannot explain."""
    with pytest.raises(errors.GearshiftError) as caught:
        connect_until(failing(error), FAILURES, stop=stop)
    assert caught.value.__cause__ is error
    assert not caught.value.retryable


def test_the_last_error_is_raised_when_time_is_up(stop: threading.Event) -> None:
    """With no time there is one attempt."""
    with pytest.raises(errors.ConnectionFailed, match="first"):
        connect_until(failing(ConnectionError("first")), FAILURES, stop=stop, timeout_s=0.0)


def test_stopping_ends_it_without_an_error(stop: threading.Event) -> None:
    """Between two attempts, whatever the last one said."""

    def connect() -> str:
        stop.set()
        raise ConnectionError("down")

    assert connect_until(connect, FAILURES, stop=stop) is None


@pytest.mark.parametrize("error", [PermissionError(), LookupError()])
def test_a_producer_that_was_open_gives_up_on_nothing(
    stop: threading.Event, error: Exception
) -> None:
    """What was right at open may be right again."""
    connect = failing(error, "driver")
    assert connect_until(connect, FAILURES, stop=stop, give_up_on=never) == "driver"


@pytest.mark.parametrize(
    "passing",
    [
        errors.AuthenticationFailed("a new password"),
        errors.ConnectionFailed("a certificate", retryable=False),
        errors.PermissionDenied("an ACL"),
        errors.PublishRefused("a full disk", retryable=True),
        errors.UnknownChannel("deleted"),
    ],
)
def test_a_consumer_that_was_open_waits_for_what_somebody_is_changing(
    stop: threading.Event, passing: errors.GearshiftError
) -> None:
    """It was right once; a channel that is missing is declared again."""
    connect = failing(passing, passing, "driver")
    assert connect_until(connect, FAILURES, stop=stop, give_up_on=is_lasting) == "driver"


@pytest.mark.parametrize(
    "kind",
    [errors.ConfigError, errors.NotSupported, errors.TopologyConflict, errors.BackendFailure],
)
def test_a_consumer_that_was_open_gives_up_on_the_rest(
    stop: threading.Event, kind: type[errors.GearshiftError]
) -> None:
    """Only another program, setting or channel would help."""
    with pytest.raises(kind):
        connect_until(failing(kind("no")), FAILURES, stop=stop, give_up_on=is_lasting)


def test_connections_that_break_as_soon_as_they_come_are_made_ever_more_slowly() -> None:
    """Up to 2 s; one that has lasted is replaced at once."""
    now = [0.0]
    pauses = Pauses(clock=lambda: now[0])
    waits = [pauses.next_s() for _ in range(8)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.05, 2.0)
    pauses.made()
    now[0] += 10.0
    assert pauses.next_s() == 0.0


def test_a_missing_channel_is_waited_for_and_then_given_up() -> None:
    """Only as long as it is missing without a break."""
    now = [0.0]
    give_up = is_lasting_after(30.0, clock=lambda: now[0])
    missing = errors.UnknownChannel("gone")
    assert not give_up(missing)
    now[0] = 29.0
    assert not give_up(missing)
    assert not give_up(errors.ConnectionFailed("down"))
    now[0] = 58.0
    assert not give_up(missing)
    now[0] = 89.0
    assert give_up(missing)
