"""Handlers that are compared and rehearsed: taken as their app has them, and given what it has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from gearshift._observe.access import Access
from gearshift.compare.handlers import Compared, ObservedDelivery, running
from gearshift.rehearsal import read_captured
from gearshift.worker.event_loop import EventLoop

SERVICE = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
import gearshift, gearshift.aio

class Tax:
    def __init__(self):
        self.loop = asyncio.get_running_loop()

app = gearshift.App()
left, around = [], []

@app.lifespan
async def tax() -> AsyncIterator[Tax]:
    yield Tax()
    left.append("tax")

@app.handler("orders", batch=100)
def bulk(orders: list[int]) -> None:
    if orders != [7]:
        raise gearshift.BatchFailed({0: gearshift.Reject("never")})

@app.handler("bills")
async def bill(
    order: int, tax: Tax, bus: gearshift.aio.Bus, bills: Annotated[gearshift.aio.Producer, "sent"]
) -> None:
    assert tax.loop is asyncio.get_running_loop()
    around.append("handler")
    await bills.send(order)
    await bus.send("mails", order)

@app.around
def final(deliveries, handler) -> Iterator[None]:
    around.append(f"{handler.__name__} of {deliveries[0].value}")
    try:
        yield
    except ValueError as error:
        raise gearshift.Reject(str(error)) from error

@app.around
async def transaction() -> AsyncIterator[None]:
    around.append("transaction")
    yield
    around.append("commit")

@app.around_send
def stamped(outgoing):
    outgoing.set_header("stamp", "1")
"""

Run: TypeAlias = Callable[[str], AbstractContextManager[Compared]]


class Copy:
    """A delivery, as far as a handler's call needs it."""

    body = b"7"

    def __init__(self, value: int) -> None:
        self.value = value


def observed(value: int) -> ObservedDelivery:
    copy: Any = Copy(value)
    return ObservedDelivery(copy, lambda *_, **__: None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Enters ``running`` for a handler of the service; what it sends is in the file captured."""
    (tmp_path / "compared_service.py").write_text(SERVICE)
    (tmp_path / "gearshift.toml").write_text('[profiles.dev]\nbackend = "sqlite"\npath = "d.db"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    access = Access(config="gearshift.toml", profile="dev", channels={})
    loop = EventLoop()
    yield lambda name: running(f"compared_service:{name}", access, Path("captured"), loop)
    loop.close()
    sys.modules.pop("compared_service", None)


def test_a_handler_of_batches_gets_batches_of_one(run: Run) -> None:
    """And ends as a worker would end it."""
    with run("bulk") as handler:
        assert [handler.run(observed(value)).action for value in (7, 8)] == ["ack", "reject"]


def test_a_handler_is_given_states_and_what_it_sends_goes_nowhere(run: Run) -> None:
    """Its app's lifespans are entered on the loop of its coroutines, and left."""
    with run("bill") as handler:
        assert handler.run(observed(7)).error is None
    assert sys.modules["compared_service"].left == ["tax"]
    assert [one.channel for one in read_captured(Path("captured"))] == ["sent", "mails"]
    assert not Path("d.db").exists()


def test_what_an_app_has_around_its_handlers_is_around_them(run: Run) -> None:
    """Also around a poison message, which the scenarios have fail in the handler's place."""

    def fails() -> None:
        raise ValueError("poison")

    with run("bill") as handler:
        handler.run(observed(7))
        service = sys.modules["compared_service"]
        assert service.around == ["bill of 7", "transaction", "handler", "commit"]
        ending = handler.run(observed(7), fails)
    assert (ending.action, ending.reason) == ("reject", "poison")
