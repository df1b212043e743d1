"""From what pika raises to what Gearshift raises. The only place that reads the broker's texts."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence

from pika import exceptions
from pika.adapters.utils import connection_workflow

from gearshift.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    GearshiftError,
    MessageTooLarge,
    NotSupported,
    PermissionDenied,
    PublishRefused,
    TopologyConflict,
    TopologyError,
    UnknownChannel,
    Unroutable,
)

__all__ = [
    "PublishNacked",
    "PublishReturned",
    "classify",
    "differing_argument",
    "has_no_replica",
    "is_held_too_long",
    "is_missing",
    "most_telling",
    "speaks_of_its_node",
]

_HELD_TOO_LONG = "delivery acknowledgement"
_NO_REPLICA = re.compile("does not have a (running )?replica on the local node")
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<what>\w+) '(?P<name>[^']*)'.*?: "
    r"received (?P<wanted>.*?) but current is (?P<current>.*)"
)
#: "the value 'balanced' of type 'longstr'" if the other side has none, else "'balanced'".
_VALUE = re.compile(r"'(?P<value>[^']*)'")


class PublishNacked(Exception):
    """The broker answered a publish with basic.nack."""


class PublishReturned(Exception):
    """The broker returned a mandatory publish: no queue would have taken it."""


def is_missing(error: exceptions.ChannelClosedByBroker) -> bool:
    """True if the broker says that something is not there, and not only that its node is not up."""
    return bool(error.reply_code == 404 and "inaccessible" not in str(error.reply_text))


def has_no_replica(error: Exception) -> bool:
    """True if a stream is not read because the connected node has no replica of it."""
    return (
        isinstance(error, exceptions.ChannelClosedByBroker)
        and _NO_REPLICA.search(str(error.reply_text)) is not None
    )


def speaks_of_its_node(error: Exception) -> bool:
    """True for a refusal that another node of the cluster may not give."""
    if not isinstance(error, exceptions.ChannelClosedByBroker):
        return False
    is_inaccessible = error.reply_code == 404 and not is_missing(error)
    return is_inaccessible or error.reply_code == 541 or has_no_replica(error)


def differing_argument(error: Exception) -> tuple[str, str | int | None] | None:
    """Name and present value (None: it has none) of the argument for which a declaration was
    refused; None if it was refused for something else."""
    found = isinstance(error, exceptions.ChannelClosedByBroker) and _INEQUIVALENT.search(
        str(error.reply_text)
    )
    if not found:
        return None
    value = _VALUE.search(found["current"])
    text = value["value"] if value else None
    return found["argument"], int(text) if text is not None and text.isdecimal() else text


def most_telling(failures: Sequence[Exception]) -> Exception:
    """The error to report of those that several nodes gave: a refusal before a silence."""

    def is_silence(error: Exception) -> bool:
        return isinstance(_innermost(error), OSError)

    return min(reversed(failures), key=is_silence)


def is_held_too_long(error: Exception) -> bool:
    """True if the broker closed a channel because a message was unsettled for too long."""
    return isinstance(error, exceptions.ChannelClosed) and _HELD_TOO_LONG in str(error.reply_text)


def classify(error: Exception, endpoints: Sequence[tuple[str, int]]) -> GearshiftError | None:
    """Ours for ``error``, or None if it is not known. Never raises; the text holds no secret."""
    where = ", ".join(f"{host}:{port}" for host, port in endpoints)
    error = _innermost(error)
    if isinstance(error, GearshiftError):
        return error
    if isinstance(error, PublishReturned):
        return Unroutable(
            f"no queue took the message ({error})",
            hint="declare the channel's groups before sending, or check its native routing",
        )
    if isinstance(error, PublishNacked):
        return PublishRefused(
            f"the broker refused the message ({error})",
            hint="a queue is over its length limit (x-overflow=reject-publish) or unavailable",
            retryable=True,
        )
    if isinstance(error, exceptions.ChannelClosedByBroker):
        if error.reply_code == 404 and not is_missing(error):
            return ConnectionFailed(f"{where}: the broker is not ready: {error.reply_text}")
        if has_no_replica(error):
            return ConnectionFailed(
                f"{where}: {error.reply_text}",
                hint="list every node in hosts, or add replicas: rabbitmq-streams add_replica",
            )
        return _channel_closed(error.reply_code, str(error.reply_text))
    return _connection_failed(error, where)


def _channel_closed(code: int, text: str) -> GearshiftError:
    if code == 404:
        return UnknownChannel(f"it is not there: {text}", hint="declare it first, or check native")
    if code == 403:
        hint = "check the user's configure, write and read permissions"
        return PermissionDenied(f"not permitted: {text}", hint=hint)
    if code == 405:
        text = f"in use exclusively by another connection: {text}"
        return TopologyError(text, hint="end that one, or wait until it has gone", retryable=True)
    if code in (311, 501) or "message size" in text:
        return MessageTooLarge(text)
    if code == 540:
        return NotSupported(f"this broker cannot do it: {text}")
    if code == 406 and (found := _INEQUIVALENT.search(text)) is not None:
        return TopologyConflict(
            f"{found['what']} {found['name']!r} exists with another {found['argument']!r}: "
            f"wanted {found['wanted']}, there is {found['current']}",
            hint="delete it, or adopt it as it is through the channel's native settings",
        )
    if code == 406 and ("invalid arg" in text or "invalid property" in text):
        return TopologyConflict(text)
    closed = f"the broker closed the AMQP channel: {code} {text}"
    if code == 406 and (_HELD_TOO_LONG in text or "unknown delivery tag" in text):
        hint = "a message was held longer than the broker's consumer_timeout"
        return ConnectionFailed(closed, hint=hint)
    return ConnectionFailed(closed, retryable=code != 406)


def _connection_failed(error: Exception, where: str) -> GearshiftError | None:
    text = "; ".join(str(part) for part in error.args) or type(error).__name__
    if isinstance(error, exceptions.IncompatibleProtocolError):
        return ConnectionFailed(  # of a broker that is stopping, too
            f"{where} hung up before it said anything",
            hint="if its port speaks TLS, use amqps:// in url; else see the broker's log",
        )
    if isinstance(error, exceptions.ProbableAccessDeniedError):
        return AuthenticationFailed(
            f"{where} refused the virtual host or the user's access to it: {text}",
            hint="check the path of url and the user's permissions",
        )
    if isinstance(error, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
        return AuthenticationFailed(
            f"{where} refused the credentials: {text}",
            hint="check username and password; guest works from the broker's own machine only",
        )
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        if error.reply_code in (403, 530):
            return AuthenticationFailed(f"{where} refused: {error.reply_text}")
        text = f"{error.reply_code} {error.reply_text}"
        return ConnectionFailed(f"{where} closed the connection: {text}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionFailed(
            f"{where}: the broker's certificate is not trusted: {error.verify_message}",
            hint="set tls_ca_file, or tls_server_name if the certificate is for another name",
            retryable=False,
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return ConnectionFailed(
            f"{where} speaks plain text, not TLS",
            hint="use amqp:// in url, or the broker's port for amqps",
            retryable=False,
        )
    if isinstance(error, socket.gaierror):
        return ConnectionFailed(f"{where}: host name not found ({error.strerror})")
    if isinstance(error, OSError):
        default = error if isinstance(error, TimeoutError) else type(error).__name__
        return ConnectionFailed(f"{where}: {error.strerror or default}")
    if isinstance(error, exceptions.AMQPError | connection_workflow.AMQPConnectorException):
        return ConnectionFailed(f"{where}: {text}")
    return None


def _innermost(error: Exception) -> Exception:
    """What really happened inside pika's layers of connection errors."""
    for _ in range(8):
        inner: object = None
        if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
            inner = error.exceptions[-1] if error.exceptions else None
        elif isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
            inner = error.exception
        elif type(error) is exceptions.AMQPConnectionError and error.args:
            inner = error.args[0]
        if not isinstance(inner, Exception):
            break
        error = inner
    return error
