"""What librdkafka's errors mean in Gearshift's terms: the one place that knows them."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from gearshift.errors import (
    AuthenticationFailed,
    BackpressureError,
    ConnectionFailed,
    GearshiftError,
    MessageTooLarge,
    NotSupported,
    OutcomeUnknown,
    PublishRefused,
    TopologyConflict,
    UnknownChannel,
)

__all__ = ["classify", "code_of", "is_fatal"]

_CONNECTION = {
    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE,
    KafkaError._TIMED_OUT, KafkaError._DESTROY, KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT, KafkaError._FATAL, KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS, KafkaError._WAIT_COORD, KafkaError.NETWORK_EXCEPTION,
}  # fmt: skip
_AUTHENTICATION = {
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE,
}  # fmt: skip
_UNKNOWN_CHANNEL = {
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_EXCEPTION,
}  # fmt: skip
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}  # fmt: skip


def code_of(error: Exception) -> int | None:
    """librdkafka's error code, if ``error`` carries one."""
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return inner.code() if isinstance(inner, KafkaError) else None


def is_fatal(error: KafkaError) -> bool:
    """True if no waiting inside the client will mend it."""
    return error.fatal() or error.code() in _AUTHENTICATION | _UNKNOWN_CHANNEL | _FORBIDDEN


def classify(error: Exception, servers: str) -> GearshiftError | None:
    """See Backend.classify. ``servers`` is host:port, for texts."""
    if isinstance(error, BufferError):
        return BackpressureError("the client's send buffer is full")
    code = code_of(error)
    if code is None:
        return None
    text = error.args[0].str()
    if code in _AUTHENTICATION:
        return AuthenticationFailed(
            f"{servers} refused the credentials or certificate: {text}",
            hint="check sasl_* and tls* of the profile",
        )
    if code in _CONNECTION:
        return ConnectionFailed(f"no connection to {servers}: {text}", hint="is the broker up?")
    if code in _UNKNOWN_CHANNEL:
        return UnknownChannel(
            f"the topic does not exist: {text}", hint="create it, or check the name"
        )
    if code in _FORBIDDEN:
        return NotSupported(f"the broker's ACLs forbid it: {text}", hint="ask for the permission")
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return MessageTooLarge(f"the message is over the limit of client or topic: {text}")
    if code == KafkaError._MSG_TIMED_OUT:
        return OutcomeUnknown(f"not confirmed within delivery_timeout_s: {text}")
    if code == KafkaError._QUEUE_FULL:
        return BackpressureError("the client's send buffer is full")
    if code in (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS):
        return TopologyConflict(text)
    return PublishRefused(f"refused by the broker: {text}", retryable=error.args[0].retriable())
