"""Asking with the admin client, and waiting, so that no question outlives its client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from gearshift_kafka.errors import TRANSIENT

__all__ = [
    "REQUEST_S",
    "Entries",
    "answer",
    "answers",
    "ask",
    "change",
    "describe",
    "number",
    "suppressed",
]

Entries: TypeAlias = dict[str, ConfigEntry]

T = TypeVar("T")
K = TypeVar("K")

#: The ``request_timeout`` to ask with. The client then always answers, if only with an error.
REQUEST_S = 3.0

_ANSWER_S = 6.0
_PATIENCE_S = 8.0
_AGAIN_S = 0.1


def answer(ask: Callable[[], Future[T]]) -> T:
    """The result of what ``ask`` asks, again while the broker is not ready for it.

    A coordinator loads for a moment after its broker has started, and the leader of a new topic
    may not know yet that it leads, neither of which the client waits for. Blocks for about 11 s
    at most; raises KafkaException. A question that is still open when its client is let go of can
    crash the process (measured), hence ``REQUEST_S``.
    """
    return answers(lambda: {None: ask()})[None]


def answers(
    ask: Callable[[], Mapping[K, Future[T]]], again: Collection[int] = TRANSIENT
) -> dict[K, T]:
    """The same for a question with several answers; all are asked for ``again`` if one fails so."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return {key: future.result(_ANSWER_S) for key, future in ask().items()}
        except KafkaException as error:
            if error.args[0].code() not in again or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        except TimeoutError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None


def ask(question: Callable[..., Mapping[Any, Future[T]]], subject: Any, key: Any = None) -> T:
    """The answer to a question of the admin client about one ``subject``, as ``answer`` gives it.

    ``key`` is what the client files the answer under, if that is not the subject itself.
    """
    key = subject if key is None else key
    return answer(lambda: question([subject], request_timeout=REQUEST_S)[key])


def describe(client: AdminClient, kind: ResourceType, name: str) -> Entries:
    """All settings of a topic, a broker or a group. Blocks as ``answer`` does, and raises so."""
    entries: Entries = ask(client.describe_configs, ConfigResource(kind, name))
    return entries


def number(client: AdminClient, kind: ResourceType, name: str, setting: str) -> int | None:
    """A setting that is a number; None if it is not there, or we may not know. Blocks."""
    try:
        return int(str(describe(client, kind, name)[setting].value))
    except (KafkaException, KeyError, ValueError):
        return None


def change(
    client: AdminClient, kind: ResourceType, name: str, values: Mapping[str, str | None]
) -> None:
    """Change settings; None takes one back. Blocks as ``answer`` does, and raises so."""
    entries = [
        ConfigEntry(
            setting,
            value or "",
            incremental_operation=AlterConfigOpType.DELETE
            if value is None
            else AlterConfigOpType.SET,
        )
        for setting, value in values.items()
    ]
    ask(client.incremental_alter_configs, ConfigResource(kind, name, incremental_configs=entries))


@contextlib.contextmanager
def suppressed(codes: Collection[int]) -> Iterator[None]:
    """Ignore a KafkaException with one of these codes."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() not in codes:
            raise
