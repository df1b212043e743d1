"""Keys that wait and keys that go on."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearshift._core.consuming.lanes import Lanes
from gearshift._core.consuming.ledger import Entry, Fate
from gearshift.message import Message


def entry(key: str | None, number: int = 0) -> Entry:
    return Entry(Message(b"%d" % number, key), number, None, None, None)


def pushed(lanes: Lanes, *keys: str | None) -> list[Entry]:
    entries = [entry(key, number) for number, key in enumerate(keys)]
    for each in entries:
        lanes.push(each)
    return entries


def popped(lanes: Lanes, now: float = 0.0) -> list[Entry]:
    return list(iter(lambda: lanes.pop(now), None))  # type: ignore[arg-type]


@pytest.mark.parametrize("serial_keys", [False, True])
def test_different_keys_and_none_go_in_order_of_arrival(serial_keys: bool) -> None:
    """Nothing holds anything back."""
    lanes = Lanes(serial_keys=serial_keys)
    entries = pushed(lanes, "a", None, "b", None)
    assert popped(lanes) == entries


def test_without_serial_keys_several_of_a_key_may_be_in_hand() -> None:
    """As long as none of them waits for a retry."""
    lanes = Lanes()
    entries = pushed(lanes, "a", "a", "b")
    assert popped(lanes) == entries


def test_with_serial_keys_the_next_of_a_key_waits_for_the_last() -> None:
    """Others go on; settling lets exactly one more go, in order."""
    lanes = Lanes(serial_keys=True)
    a1, a2, a3, b1 = pushed(lanes, "a", "a", "a", "b")
    assert popped(lanes) == [a1, b1]
    lanes.settled(a1)
    assert popped(lanes) == [a2]
    lanes.settled(b1)
    assert popped(lanes) == []
    lanes.settled(a2)
    assert popped(lanes) == [a3]


@pytest.mark.parametrize("serial_keys", [False, True])
def test_a_held_message_holds_its_key_until_it_is_settled(serial_keys: bool) -> None:
    """Before its time, while it is in hand again, and through another retry."""
    lanes = Lanes(serial_keys=serial_keys)
    (a1,) = pushed(lanes, "a")
    assert popped(lanes) == [a1]
    lanes.hold(a1, due=10.0)
    a2, b1, a3 = pushed(lanes, "a", "b", "a")
    assert a1.fate is Fate.HELD
    assert popped(lanes, now=9.0) == [b1]
    assert lanes.next_due() == 10.0
    assert popped(lanes, now=10.0) == [a1]
    lanes.hold(a1, due=20.0)
    assert popped(lanes, now=19.0) == []
    assert popped(lanes, now=20.0) == [a1]
    lanes.settled(a1)
    first = popped(lanes)
    assert first == ([a2] if serial_keys else [a2, a3])


def test_followers_go_before_what_came_later() -> None:
    """What waited in a lane is older than what is ready."""
    lanes = Lanes()
    (a1,) = pushed(lanes, "a")
    popped(lanes)
    lanes.hold(a1, due=1.0)
    a2, a3 = pushed(lanes, "a", "a")
    assert popped(lanes) == []
    assert lanes.pop(1.0) is a1
    (a4,) = pushed(lanes, "a")
    lanes.settled(a1)
    assert popped(lanes) == [a2, a3, a4]


def test_of_two_held_messages_of_a_key_both_must_end() -> None:
    """They were in hand together; what follows waits for the second too."""
    lanes = Lanes()
    a1, a2 = pushed(lanes, "a", "a")
    popped(lanes)
    lanes.hold(a1, due=1.0)
    lanes.hold(a2, due=2.0)
    (a3,) = pushed(lanes, "a")
    assert popped(lanes, now=2.0) == [a1, a2]
    lanes.settled(a1)
    assert popped(lanes) == []
    lanes.settled(a2)
    assert popped(lanes) == [a3]


def test_messages_without_key_wait_for_themselves_only() -> None:
    """A held one holds back nothing, and comes back by its due time."""
    lanes = Lanes()
    one, two = pushed(lanes, None, None)
    popped(lanes)
    lanes.hold(one, due=5.0)
    lanes.hold(two, due=3.0)
    (three,) = pushed(lanes, None)
    assert popped(lanes, now=3.0) == [two, three]
    assert popped(lanes, now=5.0) == [one]


def test_discarding_frees_the_keys_that_waited_for_it() -> None:
    """Held, waiting and ready ones of a lost partition go, in hand ones hold nothing any more."""
    lanes = Lanes(serial_keys=True)
    a1, a2, a3, b1 = pushed(lanes, "a", "a", "a", "b")
    popped(lanes)
    lanes.hold(b1, due=1.0)
    lanes.discard(lambda each: each in (a1, a2, b1))
    assert popped(lanes, now=1.0) == [a3]


def test_draining_gives_back_what_was_not_handed_out_and_forgets_the_rest() -> None:
    """Held, waiting and ready ones, each once."""
    lanes = Lanes(serial_keys=True)
    _, a2, b1, c1 = pushed(lanes, "a", "a", "b", "c")
    assert lanes.pop(0.0) is not None
    assert lanes.pop(0.0) is b1
    lanes.hold(b1, due=1.0)
    drained = lanes.drain()
    assert sorted(each.token for each in drained) == [a2.token, b1.token, c1.token]
    assert popped(lanes, now=1.0) == []
    assert lanes.next_due() is None


@given(keys=st.lists(st.sampled_from(["a", "b", "c", None])), data=st.data())
def test_serial_keys_keep_the_order_of_each_key(
    keys: list[str | None], data: st.DataObject
) -> None:
    """However handlers end, one at a time of each key is in hand, and all come out in order."""
    lanes = Lanes(serial_keys=True)
    pushed(lanes, *keys)
    in_hand: list[Entry] = []
    order: dict[str | None, list[int]] = defaultdict(list)
    done = 0
    while done < len(keys):
        in_hand += popped(lanes)
        held = [each.message.key for each in in_hand if each.message.key is not None]
        assert len(held) == len(set(held))
        ended = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
        order[ended.message.key].append(ended.token)
        lanes.settled(ended)
        done += 1
    for key in "abc":
        assert order[key] == sorted(order[key])
