"""``peek`` and ``replay`` show what is there and change nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cli.conftest import EndAfter, Run, lines, records
from support.waiting import PATIENCE_S, take

import gearshift
from gearshift.capabilities import Prefetch

pytestmark = pytest.mark.usefixtures("end_after")

#: Options of a replay that ends with what is expected, not with silence.
_PATIENT = ("--idle", str(PATIENCE_S), "--max")


def _values(text: str) -> list[object]:
    return [record["value"] for record in records(text)]


# ── peek ─────────────────────────────────────────────────────────────────────────────────────────


def test_peek_shows_what_waits_and_gives_it_back(run: Run) -> None:
    """In order, as often as one likes, and each group its own."""
    run("send", "orders", input=lines([1, 2, 3]))
    for _ in range(2):
        result = run("peek", "orders", "--max", "3")
        assert result.exit_code == 0
        assert _values(result.stdout) == [1, 2, 3]
        assert result.stderr == "3 shown and given back\n"
    with gearshift.open() as bus, bus.consumer("orders") as inbox:
        (delivery,) = take(inbox, 1)
        assert (delivery.value, delivery.attempt) == (1, 1)
        delivery.ack()
    assert _values(run("peek", "orders", "--max", "2").stdout) == [2, 3]
    audited = run("peek", "orders", "--group", "audit", "--max", "3")
    assert _values(audited.stdout) == [1, 2, 3]


def test_peek_at_most(run: Run) -> None:
    """--max bounds what is taken in hand."""
    run("send", "orders", input=lines([1, 2, 3]))
    assert _values(run("peek", "orders", "--max", "2").stdout) == [1, 2]


def test_peek_when_nothing_waits(run: Run, end_after: EndAfter) -> None:
    """No output, no error."""
    end_after(0.3)
    run("send", "orders", input="")
    result = run("peek", "orders")
    assert (result.exit_code, result.stdout) == (0, "")


def test_peek_never_buries(run: Run) -> None:
    """What used up its attempts is shown and stays, though a consumer would bury it."""
    run("send", "orders", input="1\n")
    with gearshift.open() as bus:
        for _ in range(6):
            with bus.inspect("orders") as inbox:
                take(inbox, 1)[0].retry(0.0)
        assert [delivery.value for delivery in _peek(bus)] == [1]
        assert not bus.exists("orders.dead")


def test_peek_asks_where_a_look_costs_attempts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a broker that hands out whole batches: exit code 4, until --yes."""
    run("send", "orders", input="1\n")
    with gearshift.open() as bus:
        soft = replace(bus.capabilities("orders"), prefetch=Prefetch.SOFT)
    monkeypatch.setattr(gearshift.Bus, "capabilities", lambda self, channel: soft)
    result = run("peek", "orders")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "--yes" in result.stderr
    assert _values(run("peek", "orders", "--yes", "--max", "1").stdout) == [1]


def _peek(bus: gearshift.Bus) -> list[gearshift.Delivery[object]]:
    with bus.inspect("orders") as inbox:
        return take(inbox, 1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("events",), 4), (("orders", "--group", "nosuch"), 2), (("nosuch",), 2)],
)
def test_peek_where_it_cannot(run: Run, arguments: tuple[str, ...], code: int) -> None:
    """A stream, a group or a channel that is not there: one error with a hint, nothing made."""
    result = run("peek", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "hint: " in result.stderr
    with gearshift.open() as bus:
        assert not bus.exists(arguments[0])


# ── replay ───────────────────────────────────────────────────────────────────────────────────────


def test_replay_prints_all_and_touches_no_position(run: Run) -> None:
    """From the beginning, as often as one likes; a group's lag stays."""
    run("send", "events", input=lines([1, 2, 3]))
    with gearshift.open() as bus, bus.consumer("events", group="billing") as inbox:
        take(inbox, 1)[0].ack()
    for _ in range(2):
        printed = run("replay", "events", *_PATIENT, "3").stdout
        assert sorted(map(str, _values(printed))) == ["1", "2", "3"]
    with gearshift.open() as bus:
        assert [(state.group, state.lag) for state in bus.groups("events")] == [("billing", 2)]


def test_replay_from_an_offset(run: Run) -> None:
    """PARTITION:OFFSET prints that partition from there, and no other."""
    sent = records(run("send", "events", input=lines(list(range(20)))).stdout)
    place = sent[0]["position"]["partition"]
    envelopes = lines([{"value": n, "key": "k"} for n in range(9)])
    sent += records(run("send", "events", "--envelope", input=envelopes).stdout)
    last = max(one["position"]["offset"] for one in sent if one["position"]["partition"] == place)
    printed = records(run("replay", "events", "--from", f"{place}:1", *_PATIENT, str(last)).stdout)
    assert [record["position"] for record in printed] == [
        {"partition": place, "offset": offset} for offset in range(1, last + 1)
    ]


def test_replay_from_a_moment(run: Run) -> None:
    """A moment in ISO 8601, or an age, is the time of the first message that is printed."""
    run("send", "events", input="1\n")
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for where in (past, "1h"):
        result = run("replay", "events", "--from", where, *_PATIENT, "1")
        assert result.exit_code == 0, result.stderr
        assert _values(result.stdout) == [1]
    result = run("replay", "events", "--from", ahead, "--idle", "0.3")
    assert (result.exit_code, result.stdout) == (0, "")


def test_replay_at_most(run: Run) -> None:
    """--max ends it, before --idle does."""
    run("send", "events", input=lines([1, 2, 3]))
    assert len(_values(run("replay", "events", *_PATIENT, "2").stdout)) == 2


def test_what_is_replayed_can_be_sent(run: Run) -> None:
    """Lines of replay are lines of send --envelope."""
    run("send", "events", "--header", "a=b", input='{"n": 1}\n')
    printed = run("replay", "events", *_PATIENT, "1").stdout
    assert run("send", "orders", "--envelope", input=printed).exit_code == 0
    (peeked,) = records(run("peek", "orders", "--max", "1").stdout)
    assert (peeked["value"], peeked["headers"]) == ({"n": 1}, {"a": "b"})


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("orders",), 4), (("nosuch",), 2), (("events", "--from", "soon"), 2),
     (("events", "--from", "1:-1"), 2), (("events", "--from", "9999999999999999d"), 2)],
)  # fmt: skip
def test_replay_where_it_cannot(run: Run, arguments: tuple[str, ...], code: int) -> None:
    """A queue, or a place that is none: one error with a hint."""
    result = run("replay", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "hint: " in result.stderr
