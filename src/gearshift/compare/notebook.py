"""Inside a notebook: its cells run in an event loop, where Gearshift refuses to block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["apart"]

T = TypeVar("T")


def apart(call: Callable[[], T]) -> T:
    """Return ``call()``, made on a thread of its own if this one runs an event loop.

    A comparison is meant to hold its cell up until it is done, as any long computation does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as other:
        return other.submit(call).result()
