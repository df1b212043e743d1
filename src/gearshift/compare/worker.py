"""A worker as a process of its own: ``python -m gearshift.compare.worker ORDER-FILE``.

The file holds an Assignment. SIGTERM drains; SIGKILL is what some are made for.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import msgspec

from gearshift.bus import open_bus
from gearshift.compare.actor import Actor, Role
from gearshift.compare.memory import watch
from gearshift.compare.tape import Recorder

__all__ = ["Assignment", "Site", "main"]


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process plays: the broker's settings, and the tape with the time it counts from."""

    config: str | None
    profile: str
    tape: str
    origin_ns: int


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told."""

    role: Role
    site: Site


def main(file: str) -> None:
    """Work until SIGTERM. The environment holds the settings of the scenario's channel."""
    told = msgspec.json.decode(Path(file).read_bytes(), type=Assignment)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    site = told.site
    recorder = Recorder(Path(site.tape), site.origin_ns)
    threading.Thread(target=watch, args=(told.role.name, recorder, stop), daemon=True).start()
    with open_bus(site.config, profile=site.profile) as bus:
        Actor(bus, told.role, recorder).run(stop)


if __name__ == "__main__":
    main(sys.argv[1])
