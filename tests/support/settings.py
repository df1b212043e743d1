"""Settings files for tests."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from native_brokers import Broker, Kafka, Redis

_numbers = itertools.count()


def profile_of(broker: Broker, url: str = "") -> str:
    """The lines of a profile that reach ``broker``, or ``url`` instead: a proxy before it."""
    if isinstance(broker, Kafka):
        return f'backend = "kafka"\nbootstrap_servers = ["{url or broker.url}"]'
    backend = "redis" if isinstance(broker, Redis) else "rabbitmq"
    return f'backend = "{backend}"\nurl = "{url or broker.url}"'


def profiles_of(**brokers: Broker) -> str:
    """The lines of a settings file with a profile for each, of which the first is the default."""
    tables = [f"[profiles.{name}]\n{profile_of(broker)}\n" for name, broker in brokers.items()]
    return f'profile = "{next(iter(brokers))}"\n' + "".join(tables)


def settings_of(request: pytest.FixtureRequest, kind: str, folder: Path, channel: str) -> Path:
    """A file with one channel, whose group is g, on a ``kind`` such as ``kafka:stream``."""
    backend, semantics = kind.split(":")
    profile = f'backend = "{backend}"'
    if backend == "sqlite":
        profile += f'\npath = "{folder / "shared.db"}"'
    elif backend != "memory":
        broker: Broker = request.getfixturevalue(backend)
        profile = profile_of(broker)
    channels = f'[channels.{channel}]\nsemantics = "{semantics}"\ngroups = ["g"]'
    return write_settings(folder, profile, f"{channels}\ndead_letter = false")


def write_settings(folder: Path, profile: str, channels: str = "") -> Path:
    """A new file in ``folder`` with the lines of its one profile and, in TOML, its channels."""
    file = folder / f"settings-{next(_numbers)}.toml"
    file.write_text(f'profile = "p"\n[profiles.p]\n{profile}\n{channels}\n')
    return file
