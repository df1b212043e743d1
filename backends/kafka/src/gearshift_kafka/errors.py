"""librdkafka's errors as Gearshift's: the one place that knows its codes."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from gearshift.driver import Stored
from gearshift.errors import (
    AuthenticationFailed,
    BackendFailure,
    BackpressureError,
    ConfigError,
    ConnectionFailed,
    GearshiftError,
    MessageTooLarge,
    NotSupported,
    OutcomeUnknown,
    PermissionDenied,
    PublishRefused,
    TopologyConflict,
    UnknownChannel,
)

__all__ = [
    "CORRUPT",
    "GONE",
    "LACKS_PROTOCOL",
    "REFUSED_ACCESS",
    "TRANSIENT",
    "UNKNOWN_TOPIC",
    "classify",
    "code_of",
    "stored",
]

_E = KafkaError

#: The broker is there, and still loads what it keeps of groups and transactions.
_STARTING = frozenset((
    _E.COORDINATOR_LOAD_IN_PROGRESS, _E.COORDINATOR_NOT_AVAILABLE, _E.NOT_COORDINATOR,
))  # fmt: skip

#: The connection, a leader or the coordinator is away; the client tries again by itself.
TRANSIENT = _STARTING | frozenset((
    _E._TRANSPORT, _E._ALL_BROKERS_DOWN, _E._RESOLVE, _E._TIMED_OUT, _E._TIMED_OUT_QUEUE,
    _E._WAIT_COORD, _E._DESTROY, _E._DESTROY_BROKER, _E._STATE, _E.BROKER_NOT_AVAILABLE,
    _E.LEADER_NOT_AVAILABLE, _E.NOT_LEADER_FOR_PARTITION, _E.REPLICA_NOT_AVAILABLE,
    _E.PREFERRED_LEADER_NOT_AVAILABLE, _E.REQUEST_TIMED_OUT, _E.NETWORK_EXCEPTION,
    _E.NOT_CONTROLLER, _E.OFFSET_NOT_AVAILABLE, _E.UNKNOWN_LEADER_EPOCH, _E.FENCED_LEADER_EPOCH,
    _E.KAFKA_STORAGE_ERROR, _E.FETCH_SESSION_ID_NOT_FOUND, _E.INVALID_FETCH_SESSION_EPOCH,
    _E.UNSTABLE_OFFSET_COMMIT, _E.STALE_BROKER_EPOCH, _E.REBALANCE_IN_PROGRESS,
    _E.STALE_MEMBER_EPOCH,
))  # fmt: skip

#: A commit came after the assignment had ended: somebody else has the partition by now.
GONE = frozenset((
    _E.UNKNOWN_MEMBER_ID, _E.ILLEGAL_GENERATION, _E.FENCED_MEMBER_EPOCH, _E._ASSIGNMENT_LOST,
))  # fmt: skip

#: What no waiting inside the client mends, because somebody has to change something.
REFUSED_ACCESS = frozenset((
    _E._AUTHENTICATION, _E._SSL, _E.SASL_AUTHENTICATION_FAILED, _E.UNSUPPORTED_SASL_MECHANISM,
    _E.ILLEGAL_SASL_STATE,
))  # fmt: skip

UNKNOWN_TOPIC = frozenset((
    _E.UNKNOWN_TOPIC_OR_PART, _E._UNKNOWN_TOPIC, _E._UNKNOWN_PARTITION, _E.UNKNOWN_TOPIC_ID,
    _E.TOPIC_EXCEPTION,
))  # fmt: skip

#: A stored batch that this client cannot read, however often it tries.
CORRUPT = frozenset((_E._BAD_MSG, _E._BAD_COMPRESSION, _E._UNDERFLOW, _E.INVALID_MSG))

#: How a broker without KIP-848, or with it turned off, answers a member that uses it.
LACKS_PROTOCOL = frozenset((_E.UNSUPPORTED_VERSION, _E._UNSUPPORTED_FEATURE))

#: What ends a member's client. It tells only that something did, with the text of these.
_FATAL_TO_MEMBERS = (_E.UNRELEASED_INSTANCE_ID, _E.FENCED_INSTANCE_ID, _E.GROUP_ID_NOT_FOUND)

#: There is no such group of the kind that a member asks for; it is made unless the id is taken.
_OTHER_KIND = frozenset((_E.GROUP_ID_NOT_FOUND, _E.INCONSISTENT_GROUP_PROTOCOL))

_FORBIDDEN = frozenset((
    _E.TOPIC_AUTHORIZATION_FAILED, _E.GROUP_AUTHORIZATION_FAILED,
    _E.CLUSTER_AUTHORIZATION_FAILED,
))  # fmt: skip

_TOO_LARGE = frozenset((_E.MSG_SIZE_TOO_LARGE, _E.RECORD_LIST_TOO_LARGE))

_REFUSED = frozenset((
    _E.INVALID_MSG, _E.INVALID_MSG_SIZE, _E.INVALID_RECORD, _E.INVALID_TIMESTAMP,
    _E.POLICY_VIOLATION, _E.UNSUPPORTED_FOR_MESSAGE_FORMAT, _E.UNSUPPORTED_COMPRESSION_TYPE,
    _E.INVALID_REQUIRED_ACKS, _E._INVALID_ARG,
))  # fmt: skip

#: Taken back when a driver is closed: core sends it again through the next one.
_PURGED = frozenset((_E._PURGE_QUEUE, _E._PURGE_INFLIGHT))

_NEVER_STORED = _REFUSED | _TOO_LARGE | UNKNOWN_TOPIC | _FORBIDDEN


def code_of(error: object) -> int | None:
    """librdkafka's error code, if ``error`` carries one."""
    inner = _inner(error)
    return None if inner is None else inner.code()


def stored(error: KafkaError) -> Stored:
    """Whether the message of a failed delivery report may be stored.

    NO only for codes with which neither client nor broker can have written it. One that timed out
    or was purged, even from the client's queue, may have been written by an earlier attempt whose
    answer was lost: the client does not tell the two apart.
    """
    return Stored.NO if error.code() in _NEVER_STORED else Stored.UNKNOWN


def classify(
    error: Exception,
    servers: str,
    *,
    protocol_is_chosen: bool = True,
    instance_id: str | None = None,
) -> GearshiftError | None:
    """See Backend.classify. ``servers`` is host:port, for texts, as is ``instance_id``.

    Without ``protocol_is_chosen`` a broker that lacks KIP-848 is no end: the next driver does
    without it.
    """
    if isinstance(error, BufferError):
        return BackpressureError("the client's send buffer is full")
    inner = _inner(error)
    if inner is None:
        return None
    return (
        _of_membership(inner, instance_id)
        or _of_access(inner, servers, protocol_is_chosen)
        or _of_message(inner, servers)
    )


def _inner(error: object) -> KafkaError | None:
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    if not isinstance(error, KafkaError):
        return None
    if error.code() == _E._FATAL:
        for code in _FATAL_TO_MEMBERS:
            if KafkaError(code).str() in error.str():
                return KafkaError(code, error.str())
    return error


def _of_membership(error: KafkaError, instance_id: str | None) -> GearshiftError | None:
    """Errors of two members, or two groups, that are called the same."""
    if error.code() in _OTHER_KIND:
        return TopologyConflict(
            f"the broker has a group of this id that is of another kind: {error.str()}",
            hint="a stream that has become a queue, or a queue a stream, needs another group or "
            "channel name, or the old group deleted at the broker",
            retryable=True,
        )
    if error.code() == _E.UNRELEASED_INSTANCE_ID:
        return ConnectionFailed(
            f"group_instance_id {instance_id!r}: another consumer of the group uses it, or one "
            "that was killed, whose session is not over yet",
            hint="it is waited for; give each process its own",
        )
    if error.code() == _E.FENCED_INSTANCE_ID:
        return ConfigError(
            f"group_instance_id {instance_id!r}: another consumer of the group uses it: "
            f"{error.str()}",
            hint="give each process its own",
        )
    return None


def _of_access(error: KafkaError, servers: str, protocol_is_chosen: bool) -> GearshiftError | None:
    """Errors of reaching the broker and being let in."""
    code, text = error.code(), error.str()
    if code in REFUSED_ACCESS:
        return _access_refused(code, servers, text)
    if code in LACKS_PROTOCOL and protocol_is_chosen:
        return NotSupported(
            f"{servers} lacks the group protocol of KIP-848: {text}",
            hint='set group_protocol = "classic" in the profile',
        )
    if code in _FORBIDDEN:
        return PermissionDenied(
            f"the broker's ACLs forbid it: {text}", hint="ask for the permission"
        )
    if code in _STARTING:
        return ConnectionFailed(
            f"{servers} is up, but not ready for groups and transactions: {text}",
            hint="it may have just started: try again",
        )
    if code in TRANSIENT | GONE | _PURGED | LACKS_PROTOCOL or error.fatal():
        return ConnectionFailed(f"no connection to {servers}: {text}", hint="is the broker up?")
    return None


def _access_refused(code: int, servers: str, text: str) -> AuthenticationFailed:
    if "certificate verify failed" in text:
        return AuthenticationFailed(
            f"the certificate of {servers} is not trusted: {text}",
            hint="set tls_ca_file to the certificate of its authority, and bootstrap_servers to "
            "the names that the certificate is for",
        )
    if "mechanism handshake failed" in text or code == _E.UNSUPPORTED_SASL_MECHANISM:
        return AuthenticationFailed(
            f"{servers} does not offer this SASL mechanism: {text}",
            hint="set sasl_mechanism to one that it supports, or use its port for SASL",
        )
    if code == _E._SSL:
        return AuthenticationFailed(
            f"no TLS connection with {servers}: {text}", hint="check tls* of the profile"
        )
    return AuthenticationFailed(
        f"{servers} refused the credentials: {text}",
        hint="check sasl_username and sasl_password of the profile",
    )


def _of_message(error: KafkaError, servers: str) -> GearshiftError:
    """Errors of what was asked for."""
    code, text = error.code(), error.str()
    if code in UNKNOWN_TOPIC:
        return UnknownChannel(
            f"the topic does not exist: {text}", hint="create it, or check the name"
        )
    if code in _TOO_LARGE:
        return MessageTooLarge(
            f"the message is over the topic's max.message.bytes: {text}",
            hint="raise max.message.bytes of the topic, and message.max.bytes in native.producer "
            "of the profile if you set it; or store the body elsewhere",
        )
    if code == _E._MSG_TIMED_OUT:
        return OutcomeUnknown(f"not confirmed within delivery_timeout_s: {text}")
    if code == _E._QUEUE_FULL:
        return BackpressureError("the client's send buffer is full")
    if code in (_E.TOPIC_ALREADY_EXISTS, _E.INVALID_PARTITIONS):
        return TopologyConflict(text)
    if code == _E._INVALID_ARG:
        return ConfigError(f"the client refused a setting: {text}")
    if code in CORRUPT:
        return BackendFailure(
            f"a stored batch cannot be read: {text}", hint="seek past it, or mend it at the broker"
        )
    compacted = "a topic with cleanup.policy=compact takes messages with a key only"
    return PublishRefused(
        f"refused by {servers}: {text}",
        hint=compacted if code == _E.INVALID_RECORD else None,
        retryable=error.retriable(),
    )
