"""The brokers that keep count, and a configuration for each."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import gearshift

GROUP = "g"

PROFILES = {
    "rabbitmq": ("rabbitmq", 'backend = "rabbitmq"\nurl = "{url}"'),
    "rabbitmq4": ("rabbitmq4", 'backend = "rabbitmq"\nurl = "{url}"'),
    "redis": ("redis", 'backend = "redis"\nurl = "{url}"\nlease_s = 2'),
    # A member with a name is succeeded at once by its next process; its group can be deleted when
    # its session is over.
    "kafka": (
        "kafka",
        'backend = "kafka"\nbootstrap_servers = ["{url}"]\ngroup_protocol = "classic"\n'
        'group_instance_id = "one"\nnative.consumer = {{ "session.timeout.ms" = 6000 }}',
    ),
    "sqlite": (None, 'backend = "sqlite"\npath = "{folder}/queue.db"'),
}

#: What keeps count where.
QUEUES = ("rabbitmq", "rabbitmq4", "kafka", "redis", "sqlite")
STREAMS = ("rabbitmq", "rabbitmq4", "kafka", "sqlite")

_numbers = itertools.count()


@dataclass
class World:
    """Two fresh channels on one broker; ``open`` gives a client of its own, as a process has."""

    config: Path
    channel: str
    other: str
    semantics: str
    _stack: ExitStack = field(default_factory=ExitStack)

    def open(self) -> gearshift.Bus:
        return self._stack.enter_context(gearshift.open(self.config))

    def close(self) -> None:
        bus = self.open()
        for channel in (self.channel, self.other):
            for name in (channel, f"{channel}.dead"):
                with suppress(gearshift.errors.GearshiftError):
                    bus.delete(name)
        self._stack.close()


@pytest.fixture(
    params=[
        pytest.param(
            (name, semantics),
            marks=[pytest.mark.broker] if server else [],
            id=f"{name}-{semantics}",
        )
        for name, (server, _) in PROFILES.items()
        for semantics, names in (("queue", QUEUES), ("stream", STREAMS))
        if name in names
    ]
)
def new_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """Makes worlds; its argument are settings of the channel."""
    name, semantics = request.param
    server, profile = PROFILES[name]
    broker = server and request.getfixturevalue(server)
    url = getattr(broker, "url", None) or getattr(broker, "bootstrap_servers", "")
    with ExitStack() as stack:

        def make(settings: str = "") -> World:
            number = next(_numbers)
            channel, other = f"a{os.getpid()}-{number}", f"b{os.getpid()}-{number}"
            config = tmp_path / f"{channel}.toml"
            groups = f'groups = ["{GROUP}"]' if semantics == "queue" else "partitions = 2"
            config.write_text(
                f'profile = "p"\n[profiles.p]\n{profile.format(url=url, folder=tmp_path)}\n'
                + "".join(
                    f'[channels.{name}]\nsemantics = "{semantics}"\n{groups}\n{settings}\n'
                    f'[channels."{name}.dead"]\nsemantics = "{semantics}"\n'
                    for name in (channel, other)
                )
            )
            world = World(config, channel, other, semantics)
            stack.callback(world.close)
            return world

        yield make
