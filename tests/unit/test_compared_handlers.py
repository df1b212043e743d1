"""Handlers that are compared and rehearsed: taken as their app has them, and given what it has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearshift._observe.access import Access
from gearshift.compare.handlers import call, ending_for, handler_of, running
from gearshift.rehearsal import read_captured
from gearshift.worker.dispatch import run
from gearshift.worker.event_loop import EventLoop

SERVICE = """
import asyncio
from collections.abc import AsyncIterator
from typing import Annotated
import gearshift, gearshift.aio

class Tax:
    def __init__(self):
        self.loop = asyncio.get_running_loop()

app = gearshift.App()
left = []

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
    await bills.send(order)
    await bus.send("mails", order)

@app.around_send
def stamped(outgoing):
    outgoing.set_header("stamp", "1")
"""


class Copy:
    """A delivery, as far as a handler's call needs it."""

    body = b"7"

    def __init__(self, value: int) -> None:
        self.value = value


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "compared_service.py").write_text(SERVICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("compared_service", None)


def test_a_handler_of_batches_gets_batches_of_one() -> None:
    """And ends as a worker would end it."""
    _, handler = handler_of("compared_service:bulk")
    for value, action in [(7, "ack"), (8, "reject")]:
        copy: object = Copy(value)
        ending = run(lambda copy=copy: call(handler, copy), lambda _: None)  # type: ignore[misc]
        assert ending_for(copy, ending).action == action  # type: ignore[arg-type]


def test_a_handler_is_given_states_and_what_it_sends_goes_nowhere(tmp_path: Path) -> None:
    """Its app's lifespans are entered on the loop of its coroutines, and left."""
    (tmp_path / "gearshift.toml").write_text('[profiles.dev]\nbackend = "sqlite"\npath = "d.db"\n')
    access = Access(config="gearshift.toml", profile="dev", channels={})
    loop, captured = EventLoop(), tmp_path / "captured"
    try:
        with running("compared_service:bill", access, captured, loop) as handler:
            copy: object = Copy(7)
            ending = run(lambda: call(handler, copy), loop.wait)  # type: ignore[arg-type]
            assert ending.error is None
        service = sys.modules["compared_service"]
        assert service.left == ["tax"]
    finally:
        loop.close()
    assert [one.channel for one in read_captured(captured)] == ["sent", "mails"]
    assert not (tmp_path / "d.db").exists()
