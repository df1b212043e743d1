"""Handlers inside an ASGI service (FastAPI, Starlette): started, drained and watched with it.

::

    app = gearshift.App()
    messaging = Lifespan(app, profile="prod")
    api = FastAPI(lifespan=messaging)
    api.mount("/messaging", messaging.telemetry)  # /messaging/healthz, /messaging/metrics

``messaging.bus`` is a ``gearshift.aio.Bus`` for what requests send; ``messaging.state(Pool)`` is
what a lifespan of the app has yielded.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gearshift import aio
from gearshift.config import Config
from gearshift.errors import GearshiftError, UsageError
from gearshift.telemetry.pages import Pages
from gearshift.worker.app import App
from gearshift.worker.service import START_TIMEOUT_S, drain, start
from gearshift.worker.worker import DRAIN_TIMEOUT_S, Worker

__all__ = ["Lifespan"]

T = TypeVar("T")

log = logging.getLogger("gearshift.worker")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Lifespan:
    """The ``lifespan`` of an ASGI service that runs ``app``'s handlers beside its requests.

    Async handlers and the app's async lifespans run on the event loop of the service, so they and
    its requests can share pools and clients that belong to it. Plain ones run on threads.

    Arguments are those of ``gearshift.open``; the plugins are the app's. At startup the bus is
    opened and the handlers begin. A broker that is not there yet is waited for in the background,
    and ``healthz`` says so; what waiting does not mend ends the startup. At shutdown nothing more
    is received, and handlers have ``drain_timeout_s`` seconds to finish.
    """

    def __init__(
        self,
        app: App,
        source: str | Path | Mapping[str, Any] | Config | None = None,
        *,
        profile: str | None = None,
        settings: Mapping[str, Any] | None = None,
        config: Config | None = None,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._open = partial(
            aio.open, source, profile=profile, settings=settings, config=config, plugins=app.plugins
        )
        self._drain_timeout_s = drain_timeout_s
        self._bus: aio.Bus | None = None
        self._worker: Worker | None = None
        self._pages: Pages | None = None
        self._obstacle: BaseException | None = None  # to the start of the handlers

    @property
    def bus(self) -> aio.Bus:
        """The open bus. Raises UsageError before the service has started."""
        if self._bus is None:
            raise UsageError("the service has not started", hint="use it in its lifespan")
        return self._bus

    def state(self, kind: type[T]) -> T:
        """What a lifespan of the app has yielded, by its type. Raises UsageError."""
        if self._worker is None:
            raise UsageError("the service has not started", hint="use it in its lifespan")
        return self._worker.state(kind)

    @asynccontextmanager
    async def __call__(self, service: object = None) -> AsyncIterator[None]:
        """Run the handlers for as long as the block. This is what the framework calls."""
        async with self._open() as bus:
            worker = Worker(self._app, bus.sync, loop=asyncio.get_running_loop())
            self._bus, self._worker = bus, worker
            stop = threading.Event()
            starting: asyncio.Task[bool] | None = None
            try:
                try:
                    await asyncio.to_thread(worker.start, timeout_s=START_TIMEOUT_S)
                except GearshiftError as error:
                    if not error.retryable:
                        raise
                    self._obstacle = error
                    starting = asyncio.create_task(asyncio.to_thread(start, worker, stop))
                    starting.add_done_callback(self._started)
                yield
            finally:
                stop.set()
                if starting is not None:
                    await asyncio.wait([starting])
                log.info("draining: nothing more is received, up to %.0f s", self._drain_timeout_s)
                await asyncio.to_thread(drain, worker, self._drain_timeout_s)
                self._bus = self._worker = self._pages = self._obstacle = None

    async def telemetry(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """An ASGI application with ``/healthz`` and ``/metrics``, to be mounted anywhere."""
        if scope["type"] != "http":
            raise UsageError(f"telemetry answers HTTP, not {scope['type']}")
        self._pages = self._pages or Pages(self.bus.sync, self._problems)
        path = "/" + scope["path"].rstrip("/").rpartition("/")[2]
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        page = await asyncio.to_thread(self._pages.page, path, accept)
        headers = [
            (b"content-type", page.content_type.encode()),
            (b"content-length", str(len(page.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})

    def _started(self, starting: asyncio.Task[bool]) -> None:
        self._obstacle = starting.exception()
        if self._obstacle is not None:
            log.error("the handlers cannot be started: %s", self._obstacle)

    def _problems(self) -> Sequence[str]:
        found = [] if self._obstacle is None else [f"handlers have not started: {self._obstacle}"]
        if self._worker is not None and self._worker.error is not None:
            found.append(f"a thread that handlers need has ended: {self._worker.error!r}")
        return found
