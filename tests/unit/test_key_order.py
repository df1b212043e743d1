"""Keys that wait and keys that go on."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearshift._core.consuming.entry import Entry, EntryState
from gearshift._core.consuming.gathering import Gathering
from gearshift._core.consuming.key_order import KeyOrder
from gearshift.message import Message


def entry(key: str | None, number: int = 0) -> Entry:
    return Entry(Message(b"%d" % number, key), number, None, None, None)


def pushed(key_order: KeyOrder, *keys: str | None) -> list[Entry]:
    entries = [entry(key, number) for number, key in enumerate(keys)]
    key_order.extend(entries)
    return entries


def popped(key_order: KeyOrder, now: float = 0.0) -> list[Entry]:
    return list(iter(lambda: key_order.pop(now), None))  # type: ignore[arg-type]


@pytest.mark.parametrize("serial_keys", [False, True])
def test_different_keys_and_none_go_in_order_of_arrival(serial_keys: bool) -> None:
    """Nothing holds anything back."""
    key_order = KeyOrder(serial_keys=serial_keys)
    entries = pushed(key_order, "a", None, "b", None)
    assert popped(key_order) == entries


def test_without_serial_keys_several_of_a_key_may_be_in_hand() -> None:
    """As long as none of them waits for a retry."""
    key_order = KeyOrder()
    entries = pushed(key_order, "a", "a", "b")
    assert popped(key_order) == entries


def test_with_serial_keys_the_next_of_a_key_waits_for_the_last() -> None:
    """Others go on; settling lets exactly one more go, in order."""
    key_order = KeyOrder(serial_keys=True)
    a1, a2, a3, b1 = pushed(key_order, "a", "a", "a", "b")
    assert popped(key_order) == [a1, b1]
    key_order.settled(a1)
    assert popped(key_order) == [a2]
    key_order.settled(b1)
    assert popped(key_order) == []
    key_order.settled(a2)
    assert popped(key_order) == [a3]


@pytest.mark.parametrize("serial_keys", [False, True])
def test_a_held_message_holds_its_key_until_it_is_settled(serial_keys: bool) -> None:
    """Before its time, while it is in hand again, and through another retry."""
    key_order = KeyOrder(serial_keys=serial_keys)
    (a1,) = pushed(key_order, "a")
    assert popped(key_order) == [a1]
    key_order.hold(a1, due=10.0)
    a2, b1, a3 = pushed(key_order, "a", "b", "a")
    assert a1.state is EntryState.HELD
    assert popped(key_order, now=9.0) == [b1]
    assert key_order.next_due() == 10.0
    assert popped(key_order, now=10.0) == [a1]
    key_order.hold(a1, due=20.0)
    assert popped(key_order, now=19.0) == []
    assert popped(key_order, now=20.0) == [a1]
    key_order.settled(a1)
    first = popped(key_order)
    assert first == ([a2] if serial_keys else [a2, a3])


def test_followers_go_before_what_came_later() -> None:
    """What waited behind its key is older than what is ready."""
    key_order = KeyOrder()
    (a1,) = pushed(key_order, "a")
    popped(key_order)
    key_order.hold(a1, due=1.0)
    a2, a3 = pushed(key_order, "a", "a")
    assert popped(key_order) == []
    assert key_order.pop(1.0) is a1
    (a4,) = pushed(key_order, "a")
    key_order.settled(a1)
    assert popped(key_order) == [a2, a3, a4]


def test_of_two_held_messages_of_a_key_both_must_end() -> None:
    """They were in hand together; what follows waits for the second too."""
    key_order = KeyOrder()
    a1, a2 = pushed(key_order, "a", "a")
    popped(key_order)
    key_order.hold(a1, due=1.0)
    key_order.hold(a2, due=2.0)
    (a3,) = pushed(key_order, "a")
    assert popped(key_order, now=2.0) == [a1, a2]
    key_order.settled(a1)
    assert popped(key_order) == []
    key_order.settled(a2)
    assert popped(key_order) == [a3]


def test_messages_without_key_wait_for_themselves_only() -> None:
    """A held one holds back nothing, and comes back by its due time."""
    key_order = KeyOrder()
    one, two = pushed(key_order, None, None)
    popped(key_order)
    key_order.hold(one, due=5.0)
    key_order.hold(two, due=3.0)
    (three,) = pushed(key_order, None)
    assert popped(key_order, now=3.0) == [two, three]
    assert popped(key_order, now=5.0) == [one]


def test_discarding_frees_the_keys_that_waited_for_it() -> None:
    """Held, waiting and ready ones of a lost partition go, in hand ones hold nothing any more."""
    key_order = KeyOrder(serial_keys=True)
    a1, a2, a3, b1 = pushed(key_order, "a", "a", "a", "b")
    popped(key_order)
    key_order.hold(b1, due=1.0)
    key_order.discard(lambda each: each in (a1, a2, b1))
    assert popped(key_order, now=1.0) == [a3]


def test_clearing_forgets_everything() -> None:
    """Held, waiting and ready ones; keys that were in hand are free again."""
    key_order = KeyOrder(serial_keys=True)
    _, _, b1, _ = pushed(key_order, "a", "a", "b", "c")
    assert key_order.pop(0.0) is not None
    assert key_order.pop(0.0) is b1
    key_order.hold(b1, due=1.0)
    key_order.clear()
    assert not key_order
    assert popped(key_order, now=1.0) == []
    assert key_order.next_due() is None
    entries = pushed(key_order, "a", "b")
    assert popped(key_order) == entries


@given(keys=st.lists(st.sampled_from(["a", "b", "c", None])), data=st.data())
def test_serial_keys_keep_the_order_of_each_key(
    keys: list[str | None], data: st.DataObject
) -> None:
    """However handlers end, one at a time of each key is in hand, and all come out in order."""
    key_order = KeyOrder(serial_keys=True)
    pushed(key_order, *keys)
    in_hand: list[Entry] = []
    order: dict[str | None, list[int]] = defaultdict(list)
    done = 0
    while done < len(keys):
        in_hand += popped(key_order)
        held = [each.message.key for each in in_hand if each.message.key is not None]
        assert len(held) == len(set(held))
        ended = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
        order[ended.message.key].append(ended.token)
        key_order.settled(ended)
        done += 1
    for key in "abc":
        assert order[key] == sorted(order[key])


# ── batches ──


def gathered(key_order: KeyOrder, most: int = 100, now: float = 0.0) -> list[Entry]:
    """A batch, as the window gathers it."""
    batch, entries = Gathering(most), []
    while not batch.is_complete and (found := key_order.pop(now, batch)) is not None:
        if batch.admit(found):
            entries.append(found)
        else:
            key_order.put_back(found)
    return entries


def failed(key_order: KeyOrder, *entries: Entry, due: float) -> None:
    for each in entries:
        each.retries += 1
        key_order.hold(each, due)


def test_a_batch_may_have_several_messages_of_a_key() -> None:
    """Those behind them wait until all of the batch's are settled, and may then be one again."""
    key_order = KeyOrder(serial_keys=True)
    a1, b1, a2, a3, a4, a5 = pushed(key_order, "a", "b", "a", "a", "a", "a")
    assert gathered(key_order, 3) == [a1, b1, a2]
    assert gathered(key_order) == []
    key_order.settled(a1)
    assert gathered(key_order) == []
    key_order.settled(a2)
    assert gathered(key_order, 2) == [a3, a4]
    key_order.settled(a3)
    key_order.settled(a4)
    assert gathered(key_order) == [a5]


def test_what_another_batch_left_comes_before_what_arrives_later() -> None:
    """A batch still grows while another one, of other keys, asks for messages too."""
    key_order = KeyOrder(serial_keys=True)
    growing, other = Gathering(9), Gathering(9)
    a1, a2, a3 = pushed(key_order, "a", "a", "a")
    assert key_order.pop(0.0, growing) is a1
    assert key_order.pop(0.0, other) is None
    (a4,) = pushed(key_order, "a")
    taken = list(iter(lambda: key_order.pop(0.0, growing), None))  # type: ignore[arg-type]
    assert taken == [a2, a3, a4]


def test_what_comes_again_is_a_batch_of_its_own() -> None:
    """In the order of its key, whichever of them is due first."""
    key_order = KeyOrder(serial_keys=True)
    a1, a2, b1 = pushed(key_order, "a", "a", "b")
    gathered(key_order)
    failed(key_order, a1, due=2.0)
    failed(key_order, a2, b1, due=1.0)
    c1, a3 = pushed(key_order, "c", "a")
    assert gathered(key_order, now=1.0) == [b1]
    assert gathered(key_order, now=1.0) == [c1]
    assert gathered(key_order, now=2.0) == [a1]
    assert gathered(key_order, now=2.0) == []
    assert key_order
    assert key_order.settled(a1)
    assert gathered(key_order, now=2.0) == [a2]
    key_order.settled(a2)
    assert gathered(key_order, now=2.0) == [a3]


def test_what_comes_again_ends_the_batch_before_it() -> None:
    """It waits for the next one, and its key with it."""
    key_order = KeyOrder(serial_keys=True)
    a1, a2, b1 = entry("a", 1), entry("a", 2), entry("b", 3)
    a2.attempt = 2
    key_order.extend([a1, a2, b1])
    assert gathered(key_order) == [a1]
    assert gathered(key_order) == [b1]
    key_order.settled(a1)
    assert gathered(key_order) == [a2]


def test_discarding_the_first_lets_the_overdue_one_go() -> None:
    """Its partition was lost: nothing waits for it."""
    key_order = KeyOrder(serial_keys=True)
    a1, a2 = pushed(key_order, "a", "a")
    gathered(key_order)
    failed(key_order, a1, due=5.0)
    failed(key_order, a2, due=1.0)
    assert gathered(key_order, now=1.0) == []
    key_order.discard(lambda each: each is a1)
    assert gathered(key_order, now=1.0) == [a2]


@given(
    keys=st.lists(st.sampled_from(["a", "b", "c", None]), max_size=15),
    most=st.integers(1, 6),
    data=st.data(),
)
def test_batches_keep_the_order_of_each_key(
    keys: list[str | None], most: int, data: st.DataObject
) -> None:
    """However many are worked on at once, and whichever fail and come again."""
    key_order = KeyOrder(serial_keys=True)
    pushed(key_order, *keys)
    batches: list[list[Entry]] = []
    order: dict[str | None, list[int]] = defaultdict(list)
    now = 0.0
    while sum(map(len, order.values())) < len(keys):
        now += 1.0
        while len(batches) < 3 and (batch := gathered(key_order, most, now)):
            assert len(batch) == 1 or all(each.retries == 0 for each in batch)
            batches.append(batch)
        in_hand = [{each.message.key for each in batch} - {None} for batch in batches]
        assert sum(map(len, in_hand)) == len(set[str | None]().union(*in_hand))
        if not batches:
            continue
        ended = batches.pop(data.draw(st.integers(0, len(batches) - 1)))
        fails = ended[0].retries < 2 and data.draw(st.booleans())
        for each in ended:
            if fails:
                failed(key_order, each, due=now + data.draw(st.sampled_from([1.0, 2.0, 9.0])))
            else:
                order[each.message.key].append(each.token)
                key_order.settled(each)
    for key in "abc":
        assert order[key] == sorted(order[key])
