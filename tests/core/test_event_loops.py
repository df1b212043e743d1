"""Event loops that services choose: uvloop, anyio on asyncio, and trio, which is refused."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import anyio
import pytest
import uvloop
from support.waiting import until

import gearshift
from gearshift import App, Worker, aio, errors

SETTINGS = {"profile": "m", "profiles": {"m": {"backend": "memory"}}}


async def _send_and_receive() -> list[Any]:
    async with (
        aio.open(settings=SETTINGS) as bus,
        bus.producer("orders") as orders,
        bus.consumer("orders") as inbox,
    ):
        await asyncio.gather(*(orders.send(n) for n in range(20)))
        received = []
        async for delivery in inbox:
            received.append(delivery.value)
            await delivery.ack()
            if len(received) == 20:
                return received
    raise AssertionError


def test_coroutines_on_uvloop() -> None:
    """Threads of the core wake its loop as they wake asyncio's."""
    assert uvloop.run(_send_and_receive()) == list(range(20))


def test_coroutines_under_anyio() -> None:
    """Its asyncio backend is asyncio."""
    assert anyio.run(_send_and_receive) == list(range(20))


def test_trio_is_refused_in_words() -> None:
    """Its loop is another; the error says what to choose."""
    with pytest.raises(errors.UsageError, match="asyncio") as caught:
        anyio.run(_send_and_receive, backend="trio")
    assert "not trio" in str(caught.value.hint)


def test_async_handlers_on_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's loop is of the kind that the service has chosen."""
    monkeypatch.setattr(asyncio, "new_event_loop", uvloop.new_event_loop)
    app = App()
    loops = set()

    @app.handler("orders", batch=10, linger_s=0.01)
    async def handle(orders: list[int], bills: Annotated[aio.Producer, "bills"]) -> None:
        loops.add(type(asyncio.get_running_loop()))
        await bills.send_many(orders)

    with gearshift.open(settings=SETTINGS) as bus:
        worker = Worker(app, bus)
        worker.start()
        bus.producer("orders").send_many(range(100))
        assert until(lambda: worker.report.acked == 100)
        worker.stop()
        assert [state.ready for state in bus.groups("bills")] == [100]
    assert loops == {uvloop.Loop}
