"""A Start as absolute offsets, asked of the broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

from gearshift.driver import Place, Start, StartAt

__all__ = ["QUERY_TIMEOUT_S", "beginnings", "committed_places", "place", "resolve", "to_commit"]

QUERY_TIMEOUT_S = 4.0


def place(topic: str, offsets: Mapping[int, int]) -> list[TopicPartition]:
    """The client's way to say offset per partition."""
    return [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]


def to_commit(topic: str, places: Mapping[int, Place]) -> list[TopicPartition]:
    """The client's way to say offset and note per partition: a note is an offset's metadata."""
    return [TopicPartition(topic, p, int(at), metadata=at.note) for p, at in places.items()]


def resolve(
    consumer: Consumer, topic: str, partitions: Sequence[int], start: Start
) -> dict[int, int]:
    """The offset that ``start`` means in each partition; those it says nothing of are left out.

    Always absolute and within the log: a client that is told "the end" looks it up later, and one
    that is told an offset past the end goes to the beginning instead. Blocks for some seconds;
    raises KafkaException.
    """
    if not partitions:
        return {}
    if start.at is StartAt.EARLIEST:
        return _lookup(consumer, topic, partitions, OFFSET_BEGINNING)
    if start.at is StartAt.LATEST:
        return _lookup(consumer, topic, partitions, OFFSET_END)
    if start.at is StartAt.TIME:
        return _at_time(consumer, topic, partitions, start.time_ms or 0)
    named = [partition for partition in partitions if partition in start.positions]
    if not named:
        return {}
    low = _lookup(consumer, topic, named, OFFSET_BEGINNING)
    high = _lookup(consumer, topic, named, OFFSET_END)
    return {p: min(max(start.positions[p], low[p]), high[p]) for p in named}


def beginnings(
    consumer: Consumer, topic: str, partitions: Sequence[int], start: Start
) -> dict[int, int]:
    """As ``resolve``; a partition that ``start`` says nothing of begins with its oldest message."""
    found = resolve(consumer, topic, partitions, start)
    rest = [partition for partition in partitions if partition not in found]
    return found | resolve(consumer, topic, rest, Start())


def committed_places(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[int, Place]:
    """The group's place in each partition where it has one. Blocks; raises KafkaException."""
    asked = [TopicPartition(topic, partition) for partition in partitions]
    answers = _checked(consumer.committed(asked, timeout=QUERY_TIMEOUT_S))
    return {
        one.partition: Place(one.offset, one.metadata or "") for one in answers if one.offset >= 0
    }


def _at_time(
    consumer: Consumer, topic: str, partitions: Sequence[int], time_ms: int
) -> dict[int, int]:
    found = _lookup(consumer, topic, partitions, max(0, time_ms))
    later = [partition for partition, offset in found.items() if offset < 0]
    return found | (_lookup(consumer, topic, later, OFFSET_END) if later else {})


def _lookup(consumer: Consumer, topic: str, partitions: Sequence[int], when: int) -> dict[int, int]:
    # The broker's ListOffsets knows the ends of a log as the "times" -1 and -2, which are also
    # the values of OFFSET_END and OFFSET_BEGINNING: one request for all partitions.
    asked = [TopicPartition(topic, partition, when) for partition in partitions]
    answers = _checked(consumer.offsets_for_times(asked, timeout=QUERY_TIMEOUT_S))
    return {answer.partition: answer.offset for answer in answers}


def _checked(answers: Sequence[TopicPartition]) -> Sequence[TopicPartition]:
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers
