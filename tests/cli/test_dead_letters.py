"""``dlq``: dead letters are shown, brought back whole, and thrown away only on purpose."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import EndAfter, Run, records
from support.waiting import PATIENCE_S, ack_all, drain, take

import gearshift
from gearshift.embedded.sqlite.backend import Backend
from gearshift.errors import MessageTooLarge, PublishRefused, UnknownChannel
from gearshift.operations.redrive import redrive

pytestmark = pytest.mark.usefixtures("end_after")


@pytest.fixture(params=["orders", "events"], ids=["queue", "stream"])
def channel(request: pytest.FixtureRequest) -> str:
    """A queue and a stream."""
    return str(request.param)


def _kill(
    channel: str, *values: object, group: str = "default", key: str | None = "k"
) -> list[str | None]:
    """Send ``values`` and reject each in ``group``; the ids."""
    ids = []
    with gearshift.open() as bus:
        with bus.producer(channel) as producer:
            for value in values:
                producer.send(value, key=key, headers=[("a", "b"), ("a", 7)])
        with bus.consumer(channel, group=group) as inbox:
            for _ in values:
                (delivery,) = take(inbox, 1)
                ids.append(delivery.id)
                delivery.reject("no such customer")
    return ids


def _waiting(channel: str) -> int | None:
    with gearshift.open() as bus:
        state = next(state for state in bus.groups(channel) if state.group == "default")
        return state.ready if state.lag is None else state.lag


def test_nothing_has_died(run: Run, channel: str) -> None:
    """The list says so; the others end with 2 and where to look."""
    listed = json.loads(run("dlq", "list", "-o", "json").stdout)
    assert listed[0] == {
        "channel": "orders", "dead_letter": "orders.dead", "exists": False, "waiting": None
    }  # fmt: skip
    for verb in ("show", "redrive", "purge"):
        result = run("dlq", verb, channel)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no dead letters" in result.stderr
        assert "hint: " in result.stderr


def test_dead_letters_are_listed_and_shown(run: Run, channel: str) -> None:
    """Who, where, how often and why; showing twice shows the same, so nothing was settled."""
    (id_,) = _kill(channel, {"order": 1})
    show = ("dlq", "show", channel, "--max", "1")
    first, second = run(*show), run(*show)
    for word in (str(id_), "default", "no such customer"):
        assert word in first.stdout
        assert word in second.stdout
    (record,) = records(run(*show, "-o", "jsonl").stdout)
    assert record["value"] == {"order": 1}
    assert record["headers"]["dead-letter-reason"] == "no such customer"


def test_letters_of_a_group_are_shown_though_others_lie_before_them(
    run: Run, end_after: EndAfter
) -> None:
    """``--max`` counts those that are shown; a binary key is readable."""
    with gearshift.open() as bus, bus.producer("orders") as orders:
        orders.send(1, key=b"\xffk")
    for group in ("default", "audit"):
        with gearshift.open() as bus, bus.consumer("orders", group=group) as inbox:
            take(inbox, 1)[0].reject()
    end_after(0.2)
    shown = run("dlq", "show", "orders", "--group", "audit", "--max", "1").stdout
    assert shown.splitlines()[1].split()[1:3] == ["\\xffk", "audit"]


def test_the_list_counts(run: Run) -> None:
    """As many as wait in the dead-letter channel of a queue."""
    _kill("orders", 1, 2, 3)
    assert run("dlq", "list").stdout.splitlines()[1].split() == ["orders", "orders.dead", "3"]


def test_a_channel_without_dead_letters(run: Run, project: Path) -> None:
    """Switched off is said, and asking for them is refused with exit code 4."""
    file = project / "gearshift.toml"
    file.write_text(file.read_text() + "dead_letter = false\n")
    assert "switched off" in run("dlq", "list").stdout
    assert run("dlq", "show", "events").exit_code == 4


def test_redrive_brings_them_back_whole(run: Run, channel: str, end_after: EndAfter) -> None:
    """Same id, key, body and headers, less those of its death; and it is gone from the dead."""
    ids = _kill(channel, {"order": 1}, b"\x00\xff", "text")
    assert run("dlq", "redrive", channel, "--yes", "--max", "3").exit_code == 0
    with gearshift.open() as bus, bus.consumer(channel) as inbox:
        back = take(inbox, 3)
        assert [delivery.id for delivery in back] == ids
        assert [delivery.value for delivery in back] == [{"order": 1}, b"\x00\xff", "text"]
        assert {delivery.key for delivery in back} == {"k"}
        assert back[0].headers.pairs == (("a", "b"), ("a", 7))
        for delivery in back:
            delivery.ack()
    assert _waiting(f"{channel}.dead") == 0
    end_after(0.3)
    assert run("dlq", "redrive", channel, "--yes").stdout.startswith("redrove 0 ")


def test_redrive_is_a_dry_run_without_yes(run: Run, channel: str) -> None:
    """It says what would go, and fails off a terminal, so that no script takes it for done."""
    _kill(channel, 1)
    result = run("dlq", "redrive", channel)
    assert result.exit_code == 2
    assert f"of '{channel}.dead' to '{channel}' again" in result.stdout
    assert "--yes" in result.stderr
    assert run("dlq", "redrive", channel, "--yes", "--max", "1").stdout.startswith("redrove 1 ")


def test_redrive_at_most(run: Run, channel: str, end_after: EndAfter) -> None:
    """--max bounds it; the rest stays for the next time, and none comes twice."""
    ids = _kill(channel, 1, 2, 3, 4)
    for moved, silence_s in ((2, PATIENCE_S), (2, PATIENCE_S), (0, 0.3)):
        end_after(silence_s)
        done = run("dlq", "redrive", channel, "--yes", "--max", "2").stdout
        assert done.startswith(f"redrove {moved} ")
    with gearshift.open() as bus, bus.consumer(channel) as inbox:
        assert [delivery.id for delivery in take(inbox, 4)] == ids


def test_redrive_of_one_group(run: Run) -> None:
    """Only what died in that group goes; what died in another one waits on."""
    _kill("orders", 1)
    _kill("orders", 2, group="audit")  # which gets the first one too, and rejects it
    of_audit = ("orders", "--group", "audit")
    (shown,) = records(run("dlq", "show", *of_audit, "--max", "1", "-o", "jsonl").stdout)
    assert shown["headers"]["dead-letter-group"] == "audit"
    result = run("dlq", "redrive", *of_audit, "--yes", "--max", "1")
    assert result.stdout.startswith("redrove 1 ")
    assert "1 were left" in result.stderr
    assert _waiting("orders.dead") == 1


def test_letters_that_hide_behind_others_are_reached(
    run: Run, monkeypatch: pytest.MonkeyPatch, end_after: EndAfter
) -> None:
    """More than are looked at once are of another group: they stay, once each, and as they were."""
    monkeypatch.setattr("gearshift.operations.redrive._WINDOW", 2)
    ids = _kill("orders", 1, 2, 3, 4, 5, key=None)
    with gearshift.open() as bus, bus.consumer("orders", group="audit") as inbox:
        for delivery in take(inbox, 2):
            delivery.reject("wrong sum")
    before = records(run("dlq", "show", "orders", "--max", "7", "-o", "jsonl").stdout)
    end_after(0.2)
    result = run("dlq", "redrive", "orders", "--group", "audit", "--yes")
    assert (result.exit_code, result.stdout[:10]) == (0, "redrove 2 ")
    assert "5 were left" in result.stderr
    after = records(run("dlq", "show", "orders", "--max", "5", "-o", "jsonl").stdout)
    assert sorted(record["id"] for record in after) == sorted(ids)
    assert all(record["headers"] in [one["headers"] for one in before] for record in after)


def test_a_letter_that_can_never_be_sent_holds_up_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch, end_after: EndAfter
) -> None:
    """It stays, the others go, and its error is told at the end."""
    monkeypatch.setattr("gearshift.operations.redrive._BATCH", 1)
    _kill("orders", 1, 2, 3)
    refusal = MessageTooLarge("too large by now")
    monkeypatch.setattr(
        gearshift.Producer,
        "refusal",
        lambda self, message: refusal if message.body == b"1" else None,
    )
    end_after(0.2)
    result = run("dlq", "redrive", "orders", "--yes")
    assert result.stdout.startswith("redrove 2 ")
    assert "too large by now" in result.stderr
    assert result.exit_code != 0
    assert _waiting("orders.dead") == 1


def test_a_letter_of_a_group_that_is_gone_is_left(run: Run) -> None:
    """Nobody would take its copy out of the queue again; the note says why it stays."""
    with gearshift.open() as bus, bus.producer("orders.dead", create=True) as producer:
        producer.send(2, headers={"dead-letter-channel": "orders", "dead-letter-group": "gone"})
    _kill("orders", 1)
    result = run("dlq", "redrive", "orders", "--yes", "--max", "1")
    assert result.stdout.startswith("redrove 1 ")
    assert "1 were left" in result.stderr
    assert "does not have any more" in result.stderr


def test_a_letter_that_names_no_group_goes_to_all(run: Run) -> None:
    """A foreign one tells nothing of its death."""
    with gearshift.open() as bus, bus.producer("orders.dead", create=True) as producer:
        producer.send(1)
    run("dlq", "redrive", "orders", "--yes", "--max", "1")
    for group in ("default", "audit"):
        with gearshift.open() as bus, bus.consumer("orders", group=group) as inbox:
            assert take(inbox, 1)[0].value == 1


def test_one_who_looks_on_sees_whom_it_was_redriven_to(run: Run) -> None:
    """The header shows in a replay; only consumers of other groups settle it unseen."""
    _kill("events", 1)
    run("dlq", "redrive", "events", "--yes", "--max", "1")
    shown = records(run("replay", "events", "--max", "2", "--idle", str(PATIENCE_S)).stdout)
    assert [record["headers"].get("redrive-group") for record in shown] == [None, "default"]
    with gearshift.open() as bus, bus.consumer("events", group="new") as inbox:
        assert drain(inbox, 1) == [1]  # the original, not the copy


def test_a_stream_is_not_redriven_in_part(run: Run) -> None:
    """Its one position cannot say that some in the middle are still to come."""
    _kill("events", 1)
    result = run("dlq", "redrive", "events", "--group", "default", "--yes")
    assert result.exit_code == 4
    assert "one position" in result.stderr
    assert run("dlq", "redrive", "events", "--yes", "--max", "1").stdout.startswith("redrove 1 ")


class _Slow:
    """A driver that hands out one message whenever somebody has waited for it in vain."""

    def __init__(self, driver: Any, given_up: threading.Semaphore) -> None:
        self._driver = driver
        self._given_up = given_up

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def receive(self, max_messages: int, timeout_s: float) -> Any:
        if max_messages == 0 or not self._given_up.acquire(blocking=False):
            return self._driver.receive(0, timeout_s)
        received = self._driver.receive(1, timeout_s)
        if not received:
            self._given_up.release()
        return received


def _slow_down(patch: pytest.MonkeyPatch) -> None:
    """Make SQLite slower than any redrive would wait for."""
    given_up = threading.Semaphore(0)
    receive = gearshift.Consumer.receive

    def receive_or_give_up(*arguments: Any, **options: Any) -> list[gearshift.Delivery]:
        received = receive(*arguments, **options)
        if not received:
            given_up.release()
        return received

    patch.setattr(gearshift.Consumer, "receive", receive_or_give_up)
    for name in ("queue_consumer", "log_consumer"):
        make = getattr(Backend, name)
        patch.setattr(Backend, name, lambda *given, make=make: _Slow(make(*given), given_up))


def test_a_slow_broker_is_waited_for(
    run: Run, channel: str, monkeypatch: pytest.MonkeyPatch, end_after: EndAfter
) -> None:
    """Silence ends it only once it has looked at all that was there."""
    ids = _kill(channel, *range(5))
    end_after(0.05)
    with monkeypatch.context() as patch:
        _slow_down(patch)
        assert run("dlq", "redrive", channel, "--yes").stdout.startswith("redrove 5 ")
    with gearshift.open() as bus, bus.consumer(channel) as inbox:
        assert [delivery.id for delivery in take(inbox, 5)] == ids


def test_letters_that_another_has_in_hand_are_told(
    run: Run, channel: str, end_after: EndAfter
) -> None:
    """They are not waited for: they do not come while it has them, and a note says how many."""
    if channel != "orders":
        pytest.skip("on a stream they come to whoever has the partition")
    _kill(channel, 1, 2, 3, key=None)  # those of one key wait for one another
    end_after(0.2)
    with gearshift.open() as bus, bus.inspect("orders.dead", prefetch=2) as other:
        take(other, 2)
        result = run("dlq", "redrive", channel, "--yes")
    assert result.stdout.startswith("redrove 1 ")
    assert "2 did not come: another consumer" in result.stderr


def test_letters_that_another_has_taken_are_not_waited_for(channel: str) -> None:
    """The broker is asked again: they are not there any more."""
    if channel != "orders":
        pytest.skip("on a stream they come to whoever has the partition")
    _kill(channel, 1, 2, 3, key=None)  # those of one key wait for one another
    with gearshift.open() as bus:
        with bus.inspect("orders.dead", prefetch=2) as other:
            taken = take(other, 2)

            def ack_theirs(moved: int) -> None:
                ack_all(taken)
                other.flush()

            done = redrive(bus, channel, idle_timeout_s=0.2, patience_s=600.0, on_moved=ack_theirs)
        assert (done.moved, done.left) == (1, 0)


def test_what_cannot_be_stored_stays_dead(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter is settled only once its copy is confirmed."""
    _kill(channel, 1)
    refusal = PublishRefused("the disk is full")
    with gearshift.open() as bus:
        with monkeypatch.context() as patch:
            patch.setattr(
                gearshift.Producer, "send_many", lambda self, values, **_: [refusal for _ in values]
            )
            with pytest.raises(PublishRefused):
                redrive(bus, channel, idle_timeout_s=PATIENCE_S)
        assert redrive(bus, channel, most=1, idle_timeout_s=PATIENCE_S).moved == 1


def test_a_letter_that_dies_again_meanwhile_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a handler that is still broken would make a redrive go on for ever."""
    _kill("orders", 1)
    monkeypatch.setattr("gearshift.operations.redrive.time.time_ns", lambda: 0)
    with gearshift.open() as bus:
        assert redrive(bus, "orders", idle_timeout_s=1.0).moved == 0


def test_redrive_never_makes_a_channel(channel: str) -> None:
    """Neither the dead-letter channel nor one for the dead letters' dead letters."""
    with gearshift.open() as bus, pytest.raises(UnknownChannel):
        redrive(bus, channel, idle_timeout_s=1.0)
    _kill(channel, 1)
    with gearshift.open() as bus:
        redrive(bus, channel, most=1, idle_timeout_s=PATIENCE_S)
        assert not bus.exists(f"{channel}.dead.dead")


def test_purge(run: Run) -> None:
    """With --yes only."""
    _kill("orders", 1, 2)
    assert "would purge 2 messages" in run("dlq", "purge", "orders").stdout
    assert run("dlq", "purge", "orders", "--yes").exit_code == 0
    assert _waiting("orders.dead") == 0
