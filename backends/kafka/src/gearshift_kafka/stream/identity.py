"""Noticing that a topic is another one of the same name, in which offsets mean other messages."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from gearshift_kafka.admin_client import REQUEST_S

__all__ = ["TopicIdentity"]


class TopicIdentity:
    """The id of ``topic``, asked for when this is made. One thread; blocks for an answer.

    Each question has a client of its own, for they are rare.
    """

    def __init__(self, connect: Callable[[], AdminClient], topic: str) -> None:
        self._connect = connect
        self._topic = topic
        self._id = self._ask()

    def has_changed(self) -> bool:
        """True if the topic was deleted and made again since it was asked for; told once.

        False if there is no answer, which takes about 3 s at most.
        """
        before, now = self._id, self._ask()
        self._id = now or before
        return before is not None and self._id != before

    def _ask(self) -> str | None:
        client = self._connect()
        asked = client.describe_topics(TopicCollection([self._topic]), request_timeout=REQUEST_S)
        try:
            return str(asked[self._topic].result(REQUEST_S + 1.0).topic_id)
        except (KafkaException, TimeoutError):
            return None
