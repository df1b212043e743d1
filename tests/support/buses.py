"""Opens buses for a test, on a real broker or on an embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import gearshift
from native_brokers import Broker
from support.settings import profile_of, write_settings

__all__ = ["OpenBus", "opening"]


class OpenBus(Protocol):
    """Opens a bus of its own, which is closed when the test ends."""

    def __call__(
        self, channels: str = "", *, profile: str = "", url: str = "", port: int = 0
    ) -> gearshift.Bus:
        """``channels`` and ``profile`` are TOML; ``url`` or ``port`` is another way to the broker,
        such as a proxy."""


@contextmanager
def opening(broker: Broker | str, folder: Path, always: str = "") -> Iterator[OpenBus]:
    """A function that opens buses on ``broker``, or on the embedded backend of that name.

    ``always`` stands before the channels that it is given.
    """
    with ExitStack() as stack:

        def open_bus(
            channels: str = "", *, profile: str = "", url: str = "", port: int = 0
        ) -> gearshift.Bus:
            if isinstance(broker, str):
                path = '\npath = "test.db"' if broker == "sqlite" else ""
                lines = f'backend = "{broker}"{path}'
            else:
                there = broker.url.replace(f":{broker.port}", f":{port or broker.port}")
                lines = profile_of(broker, url or there)
            file = write_settings(folder, f"{lines}\n{profile}", f"{always}\n{channels}")
            return stack.enter_context(gearshift.open(file))

        yield open_bus
