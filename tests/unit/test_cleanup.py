"""What a tool made goes, whatever interrupts its going."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gearshift
from gearshift.bus import Bus
from gearshift.driver import ChannelSpec
from gearshift.embedded.sqlite.admin import Admin
from gearshift.errors import ConnectionFailed, NotSupported
from gearshift.operations.cleanup import Terminated, delete_channels, finish, sigterm_raises


def test_sigterm_is_an_exception_in_the_block_only() -> None:
    """It runs every ``finally`` there; the handler from before is back behind it."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_raises():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_that_is_swallowed_is_raised_again(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As a client's C code swallows it, or turns it into another error."""
    monkeypatch.setattr("gearshift.operations.cleanup._INSIST_S", 0.1)
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def swallow() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt) as raised, sigterm_raises():
        swallow()
    assert raised.type is kind


@pytest.mark.parametrize("what_comes_of_it", [None, TypeError("settings must be a dict")])
def test_a_block_that_ends_otherwise_than_interrupted_ends_as_interrupted(
    what_comes_of_it: Exception | None,
) -> None:
    """A command that was ended does not report a failure, or success, of what was cut off."""

    @sigterm_raises()
    def end_otherwise() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        if what_comes_of_it is not None:
            raise what_comes_of_it

    with pytest.raises(Terminated) as raised:
        end_otherwise()
    assert raised.value.__cause__ is what_comes_of_it


@pytest.fixture
def interrupt() -> Iterator[Callable[..., None]]:
    """Sends this process signals; each has been handled when the next is sent."""

    def send(*numbers: signal.Signals) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    with contextlib.suppress(KeyboardInterrupt), sigterm_raises():
        yield send


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGINT],
        [signal.SIGTERM],
        [signal.SIGTERM, signal.SIGTERM],
        [signal.SIGINT, signal.SIGTERM],
    ],
)
def test_interrupted_work_is_finished_and_the_interruption_raised(
    interrupt: Callable[..., None], numbers: list[signal.Signals]
) -> None:
    """However often SIGTERM comes."""
    done = []

    def work() -> None:
        interrupt(*numbers)
        done.append("done")

    with pytest.raises(KeyboardInterrupt):
        finish(work)
    assert done == ["done"]


def test_a_second_ctrl_c_is_raised_at_once(interrupt: Callable[..., None]) -> None:
    """A person who insists does not wait for a broker that is down."""
    done = []

    def work() -> None:
        interrupt(signal.SIGINT, signal.SIGINT)
        done.append("done")

    with pytest.raises(KeyboardInterrupt):
        finish(work)
    assert done == []


def test_what_the_work_returns_or_raises_comes_through() -> None:
    """As if it had been called."""
    assert finish(lambda: "result") == "result"
    with pytest.raises(ZeroDivisionError):
        finish(lambda: 1 // 0)


@pytest.fixture
def bus(tmp_path: Path) -> Any:
    """SQLite, on which a reader of dead letters has made dead letters of its own."""
    file = tmp_path / "gearshift.toml"
    file.write_text('[profiles.p]\nbackend = "sqlite"\npath = "p.db"\n')
    with gearshift.open(file) as bus:
        for name in ("a", "a.dead", "b"):
            bus.consumer(name, create=True).close()
        yield bus


def there(bus: Bus) -> set[str]:
    return {
        n for n in ("a", "a.dead", "a.dead.dead", "b", "b.dead", "b.dead.dead") if bus.exists(n)
    }


def test_dead_letters_and_theirs_go_with_their_channel(bus: Bus) -> None:
    """And nothing else does."""
    assert there(bus) == {"a", "a.dead", "a.dead.dead", "b", "b.dead"}
    assert delete_channels(bus, "a") == []
    assert there(bus) == {"b", "b.dead"}


def refusing(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """The next deletions fail at the broker."""
    left, delete = list(errors), Admin.delete

    def failing(self: Admin, channel: ChannelSpec) -> None:
        if left:
            raise left.pop(0)
        delete(self, channel)

    monkeypatch.setattr(Admin, "delete", failing)


def test_a_broker_that_is_away_for_a_moment_is_asked_again(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until everything is gone."""
    refusing(monkeypatch, ConnectionFailed("away"), ConnectionFailed("still away"))
    assert delete_channels(bus, "a", "b") == []
    assert there(bus) == set()


def test_what_stays_is_told_and_the_rest_goes(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that stays away, or a refusal that no waiting mends."""
    refusing(monkeypatch, ConnectionFailed("away"), NotSupported("adopted"))
    told = delete_channels(bus, "a", "b", patience_s=0.0)
    assert told == ["a could not be deleted: away", "a.dead could not be deleted: adopted"]
    assert there(bus) == {"a", "a.dead"}
