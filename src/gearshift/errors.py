"""Every error that Gearshift raises, in one tree. Act on type and ``retryable``, never on text.

::

    GearshiftError
    ├── ConfigError                  a setting is wrong: which, its value, the fix
    ├── PluginError
    │   ├── BackendNotFound          no such backend, or it is not installed
    │   ├── PluginConflict           two distributions registered one name
    │   ├── PluginImportError        the plugin's module failed to import
    │   └── PluginIncompatible       written for another driver API
    ├── UsageError
    │   ├── MissingExtra             an optional library is not installed (also an ImportError)
    │   ├── Closed                   use after close
    │   ├── Forked                   use in a fork's child
    │   └── BlockingInEventLoop      a blocking call inside a running event loop
    ├── InvalidMessage               refused before it left the process
    │   ├── MessageTooLarge
    │   └── EncodeError
    ├── DecodeError                  a received body is not what it says it is
    ├── NotSupported                 the backend cannot do this, and says so
    ├── TopologyError
    │   ├── UnknownChannel           no such channel, and this open may not create it
    │   ├── UnknownGroup             a queue channel does not list this group
    │   └── TopologyConflict         it exists with other properties
    ├── ConnectionFailed             the broker is unreachable or the connection broke (retryable)
    │   └── AuthenticationFailed     (not retryable)
    ├── PermissionDenied             the broker knows this user, who may not do this
    ├── PublishError
    │   ├── PublishRefused           the broker said no; nothing is stored
    │   ├── Unroutable               nothing would have received it; nothing is stored
    │   ├── BackpressureError        no room before the deadline; nothing is stored (retryable)
    │   ├── OutcomeUnknown           it may or may not be stored
    │   └── SendFailed               some messages of a send_many have no receipt
    ├── SettleError
    │   ├── AlreadySettled
    │   └── StaleDelivery            lease, assignment or connection is gone; it will come again
    ├── DeadlineExceeded             nothing happened in ``timeout_s`` (also a TimeoutError)
    └── BackendFailure               the client raised something its driver could not classify
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gearshift.secret import without_credentials

if TYPE_CHECKING:
    from gearshift.message import Receipt

__all__ = [
    "AlreadySettled",
    "AuthenticationFailed",
    "BackendFailure",
    "BackendNotFound",
    "BackpressureError",
    "BlockingInEventLoop",
    "Closed",
    "ConfigError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DecodeError",
    "EncodeError",
    "Forked",
    "GearshiftError",
    "InvalidMessage",
    "MessageTooLarge",
    "MissingExtra",
    "NotSupported",
    "OutcomeUnknown",
    "PermissionDenied",
    "PluginConflict",
    "PluginError",
    "PluginImportError",
    "PluginIncompatible",
    "PublishError",
    "PublishRefused",
    "SendFailed",
    "SettleError",
    "StaleDelivery",
    "TopologyConflict",
    "TopologyError",
    "UnknownChannel",
    "UnknownGroup",
    "Unroutable",
    "UsageError",
]


class GearshiftError(Exception):
    """Base of every error raised on purpose.

    ``hint`` is the next step in words, ``retryable`` whether the same call may succeed later.
    ``backend`` and ``channel`` say where, if known. Passwords in URLs are masked.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        backend: str | None = None,
        channel: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        message = without_credentials(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else without_credentials(hint)
        self.backend = backend
        self.channel = channel
        if retryable is not None:
            self.retryable = retryable

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Replace message and hint by what ``change`` makes of them: to mask what it knows."""
        self.message = change(self.message)
        self.hint = None if self.hint is None else change(self.hint)
        self.args = (self.message, *self.args[1:])

    def located(self, *, backend: str | None, channel: str | None) -> GearshiftError:
        """Fill in where it happened, unless that is already known, and return self."""
        self.backend = self.backend or backend
        self.channel = self.channel or channel
        return self

    def __str__(self) -> str:
        place = "/".join(part for part in (self.backend, self.channel) if part)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} (hint: {self.hint})" if self.hint else text


class ConfigError(GearshiftError):
    """A setting is wrong. The text names the field, its value with secrets masked, and the fix."""


class PluginError(GearshiftError):
    """A backend or codec plugin cannot be used."""


class BackendNotFound(PluginError):
    """No installed distribution offers this backend; the hint is the install command."""


class PluginConflict(PluginError):
    """Two distributions registered the same plugin name."""


class PluginImportError(PluginError):
    """The plugin's module raised while it was imported; ``__cause__`` is what it raised."""


class PluginIncompatible(PluginError):
    """The plugin was written for another version of the driver API."""


class UsageError(GearshiftError):
    """The library was called in a way that cannot work."""


class MissingExtra(UsageError, ImportError):
    """An optional library is not installed; the hint is the install command."""


class Closed(UsageError):
    """The bus, producer or consumer was closed before."""


class Forked(UsageError):
    """A connection was made in the parent of this process; open a bus after the fork."""


class BlockingInEventLoop(UsageError):
    """A blocking call on a thread that runs an event loop; use ``submit`` or a worker thread."""


class InvalidMessage(GearshiftError, ValueError):
    """The message was refused before it left the process; nothing is stored."""


class MessageTooLarge(InvalidMessage):
    """The body is over the backend's limit; the text gives both sizes."""


class EncodeError(InvalidMessage):
    """The channel's codec cannot turn this value into bytes."""


class DecodeError(GearshiftError, ValueError):
    """A received body is not what its content type or the requested type says."""


class NotSupported(GearshiftError):
    """The backend cannot do this for the channel's semantics; raised before any effect."""


class TopologyError(GearshiftError):
    """A channel or group is not what the program expects."""


class UnknownChannel(TopologyError):
    """The channel does not exist, and this open may not create it."""


class UnknownGroup(TopologyError):
    """A queue channel does not declare this group."""


class TopologyConflict(TopologyError):
    """It exists with other properties; the text shows those that differ."""


class ConnectionFailed(GearshiftError, ConnectionError):
    """The broker cannot be reached, or the connection broke."""

    retryable = True


class AuthenticationFailed(ConnectionFailed):
    """The broker refused the credentials or the virtual host."""

    retryable = False


class PermissionDenied(GearshiftError):
    """The broker let this user in, and does not let it do this: permissions, ACLs."""


class PublishError(GearshiftError):
    """A message was not, or perhaps not, stored."""


class PublishRefused(PublishError):
    """The broker said no; nothing is stored. ``retryable`` says whether waiting may help."""


class Unroutable(PublishError):
    """No queue or partition would have received it; nothing is stored."""


class BackpressureError(PublishError):
    """There was no room for it before the deadline; nothing is stored."""

    retryable = True


class OutcomeUnknown(PublishError):
    """It may or may not be stored. Sending the same id again makes a recognisable duplicate."""

    retryable = True

    def __init__(self, message: str, *, message_id: str | None = None, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.message_id = message_id


class SendFailed(PublishError):
    """Some messages of a ``send_many`` have no receipt.

    ``results`` has an entry for each message, in order: its Receipt, or the error that it met.
    """

    def __init__(self, results: list[Receipt | GearshiftError]) -> None:
        self.results = results
        failed = [result for result in results if isinstance(result, GearshiftError)]
        super().__init__(
            f"{len(failed)} of {len(results)} messages were not confirmed; the first: {failed[0]}",
            hint="see .results for each, or pass raise_on_error=False",
            retryable=all(error.retryable for error in failed),
        )


class SettleError(GearshiftError):
    """A delivery cannot be settled."""


class AlreadySettled(SettleError):
    """A delivery is settled once."""


class StaleDelivery(SettleError):
    """Its lease, assignment or connection is gone; nothing was settled and it will come again."""


class DeadlineExceeded(GearshiftError, TimeoutError):
    """The awaited event did not happen in ``timeout_s``."""

    retryable = True


class BackendFailure(GearshiftError):
    """The client library raised something that its driver could not classify."""
