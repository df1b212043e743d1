"""The bound on what is in flight, without anybody who waits: test_buffer.py has those."""

from __future__ import annotations

import threading

import pytest

from gearshift import errors
from gearshift._core.publishing.batch import Batch
from gearshift._core.publishing.window import Window
from gearshift.message import Message


def window(max_messages: int = 3, max_bytes: int = 100) -> Window:
    return Window(threading.Condition(threading.Lock()), max_messages, max_bytes, lambda: 50.0)


def batch(*bodies: bytes) -> Batch:
    return Batch([Message(body) for body in bodies], deadline=50.0)


def enter(bound: Window, entering: Batch) -> None:
    with bound.changed:
        bound.enter(entering, lambda waits: None, waits=True)


@pytest.mark.parametrize("bounds", [(3, 100), (100, 3)])
def test_what_is_over_either_bound_is_refused_at_its_deadline(bounds: tuple[int, int]) -> None:
    bound = window(*bounds)
    enter(bound, batch(b"1", b"2"))
    enter(bound, batch(b"3"))
    with pytest.raises(errors.BackpressureError, match=r"3 messages \(3 bytes\)"):
        enter(bound, batch(b"4"))
    assert (bound.messages, bound.bytes) == (3, 3)


def test_room_that_is_given_back_is_taken_again() -> None:
    bound = window()
    first = batch(b"1", b"2", b"3")
    enter(bound, first)
    with bound.changed:
        bound.leave(first)
    assert (bound.messages, bound.bytes) == (0, 0)
    enter(bound, first)


def test_one_batch_always_fits_into_an_empty_window() -> None:
    bound = window(max_messages=1, max_bytes=1)
    enter(bound, batch(b"large", b"larger"))
    assert (bound.messages, bound.bytes) == (2, 11)


def test_an_obstacle_is_raised_before_a_lack_of_room_and_is_told_who_waits() -> None:
    bound = window()
    enter(bound, batch(b"1", b"2", b"3"))
    asked: list[bool] = []

    def obstacle(waits: bool) -> errors.GearshiftError:
        asked.append(waits)
        return errors.ConnectionFailed("away")

    with bound.changed, pytest.raises(errors.ConnectionFailed, match="away"):
        bound.enter(Batch([Message(b"4")], deadline=1000.0), obstacle, waits=False)
    assert asked == [False]
