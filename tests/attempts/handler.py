"""A process whose handler dies of one message: handler.py CONFIG CHANNEL GROUP KILLER LOG.

It writes a line with value and attempt to LOG for every message that it is given, before anything
else. It ends by itself when nothing has come for a while.
"""

from __future__ import annotations

import os
import sys

import gearshift


def main(config: str, channel: str, group: str, killer: str, path: str) -> None:
    with (
        gearshift.open(config) as bus,
        bus.consumer(channel, group=group) as consumer,
        open(path, "a", buffering=1) as log,
    ):
        for delivery in consumer.iterate(idle_timeout_s=5.0):
            log.write(f"{delivery.value} {delivery.attempt}\n")
            if delivery.value == int(killer):
                os._exit(9)
            delivery.ack()


if __name__ == "__main__":
    main(*sys.argv[1:])
