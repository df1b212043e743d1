"""The async face: the same promises, and nothing lost by cancelling."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from support.waiting import PATIENCE_S

import gearshift
from gearshift import aio, errors
from gearshift.aio.loops import opened_in_thread
from gearshift.driver import Start


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine function as a test, with an end of patience."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_S))

    return run


@pytest.fixture(params=["memory", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A profile, and a queue and a stream."""
    profile = {"backend": request.param}
    if request.param == "sqlite":
        profile["path"] = str(tmp_path / "bus.db")
    return {
        "profile": "p",
        "profiles": {"p": profile},
        "channels": {
            "orders": {"semantics": "queue", "max_attempts": 2, "retry_delay_s": 0.01},
            "clicks": {"semantics": "stream", "partitions": 2},
            "orders.dead": {},
            "late": {},
        },
    }


@in_loop
async def test_what_is_sent_is_received_and_settled(settings: dict[str, Any]) -> None:
    """One by one, many, and from an async iterator; all is gone when it is acked."""

    async def more() -> AsyncIterator[int]:
        for number in range(600, 1300):
            yield number

    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        receipt = await orders.send({"n": 0}, key="ada", headers={"a": "b"})
        results = await orders.send_many(range(1, 600))
        results += await orders.send_many(more())
        assert receipt.id
        assert all(isinstance(one, gearshift.Receipt) for one in results)
        async with bus.consumer("orders") as consumer:
            first = (await consumer.receive())[0]
            assert (first.value, first.key, first.headers.get("a")) == ({"n": 0}, "ada", "b")
            await first.ack()
            assert first.outcome == "ack"
            values = []
            async for delivery in consumer:
                values.append(delivery.value)
                await delivery.ack()
                if len(values) == 1299:
                    break
            assert values == list(range(1, 1300))
            await consumer.flush()
            assert consumer.unsettled == 0
        (group,) = await bus.groups("orders")
        assert group.ready == 0


@in_loop
async def test_a_stream_is_read_again_from_where_one_seeks(settings: dict[str, Any]) -> None:
    """``seek`` is awaited; order within a key stays."""
    async with aio.open(settings=settings) as bus, bus.producer("clicks") as clicks:
        await clicks.send_many(range(10), key_by=lambda _: "one")
        async with bus.consumer("clicks", group="g") as consumer:
            await consumer.ready()
            assert [(await anext(consumer.iterate())).value for _ in range(3)] == [0, 1, 2]
            await consumer.seek("earliest")
            assert [(await anext(consumer.iterate())).value for _ in range(10)] == list(range(10))
            await consumer.seek(Start.at_offsets({0: 0, 1: 0}))


@in_loop
async def test_retries_and_dead_letters(settings: dict[str, Any]) -> None:
    """A retry comes again; the last one, and a rejection, end among the dead letters."""
    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        await orders.send_many(["retried", "rejected"])
        async with bus.consumer("orders") as consumer:
            for _ in range(3):
                (delivery,) = await consumer.receive()
                if delivery.value == "retried":
                    await delivery.retry(reason="not yet")
                else:
                    await delivery.reject("never")
        async with bus.consumer("orders.dead") as consumer:
            letters = [await anext(consumer.iterate()) for _ in range(2)]
            reasons = {one.value: one.headers.get("dead-letter-reason") for one in letters}
            assert reasons == {
                "retried": "gave up after 2 attempts: not yet", "rejected": "never"
            }  # fmt: skip
            await letters[0].ack()
            with pytest.raises(errors.AlreadySettled):
                await letters[0].ack()


@in_loop
async def test_a_burst_of_sends_leaves_together(settings: dict[str, Any]) -> None:
    """A thousand tasks wait for a thousand receipts, in the order in which they were made."""
    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        threads = threading.active_count()
        sends = [asyncio.create_task(orders.send(number)) for number in range(1000)]
        await asyncio.sleep(0)
        assert threading.active_count() <= threads
        receipts = await asyncio.gather(*sends)
        assert len({one.id for one in receipts}) == 1000
        async with bus.consumer("orders", prefetch=1000) as consumer:
            values: list[int] = []
            while len(values) < 1000:
                deliveries = await consumer.receive(1000)
                values += [one.value for one in deliveries]
                for one in deliveries:
                    await one.ack()
            assert values == list(range(1000))


@in_loop
async def test_a_cancelled_receive_takes_nothing(settings: dict[str, Any]) -> None:
    """Whatever the moment: each message is with somebody who has it, or comes to the next."""
    async with (
        aio.open(settings=settings) as bus,
        bus.producer("orders") as orders,
        bus.consumer("orders", prefetch=50) as consumer,
    ):
        got: list[int] = []

        async def one() -> None:
            for delivery in await consumer.receive(3, timeout_s=0.1):
                got.append(delivery.value)
                await delivery.ack()

        sending = asyncio.create_task(orders.send_many(range(2000)))
        while len(got) < 2000:
            tasks = [asyncio.create_task(one()) for _ in range(20)]
            await asyncio.sleep(0.0005)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks)
        await sending
        assert sorted(got) == list(range(2000))


@in_loop
async def test_a_cancelled_send_says_what_is_known(settings: dict[str, Any]) -> None:
    """Not handed over: it is not stored. Handed over: it may be, and was here."""
    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        early = asyncio.create_task(orders.send("early"))
        late = asyncio.create_task(orders.send("late"))
        await asyncio.sleep(0)  # both wait; the next turn hands over what is wanted
        early.cancel()
        await asyncio.sleep(0)
        late.cancel()
        notes = []
        for task in (early, late):
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            notes += caught.value.__notes__
        assert "was not handed over: it is not stored" in notes[0]
        assert "it may or may not be stored" in notes[1]
        await orders.flush()
        async with bus.consumer("orders") as consumer:
            assert [one.value for one in await consumer.receive(9)] == ["late"]


@in_loop
async def test_a_full_window_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is awaited in order while the loop goes on, which is no failure; at its deadline a send
    is refused."""
    settings = {"profile": "m", "profiles": {"m": {"backend": "memory"}}}
    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        window = orders._buffer._window
        window.max_messages = 10
        with orders._buffer._lock:
            window.messages = 10  # as if ten were unconfirmed
        refused = asyncio.create_task(orders.send("refused", timeout_s=0.05))
        waiting = [asyncio.create_task(orders.send(number)) for number in range(3)]
        with pytest.raises(errors.BackpressureError):
            await refused
        assert not any(task.done() for task in waiting)
        with orders._buffer._lock:
            window.messages = 0
            window.changed.notify_all()
        assert len(await asyncio.gather(*waiting)) == 3
        assert orders._buffer.stats().failed == {"BackpressureError": 1}


@in_loop
async def test_what_a_cancelled_send_many_has_not_handed_over_is_not_sent() -> None:
    """Neither later nor by the way."""
    settings = {"profile": "m", "profiles": {"m": {"backend": "memory"}}}
    async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
        window = orders._buffer._window
        with orders._buffer._lock:
            window.messages = window.max_messages  # as if so many were unconfirmed
        sending = asyncio.create_task(orders.send_many(["cancelled"]))
        await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.wait([sending])
        with orders._buffer._lock:
            window.messages = 0
            window.changed.notify_all()
        await orders.send("sent")
        async with bus.consumer("orders") as consumer:
            assert [one.value for one in await consumer.receive(9)] == ["sent"]


@in_loop
async def test_a_closed_producer_refuses_and_a_closed_consumer_ends(
    settings: dict[str, Any],
) -> None:
    """``Closed`` at once; who waits in ``receive`` gets it too, and iteration ends."""
    async with aio.open(settings=settings) as bus:
        orders = await bus.producer("orders")
        await orders.close()
        with pytest.raises(errors.Closed):
            await orders.send(1)
        consumer = await bus.consumer("orders")
        receiving = asyncio.create_task(consumer.receive())
        iterating = asyncio.create_task(_all(consumer))
        await asyncio.sleep(0.05)
        assert await consumer.close() == []
        with pytest.raises(errors.Closed):
            await receiving
        assert await iterating == []


async def _all(consumer: aio.Consumer[Any]) -> list[Any]:
    return [delivery.value async for delivery in consumer]


@in_loop
async def test_a_misuse_is_told(settings: dict[str, Any]) -> None:
    """As in the sync API, and what was not awaited says so: there nothing need be."""
    async with aio.open(settings=settings) as bus:
        with pytest.raises(AttributeError, match="'send' of what is not open yet: await it"):
            bus.producer("orders").send  # type: ignore[attr-defined]  # noqa: B018
        async with bus.consumer("orders") as consumer:
            with pytest.raises(errors.UsageError, match="use 1 or more"):
                await consumer.receive(0)


@in_loop
async def test_receive_ends_in_time(settings: dict[str, Any]) -> None:
    """An empty list after ``timeout_s``, as in the sync face."""
    async with aio.open(settings=settings) as bus, bus.consumer("orders") as consumer:
        assert await consumer.receive(timeout_s=0.01) == []
        assert [one async for one in consumer.iterate(idle_timeout_s=0.01)] == []


def test_a_loop_that_stands_still_loses_nothing(settings: dict[str, Any]) -> None:
    """Results and messages that come meanwhile are there when it goes on."""

    async def main() -> None:
        async with (
            aio.open(settings=settings) as bus,
            bus.producer("orders") as orders,
            bus.consumer("orders") as consumer,
        ):
            sends = [asyncio.create_task(orders.send(number)) for number in range(20)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.5)
            await asyncio.gather(*sends)
            values = [(await anext(consumer.iterate())).value for _ in range(20)]
            assert values == list(range(20))

    asyncio.run(main())


def test_several_loops_in_several_threads(settings: dict[str, Any]) -> None:
    """Each with a bus of its own on the same broker; every message is received once."""
    if settings["profiles"]["p"]["backend"] == "memory":
        pytest.skip("a memory broker belongs to its bus")
    got: list[int] = []
    lock = threading.Lock()

    async def work(first: int) -> None:
        async with aio.open(settings=settings) as bus, bus.producer("orders") as orders:
            await orders.send_many(range(first, first + 50))
            async with bus.consumer("orders", prefetch=5) as consumer:
                while len(got) < 150:
                    for delivery in await consumer.receive(5, timeout_s=0.1):
                        with lock:
                            got.append(delivery.value)
                        await delivery.ack()

    threads = [threading.Thread(target=asyncio.run, args=(work(first),)) for first in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(got) == list(range(150))


@in_loop
async def test_cancelling_an_opening_leaves_nothing_open(settings: dict[str, Any]) -> None:
    """The producer that is there too late is closed."""
    async with aio.open(settings=settings) as bus:
        for _ in range(20):
            opening = asyncio.ensure_future(_opened(bus))
            await asyncio.sleep(0.001)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled():
                await opening.result().close()
        while any(thread.name == "gearshift-publish-late" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


def test_what_opens_after_its_loop_has_ended_is_closed() -> None:
    """By the thread that has opened it."""
    may_open, closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def opened() -> Late:
        assert may_open.wait(PATIENCE_S)
        return Late()

    async def cancelled() -> None:
        opening = asyncio.ensure_future(opened_in_thread(opened))  # type: ignore[type-var]
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])

    loop = asyncio.new_event_loop()
    loop.run_until_complete(cancelled())
    loop.close()
    may_open.set()
    assert closed.wait(PATIENCE_S)


async def _opened(bus: aio.Bus) -> aio.Producer:
    return await bus.producer("late")


@in_loop
async def test_what_is_dropped_is_noticed(settings: dict[str, Any]) -> None:
    """A bus that nobody holds warns and is closed, whatever it made for coroutines."""
    bus = aio.open(settings=settings)
    consumer = await bus.consumer("orders")
    producer = await bus.producer("orders")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del bus, consumer, producer
        while not caught:  # the thread that opened them lets go of them a moment later
            await asyncio.sleep(0.01)
            gc.collect()
    assert [str(one.category.__name__) for one in caught] == ["ResourceWarning"]


def test_without_an_event_loop_it_says_so(settings: dict[str, Any]) -> None:
    """Also under trio, whose loop is another."""
    with pytest.raises(errors.UsageError, match="needs a running event loop of asyncio"):
        aio.open(settings=settings)


def test_sync_users_do_not_load_asyncio() -> None:
    """The async face is imported by those who want it."""
    code = "import sys, gearshift; gearshift.open; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
