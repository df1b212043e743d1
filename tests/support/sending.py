"""A service that sends while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gearshift

__all__ = ["sending"]


@contextmanager
def sending(
    channel: str, profile: str | None = None, *, keys: int = 1, **fields: Any
) -> Iterator[list[int]]:
    """Send ``n`` and ``of_key``, its number among those of its key, to ``channel`` while the block
    runs; the numbers that were confirmed."""
    stop, sent = threading.Event(), list[int]()

    def send() -> None:
        with gearshift.open(profile=profile) as bus, bus.producer(channel) as producer:
            while not stop.wait(0.01):
                number = len(sent)
                value = {"n": number, "of_key": number // keys}
                producer.send(value, key=f"customer-{number % keys}", **fields)
                sent.append(number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
