"""Plugins take part in what a bus does, on every embedded backend."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.plugins import install_plugin
from support.waiting import PATIENCE_S, take, until

import gearshift
from gearshift import errors
from gearshift.hooks import ConnectionEvent, Outgoing, hookimpl

CHANNELS: dict[str, Any] = {"orders": {"max_attempts": 2, "retry_delay_s": 0}}

OpenWith = Callable[..., gearshift.Bus]


@pytest.fixture
def open_with(backend: str, tmp_path: Path) -> Iterator[OpenWith]:
    """Opens a bus with these plugins."""
    profile = {"backend": backend} | (
        {"path": str(tmp_path / "t.db")} if backend == "sqlite" else {}
    )
    opened: list[gearshift.Bus] = []

    def make(*plugins: object) -> gearshift.Bus:
        settings = {"profile": "p", "profiles": {"p": profile}, "channels": CHANNELS}
        opened.append(gearshift.open(settings, plugins=plugins))
        return opened[-1]

    yield make
    for bus in opened:
        bus.close()


class Sending:
    """Gives each message a header, and keeps the results."""

    def __init__(self) -> None:
        self.results: list[object] = []

    @hookimpl
    def gearshift_send(self, outgoing: Outgoing) -> None:
        outgoing.set_header("trace", "t")
        outgoing.on_result(self.results.append)


def test_each_way_of_sending_is_changed_and_told_its_results(open_with: OpenWith) -> None:
    """send, submit and send_many; one call and one result for each message."""
    plugin = Sending()
    bus = open_with(plugin)
    with bus.producer("orders") as orders:
        receipts = [orders.send(1), orders.submit(2).result(PATIENCE_S)]
        receipts += orders.send_many([3, 4])  # type: ignore[arg-type]
        orders.flush()
    with bus.consumer("orders") as consumer:
        assert [one.headers["trace"] for one in take(consumer, 4)] == ["t"] * 4
    assert plugin.results == receipts


def test_a_send_that_fails_is_told_to_plugins(open_with: OpenWith) -> None:
    """The error that the sender gets."""
    plugin = Sending()
    orders = open_with(plugin).producer("orders")
    orders._buffer.close(1.0)  # so that nothing can be handed over any more
    orders._opened = type("Open", (), {"closed": False})()
    with pytest.raises(errors.Closed) as caught:
        orders.send(1)
    assert plugin.results == [caught.value]


class Watching:
    """Notes what happens to deliveries."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []

    @hookimpl
    def gearshift_received(self, delivery: gearshift.Delivery[Any]) -> None:
        self.notes.append(("received", delivery.value, delivery.attempt))

    @hookimpl
    def gearshift_settled(
        self, delivery: gearshift.Delivery[Any], outcome: str, reason: str | None, took_s: float
    ) -> None:
        assert took_s >= 0.0
        self.notes.append((outcome, delivery.value, reason))

    @hookimpl
    def gearshift_retry(self, message: gearshift.Message, attempt: int, delay_s: float) -> None:
        self.notes.append(("again", message.body, attempt, delay_s))

    @hookimpl
    def gearshift_dead_letter(
        self, channel: str, group: str, reason: str, error: Exception | None
    ) -> None:
        self.notes.append(("dead", channel, group, reason, error))


def test_what_happens_to_a_delivery_is_told(open_with: OpenWith) -> None:
    """Received, retried, given up, acked."""
    plugin = Watching()
    bus = open_with(plugin)
    bus.producer("orders").send(1)
    with bus.consumer("orders") as consumer:
        take(consumer, 1)[0].retry(reason="busy")
        take(consumer, 1)[0].retry(reason="still busy")
        assert until(lambda: len(plugin.notes) >= 6)
    dead = ("dead", "orders", "default", "gave up after 2 attempts: still busy", None)
    assert sorted(map(str, plugin.notes)) == sorted(
        map(
            str,
            [
                ("received", 1, 1), ("again", b"1", 1, 0.0), ("retry", 1, "busy"),
                ("received", 1, 2), ("reject", 1, "still busy"), dead,
            ],
        )
    )  # fmt: skip


def test_a_settlement_that_comes_too_late_is_stale(open_with: OpenWith) -> None:
    """It is told, and raised as ever."""
    plugin = Watching()
    consumer = open_with(plugin).consumer("orders")
    consumer_bus = consumer._owner
    consumer_bus.producer("orders").send(1)  # type: ignore[attr-defined]
    (delivery,) = take(consumer, 1)
    consumer.close()
    with pytest.raises(errors.StaleDelivery):
        delivery.ack()
    assert plugin.notes[-1] == ("stale", 1, None)


class Around:
    """Refuses one message, and notes what handlers return."""

    def __init__(self) -> None:
        self.handlers: list[str] = []
        self.returned: list[Any] = []

    @hookimpl(wrapper=True)
    def gearshift_handle(
        self, delivery: gearshift.Delivery[Any], handler: Callable[..., Any]
    ) -> Generator[None, Any, Any]:
        self.handlers.append(handler.__name__)
        if delivery.value == 13:
            raise gearshift.Reject("unlucky")
        returned = yield
        self.returned.append(returned)
        return returned


@pytest.mark.parametrize("is_async", [False, True])
def test_a_wrapper_is_around_the_whole_handler(open_with: OpenWith, is_async: bool) -> None:
    """Also around an async one; what it raises counts as raised by the handler."""
    plugin = Around()
    app = gearshift.App(plugins=[plugin])

    if is_async:

        @app.handler("orders")
        async def handle(value: int) -> int:
            return value

    else:

        @app.handler("orders")
        def handle(value: int) -> int:
            return value

    bus = open_with(plugin)
    worker = gearshift.Worker(app, bus)
    worker.start()
    bus.producer("orders").send_many([1, 13])
    assert until(lambda: worker.report.acked == 1 and worker.report.rejected == 1)
    worker.stop()
    assert plugin.handlers == ["handle", "handle"]
    assert plugin.returned == [1]


def test_a_worker_needs_a_bus_with_the_plugins_of_its_app(open_with: OpenWith) -> None:
    """Else half of what they are for would be missing."""
    app = gearshift.App(plugins=[Around()])
    with pytest.raises(errors.UsageError, match="Around") as caught:
        gearshift.Worker(app, open_with())
    assert "plugins=app.plugins" in str(caught.value)


class Broken:
    """Raises in every hook that must not do harm."""

    @hookimpl
    def gearshift_send(self) -> None:
        raise RuntimeError("oops")

    gearshift_received = gearshift_settled = gearshift_retry = gearshift_send


def test_broken_plugins_lose_nothing(open_with: OpenWith, caplog: pytest.LogCaptureFixture) -> None:
    """Each message is sent, delivered and settled, and there is a line for each hook."""
    bus = open_with(Broken())
    bus.producer("orders").send_many([1, 2])
    with caplog.at_level(logging.ERROR, "gearshift"), bus.consumer("orders") as consumer:
        first, second = take(consumer, 2)
        first.ack()
        second.retry()
        (again,) = take(consumer, 1)
        again.ack()
        assert (first.outcome, second.outcome, again.outcome) == ("ack", "retry", "ack")
    assert any("Broken.gearshift_send" in record.getMessage() for record in caplog.records)


class Watcher:
    """Keeps connection events."""

    def __init__(self) -> None:
        self.events: list[ConnectionEvent] = []

    @hookimpl
    def gearshift_connection(self, event: ConnectionEvent) -> None:
        self.events.append(event)


def test_draining_is_told_before_the_bus_is_closed(open_with: OpenWith) -> None:
    """Of each consumer, once."""
    watcher = Watcher()
    with open_with(watcher) as bus:
        consumer = bus.consumer("orders")
        consumer.stop_receiving()
        consumer.close()
    assert watcher.events == [ConnectionEvent("draining", "orders", "default")]


def test_a_consumers_connection_is_lost_and_back(
    open_with: OpenWith, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order, with the reason."""
    watcher = Watcher()
    driver = import_module(f"gearshift.embedded.{backend}.queue").QueueConsumer
    receive = driver.receive
    cut = threading.Event()

    def cut_once(self: Any, *arguments: Any) -> Any:
        if cut.is_set():
            cut.clear()
            raise errors.ConnectionFailed("cut")
        return receive(self, *arguments)

    monkeypatch.setattr(driver, "receive", cut_once)
    bus = open_with(watcher)
    with bus.consumer("orders"):
        cut.set()
        assert until(lambda: len(watcher.events) == 2)
        lost, back = list(watcher.events)  # before it drains
    assert (lost.kind, lost.channel, lost.group) == ("lost", "orders", "default")
    assert isinstance(lost.error, errors.ConnectionFailed)
    assert back == ConnectionEvent("back", "orders", "default")


# ── installed plugins ──


INSTALLED = """
from gearshift.hooks import hookimpl

class Plugin:
    @hookimpl
    def gearshift_send(self, outgoing):
        outgoing.set_header("installed", "yes")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("acme_plugin", None)


def test_an_installed_plugin_takes_part(open_with: OpenWith, site: Path) -> None:
    """Found by its entry point, without a line of the application's."""
    install_plugin(site, INSTALLED)
    bus = open_with()
    bus.producer("orders").send(1)
    with bus.consumer("orders") as consumer:
        assert take(consumer, 1)[0].headers["installed"] == "yes"


def test_an_installed_plugin_that_cannot_be_used_is_named(open_with: OpenWith, site: Path) -> None:
    """With its distribution, when the bus is opened."""
    install_plugin(site, INSTALLED.replace("gearshift_send", "gearshift_sent"))
    with pytest.raises(errors.PluginError, match=r"plugin 'acme' of acme-plugin 1\.0") as caught:
        open_with()
    assert "gearshift_sent" in str(caught.value)


# ── the price ──


def test_without_plugins_a_message_makes_no_call_into_them(bus: gearshift.Bus) -> None:
    """Counted: nothing of ``hooks`` and pluggy runs on the way of a message."""
    called: list[str] = []

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and (
            "hooks" in frame.f_code.co_filename or "pluggy" in frame.f_code.co_filename
        ):
            called.append(frame.f_code.co_name)

    orders = bus.producer("orders")
    with bus.consumer("orders", group="audit") as consumer:
        consumer.ready()
        sys.setprofile(profile)
        try:
            orders.send(1)
            orders.send_many([2, 3])
            for delivery in take(consumer, 3):
                delivery.ack()
        finally:
            sys.setprofile(None)
    assert called == []
