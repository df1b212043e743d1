"""In a rehearsal nothing leaves the process, and what would have left is known."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import gearshift
from gearshift.errors import MessageTooLarge, NotSupported
from gearshift.rehearsal import handling, read_captured


@pytest.fixture
def captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a rehearsal that is under way."""
    file = tmp_path / "captured"
    monkeypatch.setenv("GEARSHIFT_REHEARSAL", str(file))
    return file


def test_a_program_can_ask(captured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it leaves out what Gearshift cannot hold back."""
    assert gearshift.rehearsing()
    monkeypatch.delenv("GEARSHIFT_REHEARSAL")
    assert not gearshift.rehearsing()


def test_what_is_sent_is_written_down_and_goes_nowhere(
    captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender has its receipts; the channel is not even made."""
    with gearshift.open() as bus, bus.producer("billed") as producer:
        assert producer.send({"n": 1}, key="customer").id
        assert len(producer.send_many([{"n": 2}, {"n": 2}])) == 2
    first, second, third = read_captured(captured)
    assert (first.channel, first.key is None, second.key) == ("billed", False, None)
    assert first.contents != second.contents == third.contents
    assert b"customer" not in captured.read_bytes()
    monkeypatch.delenv("GEARSHIFT_REHEARSAL")
    with gearshift.open() as bus:
        assert not bus.exists("billed")


def test_headers_are_part_of_the_contents(captured: Path) -> None:
    """Two messages that differ in a header only are different ones."""
    with gearshift.open() as bus, bus.producer("billed") as producer:
        producer.send(b"same", headers={"source": "shop"})
        producer.send(b"same", headers={"source": "mail"})
    first, second = read_captured(captured)
    assert first.contents != second.contents


def test_a_send_belongs_to_the_message_that_is_handled(captured: Path) -> None:
    """On the handler's thread and in its tasks; a thread of its own is beside it."""
    with gearshift.open() as bus, bus.producer("billed") as producer:

        async def send() -> None:
            producer.submit(b"from a task").result()

        with handling(7):
            producer.send(b"on the thread")
            asyncio.run(send())
            beside = threading.Thread(target=producer.send, args=(b"beside",))
            beside.start()
            beside.join()
        producer.send(b"afterwards")
    assert [one.seq for one in read_captured(captured)] == [7, 7, None, None]


def test_limits_hold_as_in_earnest(captured: Path) -> None:
    """A message that the broker would not take is refused here too."""
    with gearshift.open() as bus, bus.producer("billed") as producer:
        limit = bus.capabilities("billed").max_message_bytes
        with pytest.raises(MessageTooLarge):
            producer.send(b"x" * (limit + 1))
    assert read_captured(captured) == ()


def test_nothing_is_consumed_purged_or_deleted(captured: Path) -> None:
    """Each is refused with what to do about it."""
    with gearshift.open() as bus:
        for forbidden in (
            lambda: bus.consumer("orders"),
            lambda: bus.purge("orders"),
            lambda: bus.delete("orders"),
        ):
            with pytest.raises(NotSupported, match="rehearsal"):
                forbidden()
