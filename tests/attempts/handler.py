"""A process whose handler dies of one message: handler.py CONFIG CHANNEL GROUP KILLER LOG [OTHER].

With ``batches`` for OTHER it is a worker whose handler is given several messages at once.

It writes a line with value and attempt to LOG for every message that it is given, before anything
else. It ends when its standard input does. With the channel OTHER it has a second consumer, and
dies while that one works on a message, if it does within a second or two.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack

import gearshift

#: For a consumer that has to wait until another one's suspect is handled.
TOGETHER_S = 2.0


def handle_batches(config: str, channel: str, group: str, killer: str, path: str) -> None:
    app = gearshift.App()
    with open(path, "a", buffering=1) as log, gearshift.open(config) as bus:

        @app.handler(channel, group=group, batch=10)
        def handle(deliveries: list[gearshift.Delivery[int]]) -> None:
            log.write("".join(f"{each.value} {each.attempt}\n" for each in deliveries))
            if int(killer) in [each.value for each in deliveries]:
                os._exit(9)

        worker = gearshift.Worker(app, bus)
        worker.start()
        sys.stdin.read()
        worker.stop()


def main(config: str, channel: str, group: str, killer: str, path: str, other: str = "") -> None:
    busy = threading.Event()
    with ExitStack() as stack:
        log = stack.enter_context(open(path, "a", buffering=1))
        bus = stack.enter_context(gearshift.open(config))
        consumer = stack.enter_context(bus.consumer(channel, group=group))

        def work_beside(beside: gearshift.Consumer) -> None:
            for delivery in beside:
                log.write(f"beside-{delivery.value} {delivery.attempt}\n")
                busy.set()
                time.sleep(0.1)
                busy.clear()
                delivery.ack()

        def end() -> None:
            sys.stdin.read()
            consumer.stop_receiving()

        if other:
            beside = stack.enter_context(bus.consumer(other, group=group))
            threading.Thread(target=work_beside, args=[beside], daemon=True).start()
            stack.callback(beside.stop_receiving)
        threading.Thread(target=end, daemon=True).start()
        for delivery in consumer:
            log.write(f"{delivery.value} {delivery.attempt}\n")
            if delivery.value == int(killer):
                if other:
                    busy.wait(TOGETHER_S)
                os._exit(9)
            delivery.ack()


if __name__ == "__main__":
    if sys.argv[-1] == "batches":
        handle_batches(*sys.argv[1:-1])
    else:
        main(*sys.argv[1:])
