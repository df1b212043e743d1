"""Break clusters under load, in every way by itself, and count what plain clients then find.

``make soak-clusters``, or ``python -m soak.clusters [--seconds 300] [--report FILE]
[CLUSTER[:FAULT] ...]``. A cell is one cluster and one fault, done again and again for so many
seconds, under a load of each semantics. What is ``lost`` had a receipt and is not there. ``false
refusals`` are there, and their sends said that they are not stored; a send that ends as
OutcomeUnknown promises nothing. ``unheard s`` is the longest time without a receipt while a
majority was up. FILE keeps all rows as JSON, after each cell, with those of earlier runs that were
not made again; a page beside it, with the suffix .md, shows them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from time import monotonic

from soak.cluster_faults import FAULTS, Fault, Span, Target, upgraded
from soak.cluster_report import Row, kept, table
from support.plain import Found, in_queue, in_topic
from support.waiting import PATIENCE_S

from gearshift import config
from gearshift.conformance import Harness
from gearshift.conformance.checkers import CHECKERS
from gearshift.conformance.history import Event, History, Kind, Phase
from gearshift.conformance.kit import Broken, Kit
from gearshift.conformance.load import Load
from gearshift.conformance.proxy import Proxy
from gearshift.conformance.view import View
from gearshift.message import Semantics
from native_brokers import KafkaCluster, RabbitMQ, RabbitMQ40, RabbitMQ43, RabbitMQCluster

#: Nodes take one that is silent for dead in seconds, not in a minute.
SETTINGS = {"net_ticktime": "10"}
PROFILES = {
    "rabbitmq": 'backend = "rabbitmq"\nheartbeat_s = 5\n'
    'url = "amqp://guest:guest@{first}/%2F"\nhosts = {others}\n',
    "kafka": 'backend = "kafka"\nbootstrap_servers = {all}\n'
    'native.consumer = {{ "max.poll.interval.ms" = 8000 }}\n',
}
#: The group of a RabbitMQ queue that nobody consumes, so that everything stays in it.
KEPT = "kept"


@dataclass(frozen=True)
class Subject:
    """A cluster to be broken: its backend, how it is made of the addresses that clients are given,
    and in which ways it is broken."""

    backend: str
    make: Callable[[Sequence[str]], RabbitMQCluster | KafkaCluster]
    faults: tuple[Fault, ...] = FAULTS


SUBJECTS = {
    "rabbitmq-3.10": Subject("rabbitmq", lambda _: RabbitMQCluster(RabbitMQ, settings=SETTINGS)),
    "rabbitmq-4.3": Subject("rabbitmq", lambda _: RabbitMQCluster(RabbitMQ43, settings=SETTINGS)),
    "kafka-4.4": Subject("kafka", lambda addresses: KafkaCluster(advertised=addresses)),
    "rabbitmq-4.0-to-4.3": Subject(
        "rabbitmq", lambda _: RabbitMQCluster(RabbitMQ40, settings=SETTINGS), (upgraded,)
    ),
}


@contextmanager
def running(subject: Subject) -> Iterator[Target]:
    """The cluster, started, its clients' way to each node over a cable."""
    with ExitStack() as stack:
        cables = [stack.enter_context(Proxy(("127.0.0.1", 0))) for _ in range(3)]
        cluster = subject.make([f"127.0.0.1:{cable.port}" for cable in cables])
        stack.enter_context(cluster)
        for cable, node in zip(cables, cluster.nodes, strict=True):
            cable.target = ("127.0.0.1", node.port)
        yield Target(cluster, cables)


def harness(
    subject: Subject, semantics: Semantics, cables: Sequence[Proxy], folder: Path
) -> Harness:
    """Clients as users have them, who know all nodes and notice soon what is gone."""
    first, *others = addresses = [f"127.0.0.1:{cable.port}" for cable in cables]
    file = folder / "gearshift.toml"
    lines = PROFILES[subject.backend].format(first=first, others=others, all=addresses)
    file.write_text(f"[profiles.kit]\n{lines}")
    return Harness(config=config.load(file), semantics=semantics, patience_s=PATIENCE_S)


def cell(name: str, running: Target, fault: Fault, seconds: float, folder: Path) -> list[Row]:
    """Do ``fault`` for so many seconds under load, then read everything back."""
    subject = SUBJECTS[name]
    kits = [Kit(harness(subject, one, running.cables, folder)) for one in Semantics]
    target = Target(running.cluster, running.cables, kits=kits)
    today = str(date.today())
    rows = [Row(name, str(one), fault.__name__, today, seconds) for one in Semantics]
    try:
        channels = [made(kit, subject) for kit in kits]
        target.names = [leading(subject, *pair) for pair in zip(kits, channels, strict=True)]
        done = load(target, channels, fault, seconds, rows)
        for kit, channel, row in zip(kits, channels, rows, strict=True):
            row.times = done
            judge(target, kit, channel, row)
    finally:
        for kit in kits:
            kit.close()
    return rows


def made(kit: Kit, subject: Subject) -> str:
    """A fresh channel."""
    if kit.is_stream:
        return kit.channel(max_attempts=500, partitions=2)
    groups = ("g", KEPT) if subject.backend == "rabbitmq" else ("g",)
    return kit.channel(max_attempts=500, groups=groups)


def leading(subject: Subject, kit: Kit, channel: str) -> str:
    """What has a leader of all that the channel is."""
    if subject.backend == "kafka":
        return channel
    return f"{channel}:0" if kit.is_stream else f"{channel}.g"


def load(target: Target, channels: list[str], fault: Fault, seconds: float, rows: list[Row]) -> int:
    """Break it under load; how often. What does not go on is noted in all ``rows``."""
    done = 0
    with ExitStack() as stack:
        for kit, channel in zip(target.kits, channels, strict=True):
            target.loads.append(stack.enter_context(Load(kit, channel, batch=20)))
        try:
            target.advance()
            end = monotonic() + seconds
            while done == 0 or (monotonic() < end and fault is not upgraded):
                fault(target)
                target.advance()
                done += 1
        except Exception as error:
            traceback.print_exc()
            for row in rows:
                row.notes.append(f"{type(error).__name__}: {error}"[:300])
            target.heal()
    return done


def judge(target: Target, kit: Kit, channel: str, row: Row) -> None:
    """Hold what was told against what plain clients, and fresh ones of ours, find."""
    published = kit.history.published(channel)
    phases = Counter(event.phase for event in published.values())
    row.sent, row.receipts = len(published), phases[Phase.OK]
    row.unknown, row.refused = phases[Phase.INFO], phases[Phase.FAIL]
    row.unheard_s = unheard_s(kit.history, channel, target.outages)
    early = confirmed_in_silence(kit.history, channel, target.silences)
    if early:
        row.notes.append(f"{early} confirmed without a majority")
    try:
        kit.verify(channel)
    except Broken as broken:
        checkers = Counter(violation.checker for violation in broken.violations)
        row.notes.append(f"group g: {dict(checkers)}, {broken.violations[0]}"[:300])
    for reader, found in read_back(target, kit, channel):
        view = recorded(kit, channel, reader, found)
        row.copies = max(row.copies, len(found) - len({one.id for one in found}))
        row.lost = max(row.lost, count("lost", view, row))
        row.false_refusals = max(row.false_refusals, count("phantom", view, row))
        row.out_of_order = max(row.out_of_order, count("first-delivery-order", view, row))


def read_back(target: Target, kit: Kit, channel: str) -> Iterator[tuple[str, list[Found]]]:
    """What is stored, as often as the cluster may give different answers."""
    if isinstance(target.cluster, KafkaCluster):
        yield "read by a plain client", in_topic(target.cluster, channel)
    elif not kit.is_stream:
        queue = f"{channel}.{KEPT}"
        yield "read by a plain client", in_queue(target.cluster.nodes[0], queue, take=True)
    else:  # from the replica of the node that is asked
        for number, node in enumerate(target.cluster.nodes):
            queues = [f"{channel}:{partition}" for partition in range(2)]
            found = [one for queue in queues for one in in_queue(node, queue)]
            yield f"read from node {number}", found


def recorded(kit: Kit, channel: str, reader: str, found: list[Found]) -> View:
    """``found`` as deliveries to a group of its own, for the kit's checkers."""
    for one in found:
        kit.history.add(
            Event(kind=Kind.DELIVER, who=reader, channel=channel, group=reader, id=one.id)
        )
    return View(
        history=kit.history,
        channel=channel,
        group=reader,
        semantics=kit.harness.semantics,
        capabilities=kit.capabilities,
    )


def count(checker: str, view: View, row: Row) -> int:
    """How many findings there are; the first ones are noted."""
    findings = list(CHECKERS[checker](view))
    row.notes += [f"{view.group}: {finding}" for finding in findings[:3]]
    return len(findings)


def unheard_s(history: History, channel: str, outages: list[Span]) -> float:
    """The longest time between receipts, without what of it was an outage. Seconds."""
    receipts = history.published(channel, Phase.OK).values()
    times = sorted(event.at_ns for event in receipts)
    longest = 0
    for begun, ended in pairwise(times):
        out = sum(max(0, min(ended, until) - max(begun, since)) for since, until in outages)
        longest = max(longest, ended - begun - out)
    return round(longest / 1e9, 1)


def confirmed_in_silence(history: History, channel: str, silences: list[Span]) -> int:
    """How many were both sent and confirmed while nothing could be."""
    begun = {
        event.id: event.at_ns
        for event in history.events(Kind.PUBLISH)
        if event.channel == channel and event.phase is Phase.INVOKE
    }
    receipts = history.published(channel, Phase.OK).values()
    return sum(
        since < begun[event.id] and event.at_ns < until
        for event in receipts
        for since, until in silences
    )


def main() -> int:
    """Run what is asked for, one after the other; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CLUSTER[:FAULT]", default=list(SUBJECTS))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--report", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    wanted: dict[str, list[Fault]] = {}
    for each in arguments.cells:
        name, _, only = each.partition(":")
        faults = [one for one in SUBJECTS[name].faults if only in ("", one.__name__)]
        wanted.setdefault(name, []).extend(faults)
    rows: list[Row] = []
    for name, faults in wanted.items():
        with tempfile.TemporaryDirectory() as folder, running(SUBJECTS[name]) as target:
            for fault in faults:
                more = cell(name, target, fault, arguments.seconds, Path(folder))
                rows += more
                if arguments.report:
                    kept(arguments.report, more)
                print(
                    table(more), *(note for row in more for note in row.notes), sep="\n", flush=True
                )
    print(table(rows))
    return 0 if all(row.is_clean for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
