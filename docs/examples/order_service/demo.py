"""Runs the order service for real: many orders, four processes, one killed, one poison order.

    python docs/examples/order_service/demo.py [embedded|rabbit|kafka|redis] [ORDERS]

Sends the orders, starts the service under its supervisor, kills a worker process half-way with
SIGKILL, waits until both groups are done, and accounts for every order from the journal. Ends with
exit code 1 if one is missing, and deletes its channels in any case. Without RABBITMQ_URL or
KAFKA_BOOTSTRAP it starts that broker itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gearshift
from gearshift.operations.cleanup import delete_channels

HERE = Path(__file__).resolve().parent
SETTINGS = HERE / "gearshift.toml"
GROUPS = ("billing", "audit")
POISON = 13
DEADLINE_S = 180.0


@dataclass
class Account:
    """What the journal says, per group: order → how often it was processed."""

    processed: dict[str, Counter[int]] = field(
        default_factory=lambda: {g: Counter() for g in GROUPS}
    )
    flagged: Counter[str] = field(default_factory=Counter)
    processes: set[str] = field(default_factory=set)

    @staticmethod
    def read(journal: Path) -> Account:
        account = Account()
        for line in journal.read_text().splitlines() if journal.exists() else ():
            group, order, _cents, _attempt, seen, pid = line.split()
            account.processed[group][int(order)] += 1
            account.flagged[group] += seen == "again"
            account.processes.add(pid)
        return account

    def missing(self, group: str, expected: set[int]) -> set[int]:
        return expected - self.processed[group].keys()

    def duplicates(self, group: str) -> int:
        return self.processed[group].total() - len(self.processed[group])


def expected(group: str, orders: int) -> set[int]:
    """Orders that ``group`` must have processed: all, but billing cannot charge the poison one."""
    return set(range(orders)) - ({POISON} if group == "billing" else set())


def send(orders: int) -> float:
    """Send all orders, confirmed; returns the seconds that it took."""
    started = time.monotonic()
    with gearshift.open(SETTINGS) as bus, bus.producer("orders") as producer:
        values = (
            {"order_id": n, "customer": f"c{n % 97}", "cents": 0 if n == POISON else 100 + n % 900}
            for n in range(orders)
        )
        producer.send_many(values, key_by=lambda order: order["customer"])
    return time.monotonic() - started


def run_service(data: Path, orders: int, log: Path) -> tuple[int, float, list[tuple[int, str]]]:
    """Run four worker processes, kill one half-way.

    Returns its pid, the seconds in all, and the dead letters, the first of which is waited for.
    """
    command = [str(Path(sys.executable).with_name("gearshift")), "--config", str(SETTINGS)]
    command += ["run", "service:app", "--processes", "4"]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    started = time.monotonic()
    killed = 0
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=HERE, env=environment, stderr=output, stdout=output
        ) as service,
    ):
        try:
            for account in _watch(data, started):
                done = sum(len(account.processed[g]) for g in GROUPS)
                _progress(done, 2 * orders - 1)
                if not killed and done > orders * 0.6:
                    killed = _kill_one(account, service.pid)
                if killed and not any(account.missing(g, expected(g, orders)) for g in GROUPS):
                    break
            letters = dead_letters()
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(60)
    return killed, time.monotonic() - started, letters


def _watch(data: Path, started: float) -> Iterator[Account]:
    while time.monotonic() - started < DEADLINE_S:
        time.sleep(0.2)
        yield Account.read(data / "journal.txt")


def _kill_one(account: Account, supervisor: int) -> int:
    """SIGKILL one worker that has been working, which the supervisor will replace."""
    for pid in map(int, account.processes):
        if pid != supervisor:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid
    return 0


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {done}/{total} processed", end="", file=sys.stderr, flush=True)


def dead_letters() -> list[tuple[int, str]]:
    """Order and reason of each dead letter."""
    with gearshift.open(SETTINGS) as bus, bus.consumer("orders.dead") as consumer:
        consumer.ready()
        found: list[tuple[int, str]] = []
        # The first may still wait for its last attempt.
        while deliveries := consumer.receive(timeout_s=1.0 if found else 30.0):
            letter = deliveries[0]
            found.append((letter.value["order_id"], str(letter.headers["dead-letter-reason"])))
            letter.ack()
        return found


@contextlib.contextmanager
def broker(profile: str) -> Iterator[None]:
    """The broker that the profile needs, started here unless its address is given."""
    variables = {"rabbit": "RABBITMQ_URL", "kafka": "KAFKA_BOOTSTRAP", "redis": "REDIS_URL"}
    variable = variables.get(profile)
    if variable is None or variable in os.environ:
        yield
        return
    sys.path.insert(0, str(HERE.parents[2] / "compose"))
    from native_brokers import Kafka, RabbitMQ, Redis

    kind = {"rabbit": RabbitMQ, "kafka": Kafka, "redis": Redis}[profile]
    print(f"starting {kind.__name__} (set {variable} to use your own)", flush=True)
    with kind() as server:
        os.environ[variable] = server.url
        yield


def report(
    orders: int,
    killed: int,
    sent_s: float,
    worked_s: float,
    letters: list[tuple[int, str]],
    data: Path,
) -> bool:
    """Print what became of every order; True if nothing is lost."""
    account = Account.read(data / "journal.txt")
    lost = 0
    print(f"sent       {orders} orders, confirmed, in {sent_s:.1f} s")
    print(f"killed     worker process {killed} with SIGKILL")
    for group in GROUPS:
        missing = account.missing(group, expected(group, orders))
        lost += len(missing)
        print(
            f"{group:10} {len(account.processed[group])} processed, "
            f"{account.duplicates(group)} twice ({account.flagged[group]} flagged redelivered), "
            f"{len(missing)} lost"
        )
    for order, reason in letters:
        print(f"dead       order {order}: {reason}")
    poison_ok = [order for order, _ in letters] == [POISON]
    verdict = "nothing was lost" if not lost and poison_ok and killed else "SOMETHING IS WRONG"
    print(f"verdict    {verdict}, in {worked_s:.1f} s")
    return verdict == "nothing was lost"


def main(profile: str = "embedded", orders: str = "5000") -> int:
    logging.basicConfig(level=logging.ERROR)
    count = int(orders)
    with tempfile.TemporaryDirectory(prefix="order-service-") as folder, broker(profile):
        data = Path(folder)
        os.environ["ORDER_SERVICE_DATA"] = folder
        os.environ["GEARSHIFT_PROFILE"] = profile
        with gearshift.open(SETTINGS) as bus:
            print(f"profile    {profile}: {bus.server()}, orders are a {bus.semantics('orders')}")
        try:
            sent_s = send(count)
            killed, worked_s, letters = run_service(data, count, data / "service.log")
        finally:
            with gearshift.open(SETTINGS) as bus:
                for problem in delete_channels(bus, "orders"):
                    print(problem, file=sys.stderr)
        if report(count, killed, sent_s, worked_s, letters, data):
            return 0
        print((data / "service.log").read_text()[-4000:], file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
