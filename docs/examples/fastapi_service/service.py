"""An HTTP service that takes orders and bills them, in one process, on whichever broker.

uvicorn --app-dir docs/examples/fastapi_service service:api
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, HTTPException

import gearshift
from gearshift.asgi import Lifespan
from gearshift.telemetry.tracing import Tracing

app = gearshift.App(plugins=[Tracing()])
messaging = Lifespan(app)
#: What is billed, by order. A real service has a table for it.
billed: dict[int, int] = {}


class Order(msgspec.Struct):
    """An order as it travels."""

    order_id: int
    cents: int


@app.handler("orders", group="billing", concurrency=100, timeout_s=30)
async def bill(order: Order, delivery: gearshift.Delivery[Order]) -> None:
    """Bill an order; the first attempt of every seventh fails, as things do."""
    if order.order_id % 7 == 0 and delivery.attempt == 1:
        raise RuntimeError("the card reader is busy")
    billed[order.order_id] = order.cents


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    """Handlers run, and a producer is open, for as long as the service."""
    async with messaging(api), messaging.bus.producer("orders") as orders:
        api.state.orders = orders
        yield


api = FastAPI(lifespan=lifespan)
api.mount("/messaging", messaging.telemetry)


@api.post("/orders/{order_id}", status_code=202)
async def take(order_id: int, cents: int) -> dict[str, Any]:
    """Take an order: it is stored by the broker when this returns."""
    receipt = await api.state.orders.send(Order(order_id, cents), key=str(order_id))
    return {"id": receipt.id}


@api.get("/orders/{order_id}")
async def show(order_id: int) -> dict[str, int]:
    """Show what was billed for an order."""
    if order_id not in billed:
        raise HTTPException(404, "not billed yet")
    return {"order_id": order_id, "cents": billed[order_id]}
