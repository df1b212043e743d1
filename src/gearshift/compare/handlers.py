"""A user's handler, run as a worker runs it and observed: what it is given, and how it settles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from gearshift._observe.wrapper import Wrapper
from gearshift.delivery import Delivery
from gearshift.errors import StaleDelivery, UsageError
from gearshift.worker.app import App, Handler
from gearshift.worker.batches import endings
from gearshift.worker.dispatch import Ending
from gearshift.worker.loading import load_function

__all__ = ["ObservedDelivery", "call", "ending_for", "handler_of"]


def handler_of(target: str) -> Handler:
    """The function ``module:function`` as an app of its module has it, or as ``App.handler`` would.

    A handler of batches gets batches of one.
    """
    function = load_function(target)
    module = sys.modules[target.partition(":")[0]]
    for app in [one for one in vars(module).values() if isinstance(one, App)]:
        for handler in app.handlers:
            if handler.call.function == function:
                return _without_needs(handler, target)
    app = App()
    app.handler("compare")(function)
    return app.handlers[0]


def _without_needs(handler: Handler, target: str) -> Handler:
    if needs := [need.name for need in handler.call.needs]:
        raise UsageError(
            f"{target} is given {', '.join(needs)}, which is only there in a worker",
            hint="name a function that takes a message alone",
        )
    return handler


def call(handler: Handler, delivery: ObservedDelivery) -> Any:
    """Call ``handler`` as a worker would: see ``worker.call``."""
    return handler.call([cast(Delivery[Any], delivery)])


def ending_for(delivery: ObservedDelivery, ending: Ending) -> Ending:
    """What it means for ``delivery`` that its handler ended so: see ``worker.batches``."""
    return endings(ending, [cast(Delivery[Any], delivery)])[0]


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
