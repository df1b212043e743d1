"""Client errors in our words: the one place that knows what librdkafka's codes mean.

``outcome_of`` says what is known of a message whose delivery failed, ``classify`` turns an error
into one of ``gearshift.errors``.
"""

from __future__ import annotations

from typing import Final

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
    PublishRefused,
    UnknownChannel,
)

__all__ = ["TRANSIENT", "assignment_is_gone", "classify", "code_of", "kafka_error", "outcome_of"]

_E = KafkaError

#: The connection, the coordinator or a leader is away; librdkafka tries again by itself.
TRANSIENT: Final = frozenset(
    {
        _E._TRANSPORT,
        _E._ALL_BROKERS_DOWN,
        _E._RESOLVE,
        _E._TIMED_OUT,
        _E._TIMED_OUT_QUEUE,
        _E._WAIT_COORD,
        _E._DESTROY_BROKER,
        _E.BROKER_NOT_AVAILABLE,
        _E.LEADER_NOT_AVAILABLE,
        _E.NOT_LEADER_FOR_PARTITION,
        _E.REPLICA_NOT_AVAILABLE,
        _E.PREFERRED_LEADER_NOT_AVAILABLE,
        _E.REQUEST_TIMED_OUT,
        _E.NETWORK_EXCEPTION,
        _E.COORDINATOR_LOAD_IN_PROGRESS,
        _E.COORDINATOR_NOT_AVAILABLE,
        _E.NOT_COORDINATOR,
        _E.NOT_CONTROLLER,
        _E.OFFSET_NOT_AVAILABLE,
        _E.UNKNOWN_LEADER_EPOCH,
        _E.FENCED_LEADER_EPOCH,
        _E.KAFKA_STORAGE_ERROR,
        _E.FETCH_SESSION_ID_NOT_FOUND,
        _E.INVALID_FETCH_SESSION_EPOCH,
        _E.UNSTABLE_OFFSET_COMMIT,
        _E.STALE_BROKER_EPOCH,
        _E.REBALANCE_IN_PROGRESS,
        _E.STALE_MEMBER_EPOCH,
    }
)

_GONE: Final = frozenset(
    {
        _E.UNKNOWN_MEMBER_ID,
        _E.ILLEGAL_GENERATION,
        _E.FENCED_MEMBER_EPOCH,
        _E._ASSIGNMENT_LOST,
    }
)

_AUTHENTICATION: Final = frozenset(
    {
        _E._AUTHENTICATION,
        _E._SSL,
        _E.SASL_AUTHENTICATION_FAILED,
        _E.UNSUPPORTED_SASL_MECHANISM,
        _E.ILLEGAL_SASL_STATE,
    }
)

_UNKNOWN_TOPIC: Final = frozenset(
    {
        _E.UNKNOWN_TOPIC_OR_PART,
        _E._UNKNOWN_TOPIC,
        _E._UNKNOWN_PARTITION,
        _E.UNKNOWN_TOPIC_ID,
        _E.TOPIC_EXCEPTION,
    }
)

_TOO_LARGE: Final = frozenset({_E.MSG_SIZE_TOO_LARGE, _E.RECORD_LIST_TOO_LARGE})

#: The broker, or the client before sending, said no to this message.
_REFUSED: Final = frozenset(
    {
        _E.TOPIC_AUTHORIZATION_FAILED,
        _E.CLUSTER_AUTHORIZATION_FAILED,
        _E.INVALID_MSG,
        _E.INVALID_MSG_SIZE,
        _E.INVALID_RECORD,
        _E.INVALID_TIMESTAMP,
        _E.POLICY_VIOLATION,
        _E.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        _E.UNSUPPORTED_COMPRESSION_TYPE,
        _E.INVALID_REQUIRED_ACKS,
        _E._INVALID_ARG,
        _E._KEY_SERIALIZATION,
        _E._VALUE_SERIALIZATION,
    }
)

_DENIED: Final = frozenset(
    {
        _E.TOPIC_AUTHORIZATION_FAILED,
        _E.GROUP_AUTHORIZATION_FAILED,
        _E.CLUSTER_AUTHORIZATION_FAILED,
    }
)

_CORRUPT: Final = frozenset({_E._BAD_MSG, _E._BAD_COMPRESSION, _E._UNDERFLOW, _E.INVALID_MSG})

_UNSURE: Final = frozenset({_E._MSG_TIMED_OUT, _E._PURGE_QUEUE, _E._PURGE_INFLIGHT})

#: Nothing was written to a log: the codes above, wherever they end a delivery.
_NOT_STORED: Final = _REFUSED | _TOO_LARGE | _UNKNOWN_TOPIC


def kafka_error(error: object) -> KafkaError | None:
    """The client's KafkaError inside ``error``, if there is one."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def code_of(error: object) -> int | None:
    """The code of a client error; None for any other error."""
    inner = kafka_error(error)
    return None if inner is None else inner.code()


def assignment_is_gone(error: KafkaError) -> bool:
    """True if a commit failed because this member does not own the partition any more."""
    return error.code() in _GONE


def outcome_of(error: KafkaError) -> Stored:
    """What a failed delivery report says of the message.

    Only codes with which neither client nor broker can have stored it mean NO. A message that
    timed out or was purged may have been written in an attempt whose answer was lost.
    """
    return Stored.NO if error.code() in _NOT_STORED else Stored.UNKNOWN


def classify(error: Exception, *, protocol_is_chosen: bool = False) -> GearshiftError | None:
    """Ours for one of the client's errors; None for an error that is not the client's.

    ``protocol_is_chosen``: the settings name a group protocol, so another one will not be tried.
    """
    if isinstance(error, BufferError):
        return BackpressureError("the client's queue is full", hint="send less at a time")
    inner = kafka_error(error)
    return None if inner is None else _classify(inner, protocol_is_chosen)


def _classify(error: KafkaError, protocol_is_chosen: bool) -> GearshiftError:
    code, text = error.code(), error.str()
    if code in _AUTHENTICATION:
        return AuthenticationFailed(
            f"the broker or its certificate was refused: {text}",
            hint="check sasl_mechanism, sasl_username, sasl_password and the tls settings",
        )
    if code == _E.UNSUPPORTED_VERSION or code == _E._UNSUPPORTED_FEATURE:
        return _unsupported(text, protocol_is_chosen)
    if code in _UNKNOWN_TOPIC:
        return UnknownChannel(f"no such topic: {text}", hint="declare the channel, or mend its name")
    if code in _TOO_LARGE:
        return MessageTooLarge(
            f"the broker or the client takes no message of this size: {text}",
            hint="raise max.message.bytes of the topic and message.max.bytes in native.producer",
        )
    return _by_effect(error, code, text)


def _unsupported(text: str, protocol_is_chosen: bool) -> GearshiftError:
    if protocol_is_chosen:
        return NotSupported(
            f"this broker lacks the group protocol of KIP-848: {text}",
            hint='set group_protocol = "classic", or "auto"',
        )
    return ConnectionFailed(f"this broker lacks a feature, trying without it: {text}")


def _by_effect(error: KafkaError, code: int, text: str) -> GearshiftError:
    if code in _UNSURE:
        return OutcomeUnknown(f"not confirmed in time: {text}")
    if code in TRANSIENT or code in _GONE or error.fatal():
        return ConnectionFailed(f"{text} ({error.name()})")
    if code == _E.NOT_ENOUGH_REPLICAS:
        return PublishRefused(text, hint="too few replicas are in sync", retryable=True)
    if code in _CORRUPT:
        return BackendFailure(f"a stored batch cannot be read: {text}", hint="seek past it")
    if code == _E._INVALID_ARG:
        return ConfigError(f"the client refused a setting: {text}")
    if code in _REFUSED or code in _DENIED:
        return PublishRefused(f"{text} ({error.name()})")
    return BackendFailure(f"{text} ({error.name()})", retryable=error.retriable())
