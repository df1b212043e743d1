"""What a plain AMQP client can see of a cluster and of the copies in it.

It sees which nodes take connections, what cluster each says it belongs to, and which of them has a
running replica of a stream: the others refuse to read it. Members and leaders it does not see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from pika import exceptions

from gearshift.driver import ChannelSpec, Condition
from gearshift.message import Semantics
from gearshift_rabbitmq.connection import Connection
from gearshift_rabbitmq.errors import has_no_replica
from gearshift_rabbitmq.queue.broker_dead_letters import given_up, told
from gearshift_rabbitmq.queue.names import QueueNames, undeliverable
from gearshift_rabbitmq.rpc import Rpc, find
from gearshift_rabbitmq.settings import Settings
from gearshift_rabbitmq.stream.names import StreamNames

__all__ = ["conditions"]

_FAILURE = "if it has three members, it goes on without any one node; with one, it stops"


def conditions(settings: Settings, channels: Sequence[ChannelSpec]) -> list[Condition]:
    """State of the nodes in ``settings`` and of ``channels``. Connects to each node; blocks."""
    with contextlib.ExitStack() as stack:
        connections: dict[str, Connection] = {}
        away: list[str] = []
        for host, port in settings.endpoints():
            place = f"{host}:{port}"
            try:
                connections[place] = connection = Connection(settings.only(host, port), "doctor")
            except Exception:  # of any kind; an earlier step of doctor has reported it
                away.append(place)
            else:
                stack.callback(connection.close, 1.0)
        found = list(_cluster(connections, away))
        for channel in channels:
            found += _channel(connections, channel) if connections else ()
        return found


def _cluster(connections: Mapping[str, Connection], away: Sequence[str]) -> Iterator[Condition]:
    names = {connection.server("cluster_name") for connection in connections.values()}
    releases = sorted({connection.server("version") for connection in connections.values()})
    count = f"{len(connections)} of {len(connections) + len(away)} nodes in the settings"
    text = (
        f"cluster: {count} take connections, {' and '.join(sorted(names))}, "
        f"RabbitMQ {' and '.join(releases)}; how many nodes it has and whether they see one "
        "another is unknown over AMQP: rabbitmqctl cluster_status"
    )
    hint = None
    if away:
        text += f"; not {', '.join(away)}"
        hint = "start them, or take them out of hosts"
    elif len(names) > 1:
        hint = "url and hosts are nodes of different clusters; name those of one"
    yield Condition("cluster", text, hint)


def _channel(connections: Mapping[str, Connection], channel: ChannelSpec) -> Iterator[Condition]:
    connection = next(iter(connections.values()))
    if channel.semantics is Semantics.STREAM:
        stream = StreamNames.of(channel)
        for name in map(stream.partition, range(stream.partitions)):
            if find(connection, "queue", name) is not None:
                yield _stream(connections, channel.name, name)
        return
    names = QueueNames.of(channel)
    for name in dict.fromkeys(names.queue(group) for group in channel.groups):
        if find(connection, "queue", name) is not None:
            text = f"queue {name!r}: members, leader and online members are unknown over AMQP"
            see = f"rabbitmq-queues quorum_status {name!r}"
            yield Condition(channel.name, f"{text}: {see}; {_FAILURE}")
        if names.adopted_queue is None and (count := given_up(connection, name)):
            adopt = f'native.rabbitmq = {{ queue = "{undeliverable(name)}" }}'
            hint = f"see rabbitmqctl list_policies; read them as a channel with {adopt}"
            yield Condition(channel.name, f"queue {name!r}: {told(count)}", hint)


def _stream(connections: Mapping[str, Connection], channel: str, name: str) -> Condition:
    has = [place for place, connection in connections.items() if _has_replica(connection, name)]
    text = (
        f"stream {name!r}: replicas run on {len(has)} of {len(connections)} nodes that were asked; "
        f"its leader is unknown over AMQP: rabbitmq-streams stream_status {name!r}"
    )
    if len(connections) < 2:
        return Condition(channel, f"{text}; {_FAILURE}")
    if len(has) < 2:
        text += "; the loss of its node stops it, and of that disk loses all"
        return Condition(channel, text, f"rabbitmq-streams add_replica {name!r} NODE")
    if len(has) < 3:
        return Condition(
            channel,
            f"{text}; the loss of one more node stops it",
            "start the nodes that do not run, or add a replica: rabbitmq-streams add_replica",
        )
    return Condition(channel, f"{text}; it goes on without any one node")


def _has_replica(connection: Connection, stream: str) -> bool:
    """Whether the stream can be read over this node."""
    rpc = Rpc(connection)
    try:
        rpc("basic_qos", prefetch_count=1)
        rpc.consume(stream, _ignore, arguments={"x-stream-offset": "next"})
    except exceptions.ChannelClosedByBroker as error:
        if not has_no_replica(error):
            raise
        return False
    rpc.close()
    return True


def _ignore(*_: object) -> None:
    """What comes is given back with the AMQP channel, which a stream does not mind."""
