"""Asking the broker: synchronous AMQP methods, on AMQP channels of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pika import exceptions

from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import is_missing, speaks_of_its_node

__all__ = ["Rpc", "ask", "find"]


class Rpc:
    """An AMQP channel used for one method after another, each waited for.

    A refusal closes an AMQP channel, so take a new Rpc after any error.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reason: Exception | None = None
        self.channel = connection.pika.channel(on_open_callback=_ignore)
        self.channel.add_on_close_callback(self._on_close)
        self.wait(lambda: self.channel.is_open, "channel.open")

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Call the method ``name`` of pika's channel and return the broker's answering method.

        Raises ChannelClosedByBroker with the broker's reason, the connection's error, or
        TimeoutError after some seconds (see ``Nodes.patience_s``).
        """
        answers: list[Any] = []
        getattr(self.channel, name)(callback=answers.append, **arguments)
        self.wait(lambda: answers, f"{name} {arguments.get('queue', '')}".rstrip())
        return answers[0].method

    def answers_in(self, timeout_s: float, name: str, **arguments: Any) -> bool:
        """As a call, but False if the answer has not come in time: this Rpc is of no more use."""
        answers: list[Any] = []
        getattr(self.channel, name)(callback=answers.append, **arguments)
        return self.done_within(lambda: answers, timeout_s)

    def consume(self, queue: str, on_message: Callable[..., None], **arguments: Any) -> None:
        """Start consuming and wait until the broker says so."""
        self("basic_consume", queue=queue, on_message_callback=on_message, **arguments)

    def close(self) -> None:
        """Close the AMQP channel without waiting."""
        if self.channel.is_open:
            self.channel.close()

    def wait(self, done: Callable[[], object], what: str) -> None:
        """Wait until ``done``, the answer to ``what``. Raises as a call does."""
        nodes, begun_at = self._connection.nodes, time.monotonic()
        patience_s = nodes.patience_s(what)
        is_done = self.done_within(done, patience_s)
        nodes.took(what, time.monotonic() - begun_at)
        if not is_done:
            self._connection.leave_node()  # it may be cut off from the others
            raise TimeoutError(f"no answer to {what} within {patience_s:.0f} s")

    def done_within(self, done: Callable[[], object], timeout_s: float) -> bool:
        """Wait until ``done``; False if it has taken too long. Raises as a call does."""
        is_done = self._connection.wait_for(lambda: done() or self._reason, timeout_s)
        if self._reason is not None:
            if speaks_of_its_node(self._reason):
                self._connection.leave_node()
            raise self._reason
        return is_done

    def _on_close(self, channel: Any, reason: Exception) -> None:
        self._reason = reason


def ask(connection: Connection, name: str, **arguments: Any) -> Any:
    """Call one method on an AMQP channel of its own, as an Rpc does."""
    rpc = Rpc(connection)
    answer = rpc(name, **arguments)
    rpc.close()
    return answer


def find(connection: Connection, kind: str, name: str) -> Any:
    """The broker's answer about the "queue" or "exchange" ``name``; None if it is not there."""
    arguments = {kind: name, "passive": True}
    try:
        return ask(connection, f"{kind}_declare", **arguments)
    except exceptions.ChannelClosedByBroker as error:
        if not is_missing(error):
            raise
        return None


def _ignore(*_: object) -> None:
    """A callback that only makes pika wait for an answer."""
