"""The kit many times at once, on one broker: what shows only when everything happens together."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from gearshift.conformance.behaviour import Behaviour
from gearshift.conformance.execution import Result, execute
from gearshift.conformance.harness import Harness

__all__ = ["execute_together"]


def execute_together(
    behaviours: Sequence[Behaviour], harness: Harness, copies: int
) -> Iterator[Result]:
    """Run those of ``behaviours`` that break nothing, each ``copies`` times, ``copies`` at once.

    Each copy has a random order of its own, the same at every call. Yields a result whenever one
    has ended. Work that is slow because the machine is busy must not look dead: give ``harness`` a
    lease and a patience of half a minute or more.
    """
    harmless = [behaviour for behaviour in behaviours if behaviour.needs is None]
    orders = [random.Random(copy).sample(harmless, len(harmless)) for copy in range(copies)]
    pool = ThreadPoolExecutor(copies, "gearshift-conformance")
    try:
        running = [
            pool.submit(execute, behaviour, harness)
            for turn in zip(*orders, strict=True)
            for behaviour in turn
        ]
        for ended in as_completed(running):
            yield ended.result()
    finally:
        pool.shutdown(cancel_futures=True)
