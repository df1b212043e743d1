"""A process whose handler dies of one message: handler.py CONFIG CHANNEL GROUP KILLER LOG [OTHER].

It writes a line with value and attempt to LOG for every message that it is given, before anything
else. It ends by itself when nothing has come for a while. With the channel OTHER it has a second
consumer, and dies while that one works on a message, if it does within a second or two.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import gearshift

IDLE_S = 5.0
#: For a consumer that has to wait until another one's suspect is handled.
TOGETHER_S = 2.0


def main(config: str, channel: str, group: str, killer: str, path: str, other: str = "") -> None:
    busy = threading.Event()
    with gearshift.open(config) as bus, open(path, "a", buffering=1) as log:

        def work_beside() -> None:
            with bus.consumer(other, group=group) as consumer:
                for delivery in consumer.iterate(idle_timeout_s=IDLE_S + TOGETHER_S):
                    log.write(f"beside-{delivery.value} {delivery.attempt}\n")
                    busy.set()
                    time.sleep(0.1)
                    delivery.ack()
                    busy.clear()

        beside = threading.Thread(target=work_beside, daemon=True)
        if other:
            beside.start()
        with bus.consumer(channel, group=group) as consumer:
            for delivery in consumer.iterate(idle_timeout_s=IDLE_S):
                log.write(f"{delivery.value} {delivery.attempt}\n")
                if delivery.value == int(killer):
                    if other:
                        busy.wait(TOGETHER_S)
                    os._exit(9)
                delivery.ack()
        if other:
            beside.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
