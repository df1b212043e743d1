"""``gearshift send``: JSON lines in, receipts out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import rich_click as click

from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.cli.context import Session, complete_channel, note, with_session
from gearshift.cli.envelope import LineParser, enveloped, json_value, raw_text
from gearshift.cli.errors import CommandFailed
from gearshift.cli.lines import LineReader
from gearshift.cli.output import json_line, terminal
from gearshift.errors import GearshiftError
from gearshift.exit_codes import exit_code
from gearshift.message import Message, Receipt, SendResult
from gearshift.operations.portability import PortabilityReport
from gearshift.producer import Producer

__all__ = ["command"]

#: Messages, and bytes of them, that are sent before their results are printed.
_ROUND = 5000
_ROUND_BYTES = 32 * 1024 * 1024


@click.command("send")
@click.argument("channel", shell_complete=complete_channel)
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option("--key-field", metavar="NAME", help="Use this field of each JSON object as the key.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header; may be repeated."
)
@click.option("--text", is_flag=True, help="Each line is text, sent as it is.")
@click.option(
    "--envelope", is_flag=True, help="Each line is an object: value, key, headers, id; as tail's."
)
@click.option("--create", is_flag=True, help="Create the channel if it is missing.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
    metavar="S", help="Longest wait for the broker.",
)  # fmt: skip
@with_session
def command(
    session: Session,
    channel: str,
    file: BinaryIO,
    key_field: str | None,
    headers: tuple[str, ...],
    text: bool,
    envelope: bool,
    create: bool,
    timeout: float,
) -> None:
    """Send each line of FILE, or of stdin, as a message.

    For one message: echo '{"order_id": 1}' | gearshift send orders

    A line is a JSON value. The results are JSON lines in the same order: the id and position of
    what is stored, the error of what is not (exit code 1). A bad line ends it with exit code 2;
    what was before it is sent, nothing after it.
    """
    parser = _parser(key_field, text, envelope)
    fixed = [_header(header) for header in headers]
    reader = LineReader(file, str(getattr(file, "name", "<stdin>")))
    with (
        session.bus() as bus,
        bus.producer(
            channel, create=create or None, timeout_s=min(timeout, OPEN_TIMEOUT_S)
        ) as producer,
        _progress() as on_result,
    ):
        sending = _Sending(producer, reader, partial(parser, producer, fixed), timeout)
        sending.run(on_result)


def _parser(key_field: str | None, text: bool, envelope: bool) -> LineParser:
    if sum((bool(key_field), text, envelope)) > 1:
        raise click.UsageError("--key-field, --text and --envelope exclude one another")
    if text:
        return raw_text
    return enveloped if envelope else partial(json_value, key_field=key_field)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value


class _Sending:
    """One run: rounds of lines, each sent pipelined, then its results printed."""

    def __init__(
        self, producer: Producer, reader: LineReader, parse: Any, timeout_s: float
    ) -> None:
        self._producer = producer
        self._reader = reader
        self._parse = parse
        self._timeout_s = timeout_s
        self._portability = PortabilityReport(producer.backend)
        self._round: list[tuple[int, str | None]] = []
        self._bad_line: Exception | None = None
        self._sent = 0
        self._failed = 0

    def run(self, on_result: Any) -> None:
        """Send until the end, a bad line, or a round with failures. Raises CommandFailed."""
        try:
            while not (self._reader.ended or self._bad_line or self._failed):
                self._send_round(on_result)
        except KeyboardInterrupt:
            self._say_what_is_left_out()
            unsure = f", up to {len(self._round):,} more may be" if self._round else ""
            note(f"interrupted: {self._sent:,} were sent{unsure}")
            raise
        self._say_what_is_left_out()
        if self._failed:
            raise CommandFailed(
                f"{self._failed} of {self._failed + self._sent} messages were not confirmed; "
                f"nothing after {self._reader.place} was sent",
                hint="the results name them; one that may be stored keeps its id if sent again",
            )
        if self._bad_line:
            raise self._refusal(self._bad_line)

    def _send_round(self, on_result: Any) -> None:
        self._round = []
        results = self._producer.send_many(
            self._messages(), timeout_s=self._timeout_s, raise_on_error=False
        )
        for (number, message_id), result in zip(self._round, results, strict=True):
            self._sent += isinstance(result, Receipt)
            self._failed += not isinstance(result, Receipt)
            click.echo(json_line(_result(number, message_id, result)))
        self._round = []
        on_result(self._sent)

    def _messages(self) -> Iterator[Message]:
        """Messages of the lines that are there, until a bad one; waits for the first only."""
        size = 0
        while len(self._round) < _ROUND and size < _ROUND_BYTES:
            line = self._reader.next(wait=not self._round)
            if line is None:
                return
            try:
                message = self._parse(line)
            except (GearshiftError, ValueError) as error:
                self._bad_line = error
                return
            if message is not None:
                self._portability.add(message)
                size += message.size
                self._round.append((self._reader.number, message.id))
                yield message

    def _say_what_is_left_out(self) -> None:
        for line in self._portability.lines():
            note(line)

    def _refusal(self, error: Exception) -> CommandFailed:
        ours = isinstance(error, GearshiftError)
        return CommandFailed(
            f"{self._reader.place}: {getattr(error, 'message', error)}",
            hint=f"{self._sent:,} sent before it, nothing after it; mend the line and go on there",
            exit_code=exit_code(error) if ours else 2,
        )


def _result(line: int, message_id: str | None, result: SendResult) -> dict[str, Any]:
    if not isinstance(result, Receipt):
        return {
            "line": line,
            "id": message_id,
            "error": type(result).__name__,
            "message": result.message,
            "retryable": result.retryable,
        }
    position = result.position
    place = {"partition": position.partition, "offset": position.offset} if position else None
    record: dict[str, Any] = {"line": line, "id": result.id, "position": place}
    return record | {"resent": True} if result.resent else record


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A counter on stderr while the results go elsewhere; nothing outside a terminal."""
    console = terminal(stderr=True)
    if not console.is_terminal or sys.stdout.isatty():
        yield lambda _sent: None
        return
    from rich.status import Status

    with Status("sending", console=console) as status:
        yield lambda sent: status.update(f"{sent:,} sent")
