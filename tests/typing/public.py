"""A user's code, as type checkers see it: checked by mypy --strict and pyright, never run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, assert_type

import gearshift
from gearshift import (
    App,
    BatchFailed,
    Bus,
    Capabilities,
    Config,
    Consumer,
    Delivery,
    GroupStatus,
    Headers,
    Message,
    Position,
    Producer,
    Receipt,
    Reject,
    Retry,
    Semantics,
    SendFailed,
    Start,
    Worker,
    aio,
    testing,
)
from gearshift.errors import GearshiftError, OutcomeUnknown
from gearshift.hooks import Outgoing, hookimpl
from gearshift.worker.worker import WorkerReport


@dataclass
class Order:
    order_id: int


def sending(bus: Bus) -> None:
    with bus.producer("orders", requires=["order=key"], create=True) as orders:
        assert_type(orders, Producer)
        assert_type(orders.send({"id": 1}, key="ada", headers={"a": 1}), Receipt)
        assert_type(orders.submit(Order(1)), Future[Receipt])
        assert_type(orders.send_many([1, 2]), list[Receipt | GearshiftError])
        assert_type(orders.message(b"x", headers=[("a", "b"), ("a", b"c")]), Message)
        assert_type(orders.send_many([1, 2], key_by=str), list[Receipt | GearshiftError])
        orders.flush(1.0)
    receipt = orders.send(1)
    assert_type(receipt.position, Position | None)
    assert_type(receipt.id, str)


def receiving(bus: Bus) -> None:
    with bus.consumer("orders", group="billing") as plain:
        assert_type(plain, Consumer[Any])
    with bus.consumer("orders", value_type=Order, prefetch=10, start="latest") as typed:
        assert_type(typed, Consumer[Order])
        for delivery in typed.iterate(idle_timeout_s=1.0):
            assert_type(delivery, Delivery[Order])
            assert_type(delivery.value, Order)
            assert_type(delivery.headers, Headers)
            assert_type(delivery.key, str | bytes | None)
            assert_type(delivery.redelivered, bool | None)
            assert_type(delivery.position, Position | None)
            delivery.retry(delay_s=1.0)
            delivery.reject("why")
        assert_type(typed.receive(10, timeout_s=1.0), list[Delivery[Order]])
        assert_type(iter(typed), Iterator[Delivery[Order]])
        typed.seek("earliest")
        typed.seek(Start.at_time(datetime.now(UTC)))
        typed.seek(Start.at_offsets({0: 5}))
        assert_type(typed.close(), list[str | None])


def opening(config: Config) -> None:
    assert_type(gearshift.open(), Bus)
    assert_type(gearshift.open("amqp://app@localhost"), Bus)
    assert_type(gearshift.open(settings={"profiles": {"p": {"backend": "memory"}}}), Bus)
    assert_type(gearshift.open(config=config), Bus)
    assert_type(Config.from_mapping({"profiles": {}}, profile="p"), Config)


def operating() -> None:
    with gearshift.open(profile="kafka", plugins=[Plugin()]) as bus:
        assert_type(bus, Bus)
        assert_type(bus.semantics("orders"), Semantics)
        assert_type(bus.capabilities("orders"), Capabilities)
        assert_type(bus.groups("orders"), Sequence[GroupStatus])
        assert_type(bus.groups("orders")[0].lag, int | None)
        assert_type(bus.purge("orders", "billing"), int | None)


class Plugin:
    @hookimpl(wrapper=True)
    def gearshift_handle(self, delivery: Delivery[Any]) -> Generator[None, object, object]:
        return (yield)

    @hookimpl
    def gearshift_send(self, outgoing: Outgoing) -> None:
        outgoing.set_header("a", 1)
        assert_type(outgoing.message, Message)
        outgoing.on_result(lambda result: assert_type(result, Receipt | GearshiftError))


app = App(plugins=[Plugin()])


@app.handler("orders", group="billing", concurrency=8, requires=["dead_letter"])
def bill(order: Order) -> None:
    if order.order_id < 0:
        raise Reject("no such order")


@app.handler("orders")
async def audit(order: Order, delivery: Delivery[Order]) -> None:
    raise Retry(delay_s=2.0)


class Pool: ...


@app.lifespan
def pool() -> Iterator[Pool]:
    yield Pool()


@app.around
def timed(deliveries: list[Delivery[Any]]) -> Iterator[None]:
    yield


@app.handler("orders", group="archive", batch=500, linger_s=0.2)
def archive(orders: list[Order], pool: Pool, bills: Annotated[Producer, "bills"]) -> None:
    raise BatchFailed({0: Reject("never"), 1: ValueError()})


@app.handler("relayed")
async def relay(order: Order, bus: aio.Bus) -> None:
    assert_type(await bus.send("orders", order, key="ada", timeout_s=5.0), Receipt)


@app.around_send
async def signed(outgoing: Outgoing) -> None:
    outgoing.set_header("signature", b"")


def running(bus: Bus) -> None:
    assert_type(bus.send("orders", Order(1), id="1"), Receipt)
    worker = Worker(app, bus)
    worker.start(timeout_s=5.0)
    worker.ready()
    assert_type(worker.state(Pool), Pool)
    assert_type(worker.stop(drain_timeout_s=5.0), WorkerReport)
    assert_type(app.run("gearshift.toml", profile="rabbit", metrics="9102"), WorkerReport)


def handlers_stay_callable() -> None:
    bill(Order(1))
    bill("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def tested(app: App) -> None:
    with testing.open("gearshift.toml", profile="rabbit") as harness:
        assert_type(harness, testing.Harness)
        assert_type(harness.send("orders", Order(1), key="ada"), Receipt)
        harness.run(app, for_s=60.0)
        assert_type(harness.sent("orders"), list[Any])
        assert_type(harness.sent("orders", Order), list[Order])
        assert_type(harness.settled("orders", "billing"), list[testing.Settled])
        harness.run(app, 60.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def failing(orders: Producer) -> None:
    try:
        orders.send(1)
    except OutcomeUnknown as error:
        assert_type(error.message_id, str | None)
    except GearshiftError as error:
        assert_type(error.hint, str | None)
        assert_type(error.retryable, bool)
    except SendFailed as error:  # pyright: ignore[reportUnusedExcept]
        assert_type(error.results, list[Receipt | GearshiftError])


def mistakes(bus: Bus) -> None:
    """What a checker must complain of: an ignore that is not needed fails the check."""
    gearshift.open(settings=["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bus.producer(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bus.consumer("orders", prefetch="10")  # type: ignore[call-overload]  # pyright: ignore
    bus.consumer("orders", start="offset")  # type: ignore[call-overload]  # pyright: ignore
    bus.producer("orders").message(1, headers={"a": 1.5})  # type: ignore[arg-type]  # pyright: ignore
    bus.producer("orders").send(1, hedaers={})  # type: ignore[call-arg]  # pyright: ignore
    bus.producer("orders").submit(1, key=5)  # type: ignore[arg-type]  # pyright: ignore
    bus.producer("orders").send_many([1], key=str)  # type: ignore[call-arg]  # pyright: ignore
    Message(body=b"").body = b"x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
