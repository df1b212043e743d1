"""What handlers are given besides messages, modules of an app, and its own middleware."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypedDict

import pytest
from support.waiting import PATIENCE_S, ack_all, take, until

import gearshift
from gearshift import App, Worker, aio, errors
from gearshift.bus.connections import Connections
from gearshift.hooks import Outgoing

SETTINGS = {
    "profile": "m",
    "profiles": {"m": {"backend": "memory"}},
    "channels": {"orders": {"retry_delay_s": 0.01}, "bills": {}, "mails": {}},
}


class Pool:
    """A state of a service."""

    is_open = True


class Limits(TypedDict):
    """Parts of a state, by name."""

    most: int
    rate: float


@contextmanager
def running(app: App) -> Iterator[tuple[Worker, gearshift.Bus]]:
    """A worker of ``app`` for the block, on a bus of its own."""
    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:
        worker = Worker(app, bus)
        try:
            worker.start()
            yield worker, bus
        finally:
            worker.stop()


def test_states_are_entered_before_the_first_message_and_left_after_the_last() -> None:
    """In their order and the other way round; given by type, by a part's name, and by keyword."""
    app = App()
    notes: list[object] = []

    @app.lifespan
    def pool() -> Iterator[Pool]:
        notes.append("pool in")
        opened = Pool()
        yield opened
        opened.is_open = False
        notes.append("pool out")

    @app.lifespan
    async def limits() -> AsyncIterator[Limits]:
        notes.append(asyncio.get_running_loop())
        task = asyncio.current_task()
        yield {"most": 5, "rate": 0.5}
        assert asyncio.current_task() is task
        notes.append("limits out")

    @app.handler("orders")
    async def handle(pool: Pool, order: int, *, most: int) -> None:
        assert pool.is_open
        notes.append((order, most, asyncio.get_running_loop()))

    with running(app) as (worker, bus):
        bus.producer("orders").send(7)
        assert until(lambda: worker.report.acked)
    loop = notes[1]
    assert notes == ["pool in", loop, (7, 5, loop), "limits out", "pool out"]


def test_plain_handlers_of_batches_are_given_states_too() -> None:
    """Before, between and after what is of the messages."""
    app = App()
    given: list[Any] = []

    @app.lifespan
    def pool() -> Iterator[Pool]:
        yield Pool()

    @app.handler("orders", batch=2, linger_s=3600.0)
    def handle(orders: list[int], pool: Pool, deliveries: list[gearshift.Delivery]) -> None:
        given.append((orders, type(pool), [one.value for one in deliveries]))

    with running(app) as (worker, bus):
        bus.producer("orders").send_many([1, 2])
        assert until(lambda: worker.report.acked == 2)
    assert given == [([1, 2], Pool, [1, 2])]


@pytest.mark.parametrize("fails", ["in", "in a coroutine", "exit"])
def test_a_state_that_fails_at_the_start_ends_it_and_leaves_the_others(fails: str) -> None:
    """No message is received, and one line says which it was."""
    app = App()
    left = []

    @app.lifespan
    def pool() -> Iterator[Pool]:
        try:
            yield Pool()
        finally:
            left.append("pool")

    def broken() -> Iterator[None]:
        raise OSError("database is away")
        yield

    async def broken_too() -> AsyncIterator[None]:
        raise OSError("database is away")
        yield

    async def leaving() -> AsyncIterator[None]:
        raise SystemExit(3)
        yield

    app.lifespan({"in": broken, "in a coroutine": broken_too, "exit": leaving}[fails])
    app.handler("orders")(lambda order: None)
    expected = SystemExit if fails == "exit" else errors.GearshiftError
    with pytest.raises(expected) as caught, running(app):
        pass
    if fails != "exit":
        assert "failed: OSError: database is away" in str(caught.value)
        assert "broken" in str(caught.value)
    assert left == ["pool"]


@pytest.mark.parametrize("error", [OSError("late"), SystemExit(3), asyncio.CancelledError()])
def test_a_state_that_fails_at_the_end_holds_up_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the report comes, and the states that were entered before are left."""
    app, left = App(), []

    @app.lifespan
    def pool() -> Iterator[Pool]:
        try:
            yield Pool()
        finally:
            left.append("pool")

    @app.lifespan
    async def failing() -> AsyncIterator[None]:
        yield
        raise error

    app.handler("orders")(lambda order: None)
    with running(app):
        pass
    assert "a lifespan has failed at the end" in caplog.text
    assert left == ["pool"]


def test_a_start_that_is_tried_again_enters_states_once(monkeypatch: Any) -> None:
    """The broker came late; the state did not."""
    app = App()
    entered = []

    @app.lifespan
    def pool() -> Iterator[Pool]:
        entered.append(1)
        yield Pool()

    app.handler("orders")(lambda order: None)
    with gearshift.open(settings=SETTINGS) as bus:
        worker = Worker(app, bus)
        real = bus.consumer
        with monkeypatch.context() as patch:
            patch.setattr(bus, "consumer", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                worker.start()
        assert bus.consumer == real
        worker.start()
        worker.stop()
    assert entered == [1]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_a_handler_sends_is_stored_before_its_message_is_acked(kind: str) -> None:
    """Producers are connected once, with the worker, and given by their channel."""
    app = App()
    seen: list[Any] = []

    def bill(order: int, bills: Annotated[gearshift.Producer, "bills"]) -> None:
        seen.append(bills)
        bills.send({"order": order})

    async def bill_async(order: int, bills: Annotated[aio.Producer, "bills"]) -> None:
        seen.append(bills)
        await bills.send({"order": order})

    app.handler("orders")(bill if kind == "plain" else bill_async)
    with running(app) as (worker, bus):
        bus.producer("orders").send_many([1, 2])
        assert until(lambda: worker.report.acked == 2)
        assert ack_all(take(bus.consumer("bills"), 2)) == [{"order": 1}, {"order": 2}]
    assert len(set(map(id, seen))) == 1


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_sends_by_the_bus_to_what_its_message_names(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One producer for each channel, connected with the first message to it."""
    app = App()

    def relay(to: str, bus: gearshift.Bus) -> None:
        bus.send(to, {"to": to}, key="ada")

    async def relay_async(to: str, bus: aio.Bus) -> None:
        await bus.send(to, {"to": to}, key="ada")

    producers: list[str] = []
    real = Connections.buffer

    def buffer(self: Connections, spec: Any, *arguments: Any) -> Any:
        producers.append(spec.name)
        return real(self, spec, *arguments)

    monkeypatch.setattr(Connections, "buffer", buffer)
    app.handler("orders")(relay if kind == "plain" else relay_async)
    with running(app) as (worker, bus):
        bus.producer("orders").send_many(["bills", "mails"] * 10)
        assert until(lambda: worker.report.acked == 20)
        sent = [one for channel in ("bills", "mails") for one in take(bus.consumer(channel), 10)]
        assert {(one.value["to"], one.key) for one in sent} == {("bills", "ada"), ("mails", "ada")}
    assert sorted(producers) == ["bills", "mails", "orders"]


def nothing_provides(order: int, delivery: gearshift.Delivery, pool: Pool) -> None: ...


def two_values(order: int, pool: Pool) -> None: ...


def by_keyword(order: int, *, pool: Pool) -> None: ...


def no_channel(order: int, bills: gearshift.Producer) -> None: ...


async def wrong_kind(order: int, bills: Annotated[gearshift.Producer, "bills"]) -> None: ...


def wrong_kind_too(order: int, bills: Annotated[aio.Producer, "bills"]) -> None: ...


async def wrong_bus(order: int, bus: gearshift.Bus) -> None: ...


@pytest.mark.parametrize(
    ("function", "why", "hint"),
    [
        (nothing_provides, "needs 'order', 'delivery', 'pool'", "@app.lifespan"),
        (two_values, "not one of them is the delivery or provided", "def two_values(value)"),
        (by_keyword, "needs 'pool' by keyword, which nothing provides", "def by_keyword(value)"),
        (no_channel, "does not say for which channel", 'Annotated[gearshift.Producer, "CHANNEL"]'),
        (wrong_kind, "is an async function", 'Annotated[gearshift.aio.Producer, "bills"]'),
        (wrong_kind_too, "is a plain function", 'Annotated[gearshift.Producer, "bills"]'),
        (wrong_bus, "is an async function", "write bus: gearshift.aio.Bus"),
    ],
)
def test_a_parameter_that_nothing_provides_is_refused_at_registration(
    function: Callable[..., Any], why: str, hint: str
) -> None:
    """With the signature that would do."""
    with pytest.raises(errors.UsageError) as caught:
        App().handler("orders")(function)
    assert why in str(caught.value)
    assert hint in str(caught.value.hint)


def yields_a_number() -> Iterator[int]:
    yield 1


def takes_something(pool: Pool) -> Iterator[Pool]:
    yield pool


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: None, "does not yield"),
        (yields_a_number, "which handlers could not ask for"),
        (takes_something, "takes parameters"),
    ],
)
def test_a_lifespan_that_cannot_be_used_is_refused(function: Any, why: str) -> None:
    """At registration."""
    with pytest.raises(errors.UsageError, match=why):
        App().lifespan(function)


# ── modules ──


def test_an_app_takes_on_what_another_has() -> None:
    """Handlers, plugins and lifespans; what both have is taken once."""
    entered = []

    def pool() -> Iterator[Pool]:
        entered.append(1)
        yield Pool()

    plugin = object()
    app, billing = App(plugins=[plugin]), App(plugins=[plugin])
    app.lifespan(pool)
    billing.lifespan(pool)

    @billing.handler("orders")
    def bill(order: int, pool: Pool) -> None: ...

    app.include(billing)
    assert app.handlers == billing.handlers
    assert app.plugins == (plugin,)
    app.plugins = ()
    with running(app):
        pass
    assert entered == [1]


def test_two_handlers_of_a_group_are_refused_with_their_names() -> None:
    """Each would get a part of the messages; nothing of the other app is taken on."""
    app, other = App(), App()
    app.handler("orders")(two_orders := lambda order: None)
    other.handler("bills")(lambda bill: None)
    other.handler("orders", group="default")(lambda order: None)
    two_orders.__qualname__ = "bill"
    with pytest.raises(errors.UsageError) as caught:
        app.include(other)
    assert "would share its messages with bill on orders/default" in str(caught.value)
    assert len(app.handlers) == 1


def test_two_lifespans_that_provide_the_same_are_refused() -> None:
    """A handler could not say which it wants."""
    app = App()

    def one() -> Iterator[Pool]:
        yield Pool()

    def two() -> Iterator[Pool]:
        yield Pool()

    app.lifespan(one)
    with pytest.raises(errors.UsageError, match=r"one and .*two both provide Pool"):
        app.lifespan(two)


# ── middleware ──


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_apps_own_functions_are_around_its_handlers(kind: str) -> None:
    """Outermost first; an async one is around async handlers only."""
    app = App()
    notes: list[str] = []

    @app.around
    def outer(deliveries: list[gearshift.Delivery]) -> Generator[None]:
        notes.append(f"outer {deliveries[0].value}")
        yield
        notes.append("outer out")

    @app.around
    def inner(handler: Any) -> Generator[None]:
        notes.append(handler.__name__)
        yield

    @app.around
    async def awaited(delivery: gearshift.Delivery) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        notes.append("awaited")
        yield

    def plain(order: int) -> None:
        notes.append("handler")

    async def coroutine(order: int) -> None:
        notes.append("handler")

    app.handler("orders")(plain if kind == "plain" else coroutine)
    with running(app) as (worker, bus):
        bus.producer("orders").send(7)
        assert until(lambda: worker.report.acked)
    if kind == "plain":
        assert notes == ["outer 7", "plain", "handler", "outer out"]
    else:
        assert notes == ["outer 7", "coroutine", "awaited", "handler", "outer out"]


def test_an_apps_own_functions_see_what_is_sent_and_its_result() -> None:
    """One that yields is given the receipt; one that does not is called."""
    app = App()
    results: list[object] = []
    told = threading.Event()

    @app.around_send
    def stamped(outgoing: Outgoing) -> None:
        outgoing.set_header("stamp", "1")

    @app.around_send
    def watched(outgoing: Outgoing) -> Generator[None, object]:
        results.append(outgoing.message.headers["stamp"])
        results.append((yield))
        told.set()

    with running(app) as (_, bus):
        receipt = bus.producer("orders").send(7)
        assert told.wait(PATIENCE_S)
    assert results == ["1", receipt]


@pytest.mark.parametrize("is_many", [False, True])
def test_an_apps_coroutines_are_around_what_coroutines_send(is_many: bool) -> None:
    """Awaited in the sender's task, before plain ones; what one raises is logged, and nothing else.

    Threads that send do not call them.
    """
    app = App()
    notes: list[object] = []

    @app.around_send
    def plain(outgoing: Outgoing) -> None:
        notes.append(outgoing.message.headers.get("stamp"))

    @app.around_send
    async def stamped(out: Outgoing) -> None:
        await asyncio.sleep(0)
        out.set_header("stamp", "1")
        out.on_result(lambda result: notes.append(result))

    @app.around_send
    async def watched(outgoing: Outgoing) -> AsyncIterator[None]:
        notes.append(asyncio.current_task())
        notes.append((yield))

    @app.around_send
    async def broken(outgoing: Outgoing) -> None:
        outgoing.set_header("stamp", "2")
        raise OSError("the key server is away")

    async def service(bus: gearshift.Bus) -> None:
        async with aio.Bus(bus).producer("orders") as orders:
            receipt = (await orders.send_many([7]))[0] if is_many else await orders.send(7)
        assert notes == [asyncio.current_task(), "1", receipt, receipt]

    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:
        asyncio.run(service(bus))
        del notes[:]
        bus.send("orders", 8)
        assert notes == [None]


@pytest.mark.parametrize("is_many", [False, True])
def test_a_coroutine_around_a_send_that_hangs_ends_it_in_time(is_many: bool) -> None:
    """Nothing is sent, and nothing that comes after overtakes it."""
    app = App()
    ended: list[int] = []

    @app.around_send
    async def stuck(outgoing: Outgoing) -> AsyncIterator[None]:
        try:
            if outgoing.message.body == b"1":
                await asyncio.Event().wait()
            yield
        finally:
            ended.append(1)

    async def service(bus: gearshift.Bus) -> list[Any]:
        async with aio.Bus(bus).producer("orders") as orders:
            if is_many:
                return await orders.send_many([0, 1, 2], timeout_s=0.2, raise_on_error=False)
            await orders.send(0)
            with pytest.raises(errors.DeadlineExceeded, match="nothing was sent"):
                await orders.send(1, timeout_s=0.05)
            sending = asyncio.create_task(orders.send(1))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await sending
            assert "was not handed over" in cancelled.value.__notes__[0]
            return []

    with gearshift.open(settings=SETTINGS, plugins=app.plugins) as bus:
        results = asyncio.run(service(bus))
        assert [type(one).__name__ for one in results[1:]] == ["DeadlineExceeded"] * (2 * is_many)
        assert ack_all(take(bus.consumer("orders"), 1)) == [0]
        assert [state.ready for state in bus.groups("orders")] == [0]
    assert ended


@pytest.mark.parametrize(
    ("register", "function", "why"), [("around", lambda: None, "does not yield")]
)
def test_middleware_that_cannot_be_called_is_refused(
    register: str, function: Any, why: str
) -> None:
    """Where it is registered."""
    with pytest.raises(errors.UsageError, match=why):
        getattr(App(), register)(function)


def test_middleware_of_one_message_is_refused_where_there_are_batches() -> None:
    """It would see the first of each only."""
    app = App()

    @app.around
    def timed(delivery: gearshift.Delivery) -> Generator[None]:
        yield

    @app.handler("orders", batch=10)
    def handle(orders: list[int]) -> None: ...

    with (
        pytest.raises(errors.UsageError, match=r"timed takes one delivery, and .*handle"),
        running(app),
    ):
        pass
