"""A switch rehearsed on the embedded broker: what is seen, what is left alone, what is told."""

from __future__ import annotations

import dataclasses
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.sending import sending
from support.waiting import PATIENCE_S, ack_all, drain, take, until

import gearshift
from gearshift.cli import cli
from gearshift.compare import rehearsal
from gearshift.driver import GroupStatus
from gearshift.errors import DeadlineExceeded, GearshiftError, NotSupported, UnknownChannel

pytestmark = pytest.mark.timeout(300)

MESSAGES = 40

#: What the project's own service has made.
LIVE = {"orders", "orders.dead", "tasks"}

SETTINGS = """\
profile = "old"
[profiles.old]
backend = "sqlite"
path = "old.db"
[profiles.new]
backend = "sqlite"
path = "new.db"
[profiles.memory]
backend = "memory"
[channels.orders]
semantics = "stream"
partitions = 2
[channels.tasks]
semantics = "queue"
[channels.billed]
"""

HANDLERS = '''\
import itertools
import asyncio
import os
import threading

import gearshift

bus = gearshift.open()
billed = bus.producer("billed")


def bill(order, delivery):
    assert gearshift.rehearsing() and delivery.channel in ("orders", "tasks")
    billed.send({"order": order["n"], "currency": "euro"}, key=delivery.key)
    return order["n"]


def by_offset(order, delivery):
    """Skips what it has seen, as many services on a log do."""
    return delivery.position.offset >= 0


def stamped(order):
    """Sends something else every time."""
    billed.send({"order": order["n"], "nonce": os.urandom(8).hex()})


def forbidden(order):
    bus.consumer("orders")


def picky(order):
    if order["n"] == 3:
        raise gearshift.Reject("no such customer")


loops = set()


async def bound(order):
    """As with a client that belongs to the loop it was made on."""
    loops.add(asyncio.get_running_loop())
    assert len(loops) == 1
    await asyncio.wrap_future(billed.submit({"order": order["n"]}))


async def stuck_async(order):
    await asyncio.Event().wait()


def stuck(order):
    threading.Event().wait()
'''


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stream with messages and a group that has handled some of them, and an empty queue."""
    (tmp_path / "gearshift.toml").write_text(SETTINGS)
    (tmp_path / "service.py").write_text(HANDLERS)
    with gearshift.open() as bus:
        bus.declare("tasks")
        with bus.producer("orders") as producer:
            producer.send_many(
                [
                    producer.message({"n": n}, key=f"customer-{n % 5}", headers={"source": "shop"})
                    for n in range(MESSAGES)
                ]
            )
        with bus.consumer("orders", group="billing") as consumer:
            ack_all(take(consumer, 10))
    return tmp_path


def rehearse(
    handler: str, old: str = "old", new: str = "new", **more: object
) -> rehearsal.Rehearsal:
    wanted = {"channel": "orders", "messages": MESSAGES, "seconds": PATIENCE_S, "workers": 2} | more
    return rehearsal.rehearse(rehearsal.Request(old=old, new=new, handler=handler, **wanted))  # type: ignore[arg-type]


def verdicts(result: rehearsal.Result) -> dict[str, str]:
    return {one.aspect: one.relation for one in result.differences}


def groups(channel: str) -> list[GroupStatus]:
    """The state of every group, but for the age of what waits."""
    with gearshift.open() as bus:
        return [dataclasses.replace(one, oldest_age_s=None) for one in bus.groups(channel)]


def channels(file: str) -> set[str]:
    """What a broker's file still holds."""
    with sqlite3.connect(file) as database:
        return {name for (name,) in database.execute("SELECT name FROM channel")}


def test_where_nothing_differs_it_says_so_and_leaves_all_as_it_was() -> None:
    """Every message, on both sides, as sent, with the same result and the same sends.

    Before and after there are the same positions, the same lag and no other group; nothing was
    billed, and what was made on both brokers is deleted. The document has digests of keys, payloads
    and what was sent; ids are all it names.
    """
    before = groups("orders")
    assert before[0].lag == MESSAGES - 10
    found = rehearse("service:bill")
    result = rehearsal.judge(found)
    assert result.verdict == "safe", result.sentence
    assert set(verdicts(result).values()) == {"same", "measured"}
    assert len(found.originals) == MESSAGES
    assert [len(one.captured) for one in found.runs] == [MESSAGES] * 3
    assert groups("orders") == before
    assert channels("old.db") == LIVE
    assert channels("new.db") == set()
    text = rehearsal.encode(found).decode()
    for content in ("customer-", "shop", "euro"):  # what no digest can spell
        assert content not in text
    with gearshift.open() as bus, bus.consumer("orders", group="billing") as consumer:
        assert len(drain(consumer, MESSAGES - 10)) == MESSAGES - 10


def test_ctrl_c_deletes_it_too(project: Path) -> None:
    """Also while the handler hangs."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("gearshift"), "rehearse", "old", "new",
         "--channel", "orders", "--handler", "service:stuck", "--messages", "10"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        assert "orders on old:stream" in process.stderr.readline()
        assert until(lambda: channels("old.db") != LIVE or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert channels("old.db") == LIVE


def test_a_handler_that_needs_positions_differs_on_a_queue() -> None:
    """It fails there on every message, and the sentence says why."""
    result = rehearsal.judge(rehearse("service:by_offset", new="new:queue", messages=2))
    assert result.verdict == "differs"
    assert verdicts(result)["handler ended"] == "differs"
    assert "AttributeError" in result.sentence


def test_a_queue_becomes_a_stream_with_the_partitions_of_the_settings(project: Path) -> None:
    """The settings name partitions and no semantics, as a file for two brokers does."""
    (project / "gearshift.toml").write_text(SETTINGS.replace("semantics", "#", 1))
    with gearshift.open() as bus:
        bus.delete("orders")
    with sending("orders"):
        found = rehearse("service:bill", new="new:stream", messages=10)
    assert rehearsal.judge(found).verdict == "safe"
    places = {event.partition for event in found.runs[2].trial.events} - {None}
    assert places <= {0, 1}
    assert places


def test_what_varies_by_itself_is_no_difference() -> None:
    """A nonce differs on OLD too, so it says nothing against NEW; the rest is compared."""
    result = rehearsal.judge(rehearse("service:stamped"))
    assert result.verdict == "safe"
    assert verdicts(result)["contents sent"] == "unclear"
    assert verdicts(result)["handler sent"] == "same"
    assert "contents sent" in result.sentence


def test_a_message_that_fails_on_both_is_no_difference() -> None:
    """It is given up on both, for the same reason."""
    result = rehearsal.judge(rehearse("service:picky"))
    ended = next(one for one in result.differences if one.aspect == "handler ended")
    assert result.verdict == "safe"
    assert ended.old == ended.new == f"{MESSAGES - 1} done, 1 given up"


def test_a_handler_cannot_consume() -> None:
    """It would take from others: refused, and the reason is shown."""
    found = rehearse("service:forbidden", messages=1)
    failed = {e.what for one in found.runs for e in one.trial.events if e.kind == "failed"}
    assert len(failed) == 1
    assert "a rehearsal opens no consumer" in failed.pop()


def test_async_handlers_have_one_loop_as_in_a_worker() -> None:
    """What one message's handler has opened on it serves the next; its sends are counted as its."""
    found = rehearse("service:bound")
    assert rehearsal.judge(found).verdict == "safe"
    assert not [e for one in found.runs for e in one.trial.events if e.kind == "failed"]
    assert [len(one.captured) for one in found.runs] == [MESSAGES] * 3
    assert all(sent.seq is not None for one in found.runs for sent in one.captured)


@pytest.mark.parametrize("handler", ["stuck", "stuck_async"])
def test_a_handler_that_hangs_is_inconclusive_and_bounded(handler: str) -> None:
    """--seconds ends it, on each side."""
    result = rehearsal.judge(rehearse(f"service:{handler}", messages=2, seconds=3.0))
    assert result.verdict == "inconclusive"
    assert "not within 3 s" in result.sentence


def test_a_live_queue_is_seen_as_it_flows_and_nobody_misses_anything() -> None:
    """What came in meanwhile still waits for the service, all of it."""
    with sending("tasks") as sent:
        found = rehearse("service:bill", channel="tasks", messages=10)
    assert rehearsal.judge(found).verdict == "safe"
    assert len(sent) > 10
    with gearshift.open() as bus, bus.consumer("tasks") as consumer:
        assert drain(consumer, len(sent)) == [{"n": number, "of_key": number} for number in sent]


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"channel": "tasks", "seconds": 1.0}, DeadlineExceeded, "no message came"),
        ({"channel": "odrers"}, UnknownChannel, "no such channel"),
        ({"new": "memory"}, NotSupported, "lives in one process"),
        ({"handler": "service:nothing"}, GearshiftError, "service:nothing"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(
    more: dict[str, object], error: type[Exception], text: str
) -> None:
    """In one clear error, and nothing stays behind."""
    with pytest.raises(error, match=text):
        rehearse(**({"handler": "service:bill"} | more))  # type: ignore[arg-type]
    assert channels("old.db") == LIVE


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["rehearse", *arguments])
    return result.exit_code, result.output


ORDERS = ("--channel", "orders", "--workers", "2", "--messages", "4")


def test_the_command_prints_a_sentence_and_a_table() -> None:
    """Exit code 0 if nothing differs."""
    code, text = run("old", "new", *ORDERS, "--handler", "service:bill")
    assert code == 0
    assert "Safe to switch as far as 4 messages show" in text
    assert "order per key" in text
    assert "was not held back" in text


def test_the_command_ends_with_5_if_something_differs() -> None:
    """And prints it for programs too."""
    code, text = run("old", "new:queue", *ORDERS, "--handler", "service:by_offset", "-o", "json")
    assert code == 5
    record = json.loads(text[text.index("{") :])
    assert record["verdict"] == "differs"
    assert {one["aspect"] for one in record["differences"]} >= {"payload", "headers", "key"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("old",),
        ("old", "new", "--handler", "service:bill"),
        ("old", "new", "--channel", "orders"),
        ("old", "new", *ORDERS, "--handler", "service:bill", "--seed", "3"),
        ("old", "new", *ORDERS, "--handler", "service:bill", "--out", "x.html"),
    ],
)
def test_wrong_arguments_end_with_2(arguments: tuple[str, ...]) -> None:
    """None is ignored."""
    assert run(*arguments)[0] == 2


def test_compare_has_no_options_of_a_rehearsal() -> None:
    """They would be ignored."""
    result = CliRunner().invoke(cli, ["compare", "--channel", "orders"])
    assert result.exit_code == 2
    assert "--channel" in result.output
