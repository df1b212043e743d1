"""What a delivery costs, on every broker: orderly restarts nothing, a death one attempt of one."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from . import handler
from .conftest import GROUP, World

pytestmark = [pytest.mark.timeout(300)]

MAX_ATTEMPTS = 3
MESSAGES = 50
#: Brokers count a queue's deliveries up to a limit, 20 or more; a stream's deaths are counted.
RESTARTS = {"queue": 40, "stream": 5}


def letters(world: World, channel: str = "") -> dict[object, int]:
    """Values and attempts of the dead letters."""
    with world.open().consumer(f"{channel or world.channel}.dead") as consumer:
        consumer.ready()
        found = list(consumer.iterate(idle_timeout_s=3.0))
        return {one.value: int(str(one.headers["dead-letter-attempts"])) for one in found}


def test_orderly_restarts_cost_nothing(new_world: Callable[[str], World]) -> None:
    """Each one takes one message and closes: in the end all were handled at their first attempt."""
    world = new_world(f"max_attempts = {MAX_ATTEMPTS}")
    bus = world.open()
    bus.producer(world.channel).send_many(range(MESSAGES))
    attempts: dict[object, int] = {}
    for _ in range(RESTARTS[world.semantics]):
        with bus.consumer(world.channel, group=GROUP) as consumer:
            (delivery,) = consumer.receive(timeout_s=30)
            attempts[delivery.value] = delivery.attempt
            delivery.ack()
    with bus.consumer(world.channel, group=GROUP) as consumer:
        while len(attempts) < MESSAGES:
            (delivery,) = consumer.receive(timeout_s=30)
            attempts[delivery.value] = delivery.attempt
            delivery.ack()
        assert consumer.receive(timeout_s=0.5) == []
    assert attempts == dict.fromkeys(range(MESSAGES), 1)
    assert letters(world) == {}


@pytest.mark.parametrize("killer", [0, 7], ids=["first", "eighth"])
def test_a_message_that_kills_its_process_ends_alone(
    new_world: Callable[[str], World], tmp_path: Path, killer: int
) -> None:
    """It is dead after max_attempts deaths; its twenty neighbours are handled once or twice."""
    world = new_world(f"max_attempts = {MAX_ATTEMPTS}")
    world.open().producer(world.channel).send_many(range(21))
    handled = _handled(world, killer, tmp_path / "handled")
    assert handled.pop(str(killer)) == MAX_ATTEMPTS
    assert len(handled) == 20
    assert set(handled.values()) <= {1, 2}
    assert letters(world) == {killer: MAX_ATTEMPTS}


def test_it_takes_nothing_of_another_consumer_along(
    new_world: Callable[[str], World], tmp_path: Path
) -> None:
    """A service has many handlers in one process: what those had in hand died with it once."""
    world = new_world(f"max_attempts = {MAX_ATTEMPTS}")
    bus = world.open()
    bus.producer(world.channel).send(7)
    bus.producer(world.other).send_many(range(8))
    handled = _handled(world, 7, tmp_path / "handled", world.other)
    assert handled.pop("7") == MAX_ATTEMPTS
    assert len(handled) == 8
    assert set(handled.values()) <= {1, 2}
    assert letters(world) == {7: MAX_ATTEMPTS}
    assert letters(world, world.other) == {}


def _handled(world: World, killer: int, log: Path, other: str = "") -> Counter[str]:
    """How often each message was handled, by processes that ``killer`` ends until it is dead."""
    command = [
        sys.executable, handler.__file__, world.config, world.channel, GROUP, killer, log, other
    ]  # fmt: skip
    codes = []
    while not codes or codes[-1] == 9:
        codes.append(subprocess.run([str(word) for word in command], timeout=120).returncode)
        assert len(codes) <= MAX_ATTEMPTS + 1, "it does not end"
    assert codes == [9] * MAX_ATTEMPTS + [0]
    return Counter(line.split()[0] for line in log.read_text().splitlines())
