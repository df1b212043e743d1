"""From what redis-py raises to what Gearshift raises. The only place that reads the texts."""

from __future__ import annotations

from redis import exceptions

from gearshift.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    GearshiftError,
    MessageTooLarge,
    PermissionDenied,
    PublishRefused,
    TopologyConflict,
    UnknownChannel,
)

__all__ = ["classify", "may_not_store", "was_refused"]

#: The server said so before it did anything.
_REFUSALS = (
    exceptions.OutOfMemoryError,
    exceptions.NoPermissionError,
    exceptions.ReadOnlyError,
    exceptions.NoScriptError,
)
#: These connections are of no more use, or the server is not: another may be, or soon.
_LOST = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.NoScriptError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)


#: How a server says that a user may not run a command that one of our scripts calls.
_SCRIPT_FORBIDDEN = "The user executing the script"


def was_refused(error: Exception) -> bool:
    """True if the server cannot have stored anything."""
    return isinstance(error, _REFUSALS)


def may_not_store(error: Exception) -> bool:
    """True if the server refuses to store for now, and nothing is wrong with the connection."""
    return isinstance(error, (exceptions.OutOfMemoryError, exceptions.NoPermissionError)) or (
        _SCRIPT_FORBIDDEN in str(error)
    )


def classify(error: Exception, address: tuple[str, int]) -> GearshiftError | None:
    """Ours for ``error``, or None if it is not known. Never raises; the text holds no secret."""
    where = f"{address[0]}:{address[1]}"
    text = str(error)
    if isinstance(error, GearshiftError):
        return error
    if isinstance(error, exceptions.NoPermissionError) or _SCRIPT_FORBIDDEN in text:
        return PermissionDenied(f"{where}: {_first_line(text)}", hint="check the user's ACL")
    if isinstance(error, exceptions.AuthenticationError):
        return AuthenticationFailed(
            f"{where}: {_first_line(text)}", hint="check username and password"
        )
    if "AUTH" in text and isinstance(error, exceptions.ResponseError):
        return AuthenticationFailed(f"{where}: {_first_line(text)}", hint="give a password")
    if isinstance(error, exceptions.OutOfMemoryError):
        return PublishRefused(
            "the server's memory is full (maxmemory)",
            hint="wait until consumers have caught up, or give the server more memory",
            retryable=True,
        )
    if isinstance(error, _LOST):
        return ConnectionFailed(f"{where}: {_first_line(text) or type(error).__name__}")
    if text.startswith(("NOGROUP", "UNBLOCKED")) or "no such key" in text:
        return UnknownChannel("its stream or group does not exist any more")
    if "WRONGTYPE" in text:
        return TopologyConflict("a key of this channel's name holds something else, not a stream")
    if "too big" in text or "exceeds maximum allowed size" in text:
        return MessageTooLarge("the server takes no value of this size (proto-max-bulk-len)")
    return None


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200]
