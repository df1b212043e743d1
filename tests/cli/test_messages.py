"""``send`` and ``tail``: lines in, lines out, nothing silently lost."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cli.conftest import Run, Script, command_path, lines, records
from support.waiting import PATIENCE_S, take

import gearshift
from gearshift.errors import ConnectionFailed, OutcomeUnknown
from gearshift.message import Receipt


def _tail(run: Run, count: int) -> list[dict[str, object]]:
    result = run("tail", "events", "--from", "earliest", "--max", str(count))
    assert result.exit_code == 0, result.stderr
    return records(result.stdout)


def test_each_line_is_a_message_and_has_a_result(run: Run) -> None:
    """Results come in the order of the lines, with id and position."""
    values = [{"a": 1}, [1, 2], "text", 7, True, 123456789012345678901234567890]
    result = run("send", "events", input=lines(values))
    assert result.exit_code == 0
    results = records(result.stdout)
    assert [entry["line"] for entry in results] == [1, 2, 3, 4, 5, 6]
    assert all(entry["position"].keys() == {"partition", "offset"} for entry in results)
    received = {entry["id"]: entry["value"] for entry in _tail(run, len(values))}
    assert [received[entry["id"]] for entry in results] == values


def test_a_queue_has_no_positions(run: Run) -> None:
    """The result says null, and the messages wait for every group."""
    result = run("send", "orders", input="1\n2\n")
    assert [entry["position"] for entry in records(result.stdout)] == [None, None]
    waiting = records(run("ls", "orders", "-o", "jsonl").stdout)
    assert {entry["group"]: entry["ready"] for entry in waiting} == {"default": 2, "audit": 2}


def test_more_lines_than_a_round(run: Run) -> None:
    """Rounds follow one another; every line is sent once, in order."""
    result = run("send", "orders", input=lines(list(range(12_001))))
    assert [entry["line"] for entry in records(result.stdout)] == list(range(1, 12_002))


def test_blank_lines_and_the_last_line_without_end(run: Run) -> None:
    """Blank lines hold no JSON value; a missing newline at the end is no mistake."""
    result = run("send", "orders", input="1\r\n\n  \n2")
    assert [entry["line"] for entry in records(result.stdout)] == [1, 4]


def test_nothing_to_send(run: Run) -> None:
    """Empty input is no error."""
    result = run("send", "orders", input="")
    assert (result.exit_code, result.stdout) == (0, "")


def test_text_lines(run: Run) -> None:
    """--text sends lines as they are, blank ones included."""
    assert run("send", "events", "--text", input='{"a"\n\nb\n').exit_code == 0
    assert sorted(str(entry["value"]) for entry in _tail(run, 3)) == ["", "b", '{"a"']


def test_null_is_a_json_body(run: Run) -> None:
    """A null, perhaps from a filter that found nothing, is no tombstone that deletes a key."""
    run("send", "events", input="null\n")
    with gearshift.open() as bus, bus.consumer("events") as inbox:
        (delivery,) = take(inbox, 1)
        assert delivery.body == b"null"
        delivery.ack()


def test_key_field_and_headers(run: Run) -> None:
    """--key-field takes text and whole numbers; --header may repeat."""
    result = run(
        "send", "events", "--key-field", "customer", "--header", "a=b", "--header", "a=c=d",
        input=lines([{"customer": "ada"}, {"customer": 7}]),
    )  # fmt: skip
    assert result.exit_code == 0
    received = _tail(run, 2)
    assert sorted(str(entry["key"]) for entry in received) == ["7", "ada"]
    assert received[0]["headers"] == {"a": ["b", "c=d"]}


BAD_LINES = [
    ((), "nope", "JSON"),
    ((), '{"a": 1', "truncated"),
    ((), '"\xff"', "utf-8"),
    ((), "[" * 100_000, "nested too deeply"),
    (("--envelope",), '{"value": ' + "[" * 100_000, "nested too deeply"),
    (("--text",), "\xff", "utf-8"),
    (("--key-field", "customer"), "1", "customer"),
    (("--key-field", "customer"), "{}", "customer"),
    (("--key-field", "customer"), '{"customer": true}', "customer"),
    (("--envelope",), "1", "object"),
    (("--envelope",), '{"key": "k"}', "value"),
    (("--envelope",), '{"value": 1, "kye": "k"}', "kye"),
    (("--envelope",), '{"value": 1, "headers": {"gearshift-id": "x"}}', "gearshift-id"),
    (("--envelope",), '{"value": 1, "headers": {"x": 1.5}}', "x"),
    (("--envelope",), '{"value": "=", "encoding": "base64"}', "base64"),
    (("--envelope",), '{"value": 1, "encoding": "base64"}', "base64"),
    (("--envelope",), '{"value": 1, "encoding": "rot13"}', "rot13"),
    (("--envelope",), '{"value": 1, "id": ""}', "id"),
]


@pytest.mark.parametrize(("options", "bad", "words"), BAD_LINES)
def test_a_bad_line_is_named_and_ends_it(
    run: Run, project: Path, options: tuple[str, ...], bad: str, words: str
) -> None:
    """``file:line``, exit code 2; what was before it is sent, nothing after it."""
    good = '{"value": 1, "customer": "c"}'
    if "--envelope" in options:
        good = '{"value": 1}'
    file = project / "in.jsonl"
    file.write_bytes("\n".join([good, good, bad, good]).encode("latin-1"))
    result = run("send", "orders", str(file), *options)
    assert result.exit_code == 2
    assert len(records(result.stdout)) == 2
    error, hint = result.stderr.splitlines()
    assert error.startswith(f"error: {file}:3: ")
    assert words in error
    assert "2 sent before it" in hint
    with gearshift.open() as bus:
        assert {state.ready for state in bus.groups("orders")} == {2}


def test_a_bad_line_of_stdin(script: Script) -> None:
    """The line of a pipe is named too."""
    result = script("send", "orders", input="1\n{\n")
    assert result.returncode == 2
    assert "error: <stdin>:2: " in result.stderr


def test_forms_of_lines_exclude_one_another(run: Run) -> None:
    """--text, --envelope and --key-field are different forms."""
    result = run("send", "orders", "--text", "--envelope", input="1\n")
    assert result.exit_code == 2
    assert "exclude" in result.stderr


def test_an_unknown_channel_is_refused(run: Run) -> None:
    """A misspelt channel is not created, unless --create says so."""
    result = run("send", "orderz", input="1\n")
    assert result.exit_code == 2
    assert "'orders'" in result.stderr
    assert run("send", "orderz", "--create", input="1\n").exit_code == 0


def test_results_come_while_the_input_goes_on() -> None:
    """A program that writes slowly into ``send`` sees each line confirmed before the next."""
    with subprocess.Popen(
        [command_path(), "send", "orders"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2, 3):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def test_failed_results_are_counted_and_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line without a receipt has its error and id; exit code 1; later lines are not read."""

    def send_many(self: object, values: list[object], **options: object) -> list[object]:
        sent = [message.id for message in values]  # type: ignore[attr-defined]
        return [
            Receipt(sent[0], "orders", resent=True),
            OutcomeUnknown("no confirmation"),
            *[ConnectionFailed("gone") for _ in sent[2:]],
        ]

    monkeypatch.setattr("gearshift.producer.Producer.send_many", send_many)
    result = run("send", "orders", input=lines(list(range(5_003))))
    assert result.exit_code == 1
    results = records(result.stdout)
    assert len(results) == 5000
    assert results[0]["resent"] is True
    assert results[1]["error"] == "OutcomeUnknown"
    assert results[1]["retryable"] is True
    assert all(entry["id"] for entry in results)
    assert "4999 of 5000 messages were not confirmed" in result.stderr
    assert "<stdin>:5000" in result.stderr


# ── tail ─────────────────────────────────────────────────────────────────────────────────────────


def test_tail_prints_the_whole_message(run: Run) -> None:
    """id, key, headers, timestamp, value, position and attempt."""
    envelope = {
        "value": {"n": 1}, "key": "k", "headers": {"h": "x", "n": 5, "b": {"base64": "/w=="}},
        "id": "my-id", "timestamp": "2026-01-02T03:04:05.678Z",
    }  # fmt: skip
    assert run("send", "events", "--envelope", input=lines([envelope])).exit_code == 0
    (received,) = _tail(run, 1)
    position = received.pop("position")
    assert isinstance(position, dict)
    assert position["offset"] == 0
    assert received == envelope | {"content_type": "application/json", "attempt": 1}


def test_a_body_that_is_no_text_is_base64(run: Run) -> None:
    """With a marker, so that it can be told from text."""
    with gearshift.open() as bus, bus.producer("events") as events:
        events.send(b"\x00\xff")
        events.send(b"plain")
    received = {str(entry["value"]): entry.get("encoding") for entry in _tail(run, 2)}
    assert received == {base64.b64encode(b"\x00\xff").decode(): "base64", "plain": None}


def test_a_body_that_does_not_decode_is_shown(run: Run) -> None:
    """A foreign sender's broken JSON does not end the tail."""
    with gearshift.open() as bus, bus.producer("events") as events:
        events.send(b"{broken", content_type="application/json")
    assert [entry["value"] for entry in _tail(run, 1)] == ["{broken"]


def test_a_terminal_gets_no_commands_from_messages(run: Run) -> None:
    """Control characters of a value are escaped."""
    run("send", "events", input=lines(["\x1b[2J\x9b2J"]))
    result = run("tail", "events", "--from", "earliest", "--max", "1")
    assert result.stdout.rstrip("\n").isprintable()
    assert records(result.stdout)[0]["value"] == "\x1b[2J\x9b2J"


def test_what_tail_prints_can_be_sent(run: Run) -> None:
    """``tail | send --envelope`` copies messages, ids included."""
    run("send", "events", "--header", "a=b", input=lines([{"n": 1}, "x"]))
    printed = run("tail", "events", "--from", "earliest", "--max", "2").stdout
    assert run("send", "copies", "--create", "--envelope", input=printed).exit_code == 0
    with gearshift.open() as bus, bus.consumer("copies", create=True) as inbox:
        copies = take(inbox, 2)
        assert {copy.id for copy in copies} == {entry["id"] for entry in records(printed)}
        assert [copy.headers["a"] for copy in copies] == ["b", "b"]
        for copy in copies:
            copy.ack()


def test_tail_ends_after_max(run: Run) -> None:
    """--max N prints N."""
    run("send", "events", input=lines(list(range(10))))
    assert len(records(run("tail", "events", "--from", "earliest", "--max", "3").stdout)) == 3


def test_tail_begins_at_the_end_and_takes_nothing_away(run: Run) -> None:
    """Without --from earlier messages are not shown; a queue's groups keep all of theirs."""
    run("send", "events", input="1\n")
    run("send", "orders", input="1\n")
    assert run("tail", "events", "--idle", "0.5").stdout == ""
    assert run("tail", "orders", "--idle", "0.5").stdout == ""
    with gearshift.open() as bus:
        assert [(s.group, s.ready) for s in bus.groups("orders")] == [("default", 1), ("audit", 1)]
        assert list(bus.groups("events")) == []


def test_tail_of_a_queue_shows_what_is_sent_meanwhile(script: Script) -> None:
    """Beside the groups, which get it too."""
    assert script("send", "orders", input="1\n").returncode == 0
    with subprocess.Popen(
        [command_path(), "tail", "orders", "--max", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "waiting for messages" in process.stderr.readline()
        assert script("send", "orders", input="2\n").returncode == 0
        assert json.loads(process.stdout.readline())["value"] == 2
        assert process.wait(PATIENCE_S) == 0
    with gearshift.open() as bus:
        assert {state.ready for state in bus.groups("orders")} == {2}


def test_a_queue_has_no_beginning(run: Run) -> None:
    """--from earliest on a queue is refused as a capability."""
    run("send", "orders", input="1\n")
    result = run("tail", "orders", "--from", "earliest")
    assert result.exit_code == 4
    assert "history" in result.stderr


def test_tail_creates_nothing(run: Run) -> None:
    """A channel that is not there is an error, even if it is configured."""
    result = run("tail", "events", "--idle", "0.1")
    assert result.exit_code == 2
    assert "hint: it is configured" in result.stderr
    with gearshift.open() as bus:
        assert not bus.exists("events")
