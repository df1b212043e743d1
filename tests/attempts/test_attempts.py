"""What a delivery costs, on every broker: orderly restarts nothing, a death one attempt of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.waiting import take

import gearshift

from .conftest import GROUP, World
from .running import handled, run

pytestmark = [pytest.mark.timeout(300)]

MAX_ATTEMPTS = 3


def test_a_message_that_kills_its_process_ends_alone(
    new_world: Callable[[str], World], tmp_path: Path
) -> None:
    """It is dead after max_attempts deaths; its twenty neighbours are handled once or twice.

    So is what another consumer of the process had in hand: a service has many handlers.
    """
    world = new_world(f"max_attempts = {MAX_ATTEMPTS}")
    bus = world.open()
    bus.producer(world.channel).send_many(range(21))
    bus.producer(world.other).send_many(range(8))
    times, letters = _outlived(world, 7, tmp_path / "handled", 29, world.other)
    assert times.pop("7") == MAX_ATTEMPTS
    assert len(times) == 28
    assert set(times.values()) <= {1, 2}
    assert letters == [(7, MAX_ATTEMPTS)]
    with bus.consumer(f"{world.other}.dead") as dead:
        dead.ready()
        assert dead.receive(timeout_s=1.0) == []


@pytest.mark.parametrize(
    "new_world",
    [
        pytest.param(("sqlite", "queue"), id="sqlite-queue"),
        pytest.param(("sqlite", "stream"), id="sqlite-stream"),
        *(
            pytest.param((name, "queue"), marks=pytest.mark.broker, id=f"{name}-queue")
            for name in ("rabbitmq", "rabbitmq4", "redis")
        ),
        *(
            pytest.param(one, marks=[pytest.mark.broker, pytest.mark.long], id="-".join(one))
            for one in (
                ("rabbitmq", "stream"),
                ("rabbitmq4", "stream"),
                ("kafka", "queue"),
                ("kafka", "stream"),
            )
        ),
    ],
    indirect=True,
)
def test_forty_orderly_restarts_cost_nothing(new_world: Callable[[str], World]) -> None:
    """All is handled once, at the first attempt, and nothing becomes a dead letter."""
    world = new_world("max_attempts = 2")
    bus = world.open()
    bus.producer(world.channel).send_many(range(50))
    given: list[tuple[object, int]] = []
    for count in (*[1] * 40, 10):
        with bus.consumer(world.channel, group=GROUP) as consumer:
            for delivery in take(consumer, count):
                given.append((delivery.value, delivery.attempt))
                delivery.ack()
    assert sorted(given, key=str) == sorted([(number, 1) for number in range(50)], key=str)
    with bus.consumer(f"{world.channel}.dead") as dead:
        dead.ready()
        assert dead.receive(timeout_s=0.5) == []


@pytest.mark.parametrize(
    "new_world",
    [
        pytest.param(("rabbitmq", "queue"), marks=pytest.mark.broker, id="rabbitmq-queue"),
        pytest.param(("sqlite", "stream"), id="sqlite-stream"),
    ],
    indirect=True,
)
def test_it_takes_nothing_of_its_batch_along(
    new_world: Callable[[str], World], tmp_path: Path
) -> None:
    """Its neighbours died with it once, and are handled alone then; it ends alone."""
    world = new_world(f"max_attempts = {MAX_ATTEMPTS}")
    world.open().producer(world.channel).send_many(range(12))
    times, letters = _outlived(world, 7, tmp_path / "handled", 12, "batches")
    assert times.pop("7") == MAX_ATTEMPTS
    assert len(times) == 11
    assert set(times.values()) <= {1, 2}
    assert letters == [(7, MAX_ATTEMPTS)]


def _outlived(
    world: World, killer: int, log: Path, count: int, other: str = ""
) -> tuple[Counter[str], list[tuple[object, object]]]:
    """Run processes until one outlives ``killer``. How often each of ``count`` messages was given,
    and the dead letters with their attempts.
    """
    codes: list[int] = []
    with world.open().consumer(f"{world.channel}.dead") as dead:
        found: list[gearshift.Delivery] = []

        def all_ended() -> bool:
            for letter in dead.receive(timeout_s=0.2):
                letter.ack()
                found.append(letter)
            return bool(found) and len(set(handled(log))) == count

        while not codes or codes[-1] == 9:
            codes.append(run(all_ended, world.config, world.channel, GROUP, killer, log, other))
            assert len(codes) <= MAX_ATTEMPTS + 1, "it does not end"
        found += dead.receive(timeout_s=0.5)
    assert codes == [9] * MAX_ATTEMPTS + [0]
    return Counter(handled(log)), [
        (one.value, one.headers["dead-letter-attempts"]) for one in found
    ]
