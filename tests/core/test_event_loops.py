"""Event loops that services choose: uvloop, anyio on asyncio, and trio, which is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import pytest
import uvloop
from support.waiting import until

import gearshift
from gearshift import App, Worker, aio, errors
from gearshift.asgi import Lifespan

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


class Pool:
    """A client that belongs to the loop on which it was made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()


def test_handlers_of_an_asgi_service_share_its_loop_and_what_lives_there() -> None:
    """What the app's lifespan yields serves requests; what the service made serves handlers."""
    app = App()
    messaging = Lifespan(app, SETTINGS)
    pools: list[Pool] = []
    of_service: list[Pool] = []

    @app.lifespan
    async def pool() -> AsyncIterator[Pool]:
        yield Pool()

    @app.handler("orders")
    async def handle(order: int, pool: Pool) -> None:
        assert asyncio.get_running_loop() is pool.loop is of_service[0].loop
        pools.append(pool)

    async def service() -> None:
        of_service.append(Pool())
        with pytest.raises(errors.UsageError, match="has not started"):
            messaging.state(Pool)
        async with messaging():
            await messaging.bus.send("orders", 1)
            assert await asyncio.to_thread(until, lambda: pools)
            assert messaging.state(Pool) is pools[0]
            with pytest.raises(errors.UsageError, match="no lifespan that was entered yields App"):
                messaging.state(App)

    asyncio.run(service())
    assert len(pools) == 1


def test_a_loop_that_is_somebody_elses_loses_its_handlers_and_nothing_else() -> None:
    """What does not end in time is cancelled, its message comes again, and the loop runs on."""
    app = App()
    notes: list[str] = []

    @app.handler("orders")
    async def handle(order: int) -> None:
        notes.append("in")
        try:
            await asyncio.Event().wait()
        finally:
            notes.append("out")

    async def service() -> None:
        others = asyncio.create_task(asyncio.Event().wait())
        with gearshift.open(settings=SETTINGS) as bus:
            worker = Worker(app, bus, loop=asyncio.get_running_loop())
            with pytest.raises(errors.BlockingInEventLoop):
                worker.start()
            await asyncio.to_thread(worker.start)
            await asyncio.to_thread(bus.send, "orders", 1)
            assert await asyncio.to_thread(until, lambda: notes)
            report = await asyncio.to_thread(worker.stop, 0.0)
            assert len(report.unfinished) == 1
            assert notes == ["in", "out"]
            assert not others.done()
            others.cancel()

    asyncio.run(service())
