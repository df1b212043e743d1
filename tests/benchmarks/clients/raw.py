"""A broker's own client, as its backend uses it by hand for ``gearshift bench``."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial

from benchmarks.clients.gearshift_ import settings_of
from benchmarks.work import Load, Place, Sample
from gearshift import config, plugins
from gearshift.bus.topology import Topology
from gearshift.driver.measuring import RawClient


def _client(place: Place) -> RawClient:
    """On a queue, or a topic and a group, that are called like the place: not Gearshift's."""
    name = place.name
    native = {"rabbitmq": {"queue": name}, "kafka": {"topic": name, "group": name}}
    loaded = config.load(settings=settings_of(place, native=native))
    plugin = plugins.load(loaded.backend)
    assert plugin.raw_client is not None
    channel = Topology(loaded, plugin).spec(place.name)
    client = plugin.raw_client(loaded.settings_for(plugin), channel)
    assert client is not None
    return client


def _do(work: str, place: Place, load: Load) -> Sample:
    found: Sample = getattr(_client(place).works, work)(load)
    return found


send, send_many, receive, end_to_end = (
    partial(_do, work) for work in ("send", "send_many", "receive", "end_to_end")
)


def left(place: Place) -> int:
    """How many wait in the file of sqlite3."""
    file = f"{place.url.removeprefix('sqlite://')}.{place.name}"
    with closing(sqlite3.connect(file)) as db:
        return int(db.execute("SELECT count(*) FROM message").fetchone()[0])
