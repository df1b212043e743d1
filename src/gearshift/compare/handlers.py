"""A user's handler, run as a worker runs it and observed: what it is given, and how it settles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from gearshift._observe.access import Access
from gearshift.bus.connections import OPEN_TIMEOUT_S
from gearshift.delivery import Delivery
from gearshift.driver.helpers import Wrapper
from gearshift.errors import StaleDelivery
from gearshift.worker.app import App, Handler
from gearshift.worker.batches import endings
from gearshift.worker.call import Call
from gearshift.worker.dependencies import Provided
from gearshift.worker.dispatch import Dispatcher, Ending
from gearshift.worker.event_loop import EventLoop
from gearshift.worker.loading import load_function

__all__ = ["Compared", "ObservedDelivery", "handler_of", "running"]


def handler_of(target: str) -> tuple[App, Handler]:
    """The function ``module:function`` as an app of its module has it, or as ``App.handler`` would.

    A handler of batches gets batches of one. Raises UsageError.
    """
    function = load_function(target)
    module = sys.modules[target.partition(":")[0]]
    for app in [one for one in vars(module).values() if isinstance(one, App)]:
        for handler in app.handlers:
            if handler.call.function == function:
                return app, handler
    app = App()
    app.handler("compare")(function)
    return app, app.handlers[0]


@dataclass(frozen=True, slots=True)
class Compared:
    """A handler's call, and what runs it as in a worker: with its app's plugins around it."""

    call: Call
    dispatcher: Dispatcher

    def run(self, observed: ObservedDelivery, fails: Callable[[], Any] | None = None) -> Ending:
        """Handle ``observed``, or call what ``fails`` in the handler's place. Blocks."""
        deliveries = [cast(Delivery[Any], observed)]
        body = fails or partial(self.call, deliveries)
        ending = self.dispatcher.run(body, self.call.function, deliveries)
        return endings(ending, deliveries)[0]


@contextmanager
def running(target: str, access: Access, captured: Path, loop: EventLoop) -> Iterator[Compared]:
    """The handler ``target`` with all that a worker gives it: its app's lifespans are entered.

    Async ones on ``loop``, which is the one for its coroutines too. What the bus and the producers
    that it is given send is written to ``captured`` and goes nowhere. Raises as ``Worker.start``.
    """
    app, handler = handler_of(target)
    with ExitStack() as stack:
        bus = stack.enter_context(access.rehearsal(captured, app.plugins))
        provided = Provided(bus, loop)
        stack.callback(provided.close)
        provided.enter(app.lifespans, handler.call.needs, OPEN_TIMEOUT_S)
        yield Compared(handler.call.given_by(provided), Dispatcher(bus.hooks, loop.wait))


class ObservedDelivery(Wrapper):
    """The delivery as a handler sees it; how it is settled is recorded by ``note``.

    An ack is recorded before it is sent, so a SIGKILL cannot leave an ack unrecorded.
    """

    def __init__(
        self,
        delivery: Delivery[Any],
        note: Callable[..., None],
        after_ack: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(delivery)
        self._note = note
        self._after_ack = after_ack

    def ack(self) -> None:
        """See Delivery.ack."""
        self._note("settle", what="ack")
        try:
            self.inner.ack()
        except StaleDelivery:
            self._note("settle", what="stale")
        else:
            if self._after_ack is not None:
                self._after_ack()

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """See Delivery.retry."""
        self._settle(partial(self.inner.retry, delay_s, reason=reason))

    def reject(self, reason: str = "rejected") -> None:
        """See Delivery.reject."""
        self._settle(partial(self.inner.reject, reason))

    def _settle(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        except StaleDelivery:
            self._note("settle", what="stale")
        else:
            self._note("settle", what=str(self.inner.outcome))
