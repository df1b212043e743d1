"""What ``/metrics`` and ``/healthz`` answer, for whichever server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from gearshift.bus import Bus
from gearshift.errors import MissingExtra
from gearshift.extras import importing
from gearshift.telemetry import health

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Page", "Pages"]


class Page(NamedTuple):
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str


class Pages:
    """The pages of ``bus``. Any thread.

    ``/metrics`` also tells what waits for the groups of the configured channels. ``/healthz`` is
    200, or 503 with what is wrong; ``degraded``, in either case, is what a restart would not mend.
    ``more`` adds problems of whoever runs the bus.
    """

    def __init__(self, bus: Bus, more: Callable[[], Sequence[str]] = list) -> None:
        self._bus = bus
        self._more = more

    def page(self, path: str, accept: str = "") -> Page:
        """Answer a GET of ``path``. Blocks for two seconds at most, while the broker is asked."""
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/healthz":
            return self._health()
        return Page(HTTPStatus.NOT_FOUND, b"/metrics or /healthz\n", "text/plain")

    @cached_property
    def registry(self) -> CollectorRegistry:
        """The metrics of the bus and of this process. Raises MissingExtra."""
        with importing("prometheus"):
            from prometheus_client import CollectorRegistry, ProcessCollector
        from gearshift.telemetry.prometheus import BusCollector

        registry = CollectorRegistry(auto_describe=False)
        registry.register(BusCollector(self._bus, depth_of=tuple(self._bus.config.channels)))
        ProcessCollector(registry=registry)
        return registry

    def _metrics(self, accept: str) -> Page:
        try:
            registry = self.registry
        except MissingExtra as error:
            return Page(HTTPStatus.NOT_IMPLEMENTED, f"{error}\n".encode(), "text/plain")
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return Page(HTTPStatus.OK, encode(registry), content_type)

    def _health(self) -> Page:
        problems = [*self._more(), *health.problems(self._bus)]
        found = {
            "healthy": not problems,
            "problems": problems,
            "degraded": health.degraded(self._bus),
        }
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return Page(status, json.dumps(found).encode(), "application/json")
