"""What a plain AMQP client can see of a cluster and of the copies in it.

It sees which nodes take connections, what cluster each says it belongs to, and which of them has a
running replica of a stream: the others refuse to read it. Members and leaders it does not see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pika import exceptions

from gearshift.driver import ChannelSpec, Condition
from gearshift.message import Semantics
from gearshift_rabbitmq.connection import Link, Rpc
from gearshift_rabbitmq.errors import has_no_replica
from gearshift_rabbitmq.settings import RabbitSettings
from gearshift_rabbitmq.stream.layout import Layout
from gearshift_rabbitmq.topology import Topology, waiting

__all__ = ["conditions"]

_FAILURE = "if it has three members, it goes on without any one node; with one, it stops"


def conditions(settings: RabbitSettings, channels: Sequence[ChannelSpec]) -> list[Condition]:
    """State of the nodes in ``settings`` and of ``channels``. Connects to each node; blocks."""
    with contextlib.ExitStack() as stack:
        links: dict[str, Link] = {}
        away: list[str] = []
        for host, port in settings.endpoints():
            place = f"{host}:{port}"
            try:
                links[place] = link = Link(settings.only(host, port), "doctor")
            except Exception:  # whatever it is, the step before has told of it
                away.append(place)
            else:
                stack.callback(link.close, 1.0)
        found = list(_cluster(links, away))
        for channel in channels:
            found += _channel(links, channel) if links else ()
        return found


def _cluster(links: Mapping[str, Link], away: Sequence[str]) -> Iterator[Condition]:
    names = {_told(link, "cluster_name") for link in links.values()}
    releases = sorted({_told(link, "version") for link in links.values()})
    text = (
        f"cluster: {len(links)} of {len(links) + len(away)} nodes in the settings take connections"
        f", {' and '.join(sorted(names))}, RabbitMQ {' and '.join(releases)}; how many nodes it has"
        " and whether they see one another is unknown over AMQP: rabbitmqctl cluster_status"
    )
    hint = None
    if away:
        text += f"; not {', '.join(away)}"
        hint = "start them, or take them out of hosts"
    elif len(names) > 1:
        hint = "url and hosts are nodes of different clusters; name those of one"
    yield Condition("cluster", text, hint)


def _channel(links: Mapping[str, Link], channel: ChannelSpec) -> Iterator[Condition]:
    link = next(iter(links.values()))
    if channel.semantics is Semantics.STREAM:
        layout = Layout.of(channel)
        names = [layout.partition(number) for number in range(layout.partitions)]
        for name in names:
            if waiting(link, name) is not None:
                yield _stream(links, channel.name, name)
        return
    topology = Topology.of(channel)
    for name in dict.fromkeys(topology.queue(group) for group in channel.groups):
        if waiting(link, name) is not None:
            text = f"queue {name!r}: members, leader and online members are unknown over AMQP"
            see = f"rabbitmq-queues quorum_status {name!r}"
            yield Condition(channel.name, f"{text}: {see}; {_FAILURE}")


def _stream(links: Mapping[str, Link], channel: str, name: str) -> Condition:
    has = [place for place, link in links.items() if _has_replica(link, name)]
    text = (
        f"stream {name!r}: replicas run on {len(has)} of {len(links)} nodes that were asked; its "
        f"leader is unknown over AMQP: rabbitmq-streams stream_status {name!r}"
    )
    if len(links) < 2:
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


def _has_replica(link: Link, stream: str) -> bool:
    """Whether the stream can be read over this node."""
    rpc = Rpc(link)
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


def _told(link: Link, what: str) -> str:
    value: Any = (link.connection.server_properties or {}).get(what, "?")
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
