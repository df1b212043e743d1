"""A received message in a coroutine's hands, to be settled once."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from gearshift._core.consuming.retry import checked_delay_s
from gearshift.delivery import BaseDelivery

__all__ = ["Delivery"]

T = TypeVar("T")


class Delivery(BaseDelivery[T]):
    """One delivery of a message. Settle it with ``ack``, ``retry`` or ``reject``.

    As ``gearshift.Delivery``. Only a rejection, or a retry that has no attempt left, awaits
    something: room in the buffer of the dead letters. Whoever is cancelled meanwhile has
    settled it.
    """

    async def ack(self) -> None:
        """Done: it is gone for this group. See ``gearshift.Delivery.ack``."""
        self._settle(self._subscription.ack)

    async def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None:
        """Not done: deliver it again later. See ``gearshift.Delivery.retry``."""
        checked_delay_s(delay_s)
        if self._subscription.is_last(self._entry):
            await asyncio.to_thread(
                self._settle, self._subscription.retry, delay_s, reason, reason=reason
            )
        else:
            self._settle(self._subscription.retry, delay_s, reason, reason=reason)

    async def reject(self, reason: str = "rejected") -> None:
        """It cannot be handled: move it to the dead letters. See ``gearshift.Delivery.reject``."""
        await asyncio.to_thread(self._settle, self._subscription.reject, reason, reason=reason)
