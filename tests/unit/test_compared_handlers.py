"""Handlers that are compared and rehearsed: taken as their app has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearshift import errors
from gearshift.compare.handlers import call, ending_for, handler_of
from gearshift.worker.dispatch import run

SERVICE = """
from typing import Annotated
import gearshift

app = gearshift.App()

@app.handler("orders", batch=100)
def bulk(orders: list[int]) -> None:
    if orders != [7]:
        raise gearshift.BatchFailed({0: gearshift.Reject("never")})

@app.handler("bills")
def bill(order: int, bills: Annotated[gearshift.Producer, "sent"]) -> None: ...
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
    handler = handler_of("compared_service:bulk")
    for value, action in [(7, "ack"), (8, "reject")]:
        copy: object = Copy(value)
        ending = run(lambda copy=copy: call(handler, copy), lambda _: None)  # type: ignore[misc]
        assert ending_for(copy, ending).action == action  # type: ignore[arg-type]


def test_a_handler_that_needs_a_worker_is_refused() -> None:
    """By the name of what it is given."""
    with pytest.raises(errors.UsageError, match="is given bills, which is only there in a worker"):
        handler_of("compared_service:bill")
