"""Dead letters go back to the group in which they died, once, on every broker."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import ack_all, redrive_all, take, until

import gearshift
from gearshift.operations.redrive import redrive

GROUPS = ("billing", "audit", "mail")

#: Redrives in batches of five and is killed by SIGKILL after the first.
KILLED = """
import os, signal, gearshift
from gearshift.operations import redrive
redrive._BATCH = 5
with gearshift.open() as bus:
    redrive.redrive(bus, "orders", on_moved=lambda moved: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.fixture(
    params=[
        "memory", "sqlite:queue", "sqlite:stream",
        *(
            pytest.param(column, marks=[pytest.mark.broker, pytest.mark.timeout(240)])
            for column in ("rabbitmq:queue", "rabbitmq:stream", "kafka:stream", "kafka:queue",
                           "redis:queue")
        ),
    ]
)  # fmt: skip
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gearshift.Bus]:
    """A bus whose channel ``orders`` has three groups; in this folder, for other processes too."""
    backend, _, semantics = request.param.partition(":")
    lines = [f'[profiles.p]\nbackend = "{backend}"']
    if backend in ("rabbitmq", "kafka", "redis"):
        address = request.getfixturevalue(backend).url
        many = backend == "kafka"
        lines.append(f'bootstrap_servers = ["{address}"]' if many else f'url = "{address}"')
    if backend == "redis":
        lines.append("lease_s = 2.0")  # after that, others get what a killed process had
    lines.append(f'[channels.orders]\nsemantics = "{semantics or "queue"}"\ngroups = {[*GROUPS]}')
    (tmp_path / "gearshift.toml").write_text("\n".join(lines))
    with gearshift.open() as bus:
        yield bus
        for channel in ("orders", "orders.dead"):
            if bus.exists(channel):
                bus.delete(channel)


def _send(bus: gearshift.Bus, count: int) -> set[str]:
    with bus.producer("orders") as producer:
        return {producer.send(number, headers=[("a", "b")]).id for number in range(count)}


def _reject(bus: gearshift.Bus, group: str, count: int) -> None:
    """Let ``count`` messages die in ``group``."""
    with bus.consumer("orders", group=group) as inbox:
        for _ in range(count):
            (delivery,) = take(inbox, 1)
            assert delivery.headers.pairs == (("a", "b"),)
            delivery.reject()


def _is_empty(bus: gearshift.Bus, group: str) -> bool:
    """Nothing comes to ``group`` any more."""
    with bus.consumer("orders", group=group) as inbox:
        inbox.ready()
        return inbox.receive(timeout_s=1.0) == []


def _take_all(bus: gearshift.Bus, group: str, ids: set[str]) -> Counter[str | None]:
    """How often each message comes to ``group``, once all of ``ids`` have come, and no other.

    A broker takes its time to miss a process that was killed, so what that held is redriven again.
    """
    got: Counter[str | None] = Counter()
    with bus.consumer("orders", group=group) as inbox:

        def are_all_here() -> bool:
            if not (deliveries := inbox.receive(len(ids), timeout_s=1.0)):
                redrive(bus, "orders")
            got.update(delivery.id for delivery in deliveries)
            ack_all(deliveries)
            return set(got) >= ids

        assert until(are_all_here)
        for delivery in inbox.iterate(idle_timeout_s=1.0):
            got[delivery.id] += 1
            delivery.ack()
    assert set(got) == ids
    return got


def test_a_letter_goes_back_to_its_group_only(bus: gearshift.Bus) -> None:
    """Dead in three groups and redriven twice, it is three letters still, not 27."""
    _send(bus, 1)
    for _ in range(2):
        for group in GROUPS:
            _reject(bus, group, 1)
        redrive_all(bus, "orders", len(GROUPS))
    for group in GROUPS:
        _reject(bus, group, 1)
        assert _is_empty(bus, group)


def test_of_one_group_only_it_gets_them(bus: gearshift.Bus) -> None:
    """With a group named, the letters of the others stay, and so do their consumers undisturbed."""
    if bus.semantics("orders.dead") == "stream":
        pytest.skip("a stream of dead letters is redriven as a whole, and says so")
    _send(bus, 1)
    for group in GROUPS:
        _reject(bus, group, 1)
    done = redrive(bus, "orders", group="audit", idle_timeout_s=10.0)
    assert (done.moved, done.left) == (1, 2)
    _reject(bus, "audit", 1)
    assert all(_is_empty(bus, group) for group in GROUPS)


def test_what_another_has_in_hand_is_not_waited_for(bus: gearshift.Bus) -> None:
    """It ends once nothing waits, and the letter goes back when the other one has let it go."""
    ids = _send(bus, 3)
    _reject(bus, "audit", 3)
    with bus.inspect("orders.dead", prefetch=1) as other:
        take(other, 1)
        done = redrive(bus, "orders", patience_s=float("inf"))
        in_hand = bus.semantics("orders.dead") == "queue"  # a stream gives it to whoever reads on
        assert done.moved == 2 or not in_hand
        assert done.elsewhere in (None, 3 - done.moved)
    _take_all(bus, "audit", ids)


def test_killed_halfway_and_run_again_nothing_is_lost(bus: gearshift.Bus) -> None:
    """Each comes back to its group; one that was stored twice has its id twice."""
    if bus.backend == "memory":
        pytest.skip("memory ends with its process")
    ids = _send(bus, 12)
    for group in ("billing", "audit"):
        _reject(bus, group, len(ids))
    killed = subprocess.run([sys.executable, "-c", KILLED], timeout=120)
    assert killed.returncode == -9
    for group in GROUPS:
        got = _take_all(bus, group, ids)
        assert max(got.values()) <= (1 if group == "mail" else 2)  # mail has rejected nothing
