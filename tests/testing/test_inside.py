"""Inside a harness a program runs as it is: its own buses, its own settings, its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest

import gearshift
from gearshift import aio, testing
from gearshift.errors import ConfigError, GearshiftError, UnknownGroup, UsageError
from gearshift.hooks import hookimpl

MEMORY = {"profiles": {"dev": {"backend": "memory"}}}


def test_a_bus_that_a_handler_opens_is_on_the_same_broker(harness: testing.Harness) -> None:
    """Whichever way it names its settings; afterwards ``open`` opens what it always does."""
    app = gearshift.App()

    @app.handler("orders")
    def bill(order: dict[str, int]) -> None:
        with gearshift.open(settings=MEMORY) as bus, bus.producer("invoices") as invoices:
            invoices.send({"total": order["cents"]})

    with gearshift.open("memory://") as bus, bus.producer("orders") as orders:
        orders.send({"cents": 250})
    harness.run(app)
    assert harness.sent("invoices") == [{"total": 250}]

    harness.close()
    with gearshift.open(settings=MEMORY) as bus:
        assert (bus.profile, bus.exists("invoices")) == ("dev", False)


def test_async_handlers_run_on_the_loop_of_the_test(harness: testing.Harness) -> None:
    """With its own asyncio clients, and plain handlers beside them."""
    app = gearshift.App()
    loops: list[object] = []

    @app.handler("orders")
    async def bill(order: int) -> None:
        loops.append(asyncio.get_running_loop())
        async with aio.open() as bus, bus.producer("invoices") as invoices:
            await invoices.send(order)
        if order == 2:
            raise gearshift.Reject("no")

    @app.handler("invoices")
    def book(total: int) -> None:
        with gearshift.open() as bus, bus.producer("book") as entries:
            entries.send(total)

    async def main() -> object:
        harness.send("orders", 1)
        harness.send("orders", 2)
        with pytest.raises(UsageError, match="run_async"):
            harness.run(app)
        await harness.run_async(app)
        return asyncio.get_running_loop()

    loop = asyncio.run(main())
    assert loops == [loop, loop]
    assert harness.sent("book") == [1, 2]
    assert [one.reason for one in harness.dead_letters("orders")] == ["no"]


class Services:
    """What a lifespan yields."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop


@pytest.mark.parametrize("is_async", [False, True])
def test_lifespans_and_producers_are_provided(harness: testing.Harness, is_async: bool) -> None:
    """As a worker provides them, and a handler runs on the loop of its app's lifespan."""
    app = gearshift.App()
    told: list[object] = []

    @app.lifespan
    async def services() -> AsyncIterator[Services]:
        yield Services(asyncio.get_running_loop())
        told.append("left")

    @app.handler("orders")
    async def bill(
        order: int, services: Services, invoices: Annotated[aio.Producer, "invoices"], bus: aio.Bus
    ) -> None:
        told.append(services.loop is asyncio.get_running_loop())
        await invoices.send(order)
        await bus.send("mails", order)

    @app.handler("invoices")
    def book(
        total: int, entries: Annotated[gearshift.Producer, "book"], bus: gearshift.Bus
    ) -> None:
        entries.send(total)
        bus.send("mails", total + 1)

    harness.send("orders", 1)
    if is_async:
        asyncio.run(harness.run_async(app))
    else:
        harness.run(app)
    harness.close()
    assert told == [True, "left"]
    assert harness.sent("book") == [1]
    assert harness.sent("mails") == [1, 2]


def test_async_handlers_run_without_a_loop_too(harness: testing.Harness) -> None:
    """On the loop that a worker has, and their errors are raised as well."""
    app = gearshift.App()
    seen = []

    @app.handler("orders")
    async def bill(order: int) -> None:
        await asyncio.sleep(0)
        seen.append(order)
        if order == 2:
            raise ZeroDivisionError

    harness.send("orders", 1)
    harness.send("orders", 2)
    with pytest.raises(ZeroDivisionError):
        harness.run(app)
    assert seen == [1, 2]


def test_the_channels_are_those_of_the_settings(tmp_path: Path) -> None:
    """Of the file that ``gearshift.open`` would find; groups and names are checked as ever."""
    (tmp_path / "gearshift.toml").write_text(
        '[profiles.rabbit]\nbackend = "rabbitmq"\nurl = "${NOT_SET}"\n'
        '[channels.orders]\ngroups = ["billing"]\nrequires = ["durability=broker_restart"]\n'
    )
    app = gearshift.App()
    app.handler("orders", group="biling")(lambda order: None)
    with testing.open() as opened:
        opened.send("orders", 1)
        with pytest.raises(UnknownGroup, match="did you mean 'billing'"):
            opened.run(app)


@pytest.mark.parametrize(("backend", "semantics"), [("kafka", "stream"), ("rabbitmq", "queue")])
def test_semantics_are_those_that_the_profile_would_give(backend: str, semantics: str) -> None:
    """A channel that names none is tested as what it will be."""
    settings: dict[str, Any] = {"profiles": {"live": {"backend": backend}}}
    with testing.open(settings=settings) as opened:
        assert opened.bus.semantics("orders") == semantics


def test_settings_that_are_wrong_are_refused() -> None:
    """A test does not pass with settings that production would refuse."""
    settings = {**MEMORY, "channels": {"orders": {"max_atempts": 3}}}
    with pytest.raises(ConfigError, match="max_attempts"):
        testing.open(settings=settings)


def test_plugins_of_the_app_are_called(harness: testing.Harness) -> None:
    """As a worker calls them, around the handler."""
    seen = []

    class Plugin:
        @hookimpl
        def gearshift_received(self, delivery: gearshift.Delivery[Any]) -> None:
            seen.append(delivery.value)

    app = gearshift.App(plugins=[Plugin()])
    app.handler("orders")(lambda order: None)
    harness.send("orders", 1)
    harness.run(app)
    assert seen == [1]


def test_a_closed_harness_leaves_no_thread(harness: testing.Harness) -> None:
    """Nor an open bus: a suite of thousands of tests opens as many."""
    before = set(threading.enumerate())
    with testing.open(settings=MEMORY) as opened:
        app = gearshift.App()
        app.handler("orders")(lambda order: None)
        opened.send("orders", 1)
        opened.run(app)
    assert set(threading.enumerate()) <= before
    with pytest.raises(GearshiftError):
        opened.send("orders", 2)
