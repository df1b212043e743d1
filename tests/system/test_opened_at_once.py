"""Several open a channel that nobody has opened before: none meets what another has half made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from support.settings import settings_of
from support.waiting import PATIENCE_S, take

import gearshift

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

#: Openers, each with a bus of its own, as that many processes would have.
_MANY = 5

_KINDS = ["rabbitmq:queue", "rabbitmq:stream", "rabbitmq4:queue", "rabbitmq4:stream", "kafka:queue",
          "kafka:stream", "redis:queue", "sqlite:queue", "sqlite:stream"]  # fmt: skip


@pytest.mark.parametrize("kind", _KINDS)
def test_each_of_many_that_open_a_fresh_channel_at_once_uses_it(
    request: pytest.FixtureRequest, kind: str, tmp_path: Path, name: str
) -> None:
    """All of them send at once, and the group that was declared gets every message."""
    file = settings_of(request, kind, tmp_path, name)
    together = Barrier(_MANY)

    def send(number: int) -> None:
        with gearshift.open(file) as bus:
            together.wait(PATIENCE_S)
            bus.producer(name, timeout_s=PATIENCE_S).send(number)

    with ThreadPoolExecutor(_MANY) as pool:
        list(pool.map(send, range(_MANY)))
    with gearshift.open(file) as bus, bus.consumer(name, group="g") as consumer:
        assert sorted(one.value for one in take(consumer, _MANY)) == list(range(_MANY))
