"""Messages of other programs on the command line: printed, copied and brought back whole."""

from __future__ import annotations

import base64
import json

import msgspec
from support.waiting import PATIENCE_S, take

import gearshift

from .conftest import Run, records


def test_a_binary_key_is_printed_and_sent_again(run: Run) -> None:
    """As base64, like binary headers."""
    with gearshift.open() as bus, bus.producer("events") as events:
        events.send({"n": 1}, key=b"\xff\x01", content_encoding="utf-8", correlation_id="c")
    for command in (
        ("replay", "events", "--max", "1", "--idle", str(PATIENCE_S)),
        ("tail", "events", "--from", "earliest", "--max", "1"),
    ):
        (printed,) = records(run(*command).stdout)
        assert printed["key"] == {"base64": "/wE="}
        assert (printed["content_encoding"], printed["correlation_id"]) == ("utf-8", "c")
    sent = run("send", "orders", "--envelope", input=json.dumps(printed))
    assert sent.exit_code == 0
    with gearshift.open() as bus, bus.consumer("orders") as inbox:
        (delivery,) = take(inbox, 1)
        assert delivery.key == b"\xff\x01"
        assert delivery.message.content_encoding == "utf-8"
        assert delivery.message.correlation_id == "c"
        delivery.ack()


def test_what_another_broker_alone_understands_is_left_out_and_said(run: Run) -> None:
    """The message goes, byte for byte, and a note names what does not."""
    line = {
        "value": {"n": 1}, "headers": {"odd\n": "x"},
        "native": {
            "backend": "rabbitmq", "properties": {"priority": 7, "app_id": "shop"},
            "data": base64.b64encode(msgspec.msgpack.encode([b"", None])).decode(),
            "body": base64.b64encode(b'{ "n": 1 }').decode(),
        },
    }  # fmt: skip
    result = run("send", "orders", "--envelope", input=json.dumps(line))
    assert "rabbitmq" in result.stderr
    assert "priority, app_id" in result.stderr
    line["headers"] = {"plain": "x"}
    assert run("send", "orders", "--envelope", input=json.dumps(line)).exit_code == 0
    with gearshift.open() as bus, bus.consumer("orders") as inbox:
        (delivery,) = take(inbox, 1)
        assert delivery.body == b'{ "n": 1 }'
        delivery.ack()


def test_a_native_part_that_tail_did_not_write_is_a_bad_line(run: Run) -> None:
    """Exit code 2, and nothing is sent."""
    line = {"value": 1, "native": {"backend": "rabbitmq", "data": "wQ==", "body": None}}
    result = run("send", "orders", "--envelope", input=json.dumps(line))
    assert result.exit_code == 2
    assert "native" in result.stderr
