"""A RabbitMQ that may be killed."""

from __future__ import annotations

from native_brokers import RabbitMQ

__all__ = ["write_names"]


def write_names(broker: RabbitMQ) -> None:
    """Have the broker write the names of its quorum queues to disk.

    RabbitMQ 3.10 does so up to a second after it answers a declaration; killed before that, it
    comes back with a queue that never elects a leader.
    """
    broker.evaluate("[dets:sync(Table) || Table <- dets:all()]")
