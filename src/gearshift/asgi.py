"""Handlers inside an ASGI service (FastAPI, Starlette): started, drained and watched with it.

::

    app = gearshift.App()
    messaging = gearshift.asgi.Lifespan(app, profile="prod")
    api = FastAPI(lifespan=messaging)
    api.mount("/messaging", messaging.telemetry)  # /messaging/healthz, /messaging/metrics

``messaging.bus`` is a ``gearshift.aio.Bus`` for what requests send.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gearshift import aio
from gearshift._core import logs
from gearshift.config import Config
from gearshift.errors import GearshiftError, UsageError
from gearshift.telemetry.pages import Pages
from gearshift.worker.app import App
from gearshift.worker.worker import DRAIN_TIMEOUT_S, Worker

__all__ = ["Lifespan"]

log = logging.getLogger("gearshift.worker")

_START_TIMEOUT_S = 1.0  # for each try
_RETRY_AFTER_S = 1.0

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Lifespan:
    """The ``lifespan`` of an ASGI service that runs ``app``'s handlers beside its requests.

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
            aio.open,
            source,
            profile=profile,
            settings=settings,
            config=config,
            plugins=app.plugins,
        )
        self._drain_timeout_s = drain_timeout_s
        self._bus: aio.Bus | None = None
        self._worker: Worker | None = None
        self._pages: Pages | None = None
        self._obstacle: str | None = None  # to the start of the handlers

    @property
    def bus(self) -> aio.Bus:
        """The open bus. Raises UsageError before the service has started."""
        if self._bus is None:
            raise UsageError("the service has not started", hint="use it in its lifespan")
        return self._bus

    @asynccontextmanager
    async def __call__(self, service: object = None) -> AsyncIterator[None]:
        """Run the handlers for as long as the block. This is what the framework calls."""
        async with self._open() as bus:
            worker = Worker(self._app, bus.sync)
            self._bus, self._worker = bus, worker
            stopping = asyncio.Event()
            starting: asyncio.Task[None] | None = None
            try:
                if not await self._start(worker):
                    starting = asyncio.create_task(self._start_later(worker, stopping))
                yield
            finally:
                stopping.set()
                if starting is not None:
                    await starting
                await self._drain(worker)
                self._bus = self._worker = self._pages = None

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

    async def _start(self, worker: Worker) -> bool:
        """Start the handlers; False if the broker is not there. Raises what is not waited for."""
        try:
            await asyncio.to_thread(worker.start, timeout_s=_START_TIMEOUT_S)
        except GearshiftError as error:
            if not error.retryable:
                raise
            self._obstacle = str(error)
            return False
        self._obstacle = None
        log.info("handlers have started")
        return True

    async def _start_later(self, worker: Worker, stopping: asyncio.Event) -> None:
        waiting = logs.LimitedLog(log, burst=1, period_s=logs.SAY_AGAIN_S)
        try:
            while not stopping.is_set():
                waiting.warning("waiting for the broker: %s", self._obstacle)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _RETRY_AFTER_S)
                    return
                if await self._start(worker):
                    return
        except GearshiftError as error:
            self._obstacle = str(error)
            log.error("the handlers cannot be started: %s", error)

    async def _drain(self, worker: Worker) -> None:
        log.info("draining: nothing more is received, up to %.0f s", self._drain_timeout_s)
        report = await asyncio.to_thread(worker.stop, self._drain_timeout_s)
        log.info(
            "stopped: %d acked, %d retried, %d rejected; %d in hand will be delivered again",
            report.acked, report.retried, report.rejected, len(report.unfinished),
        )  # fmt: skip

    def _problems(self) -> Sequence[str]:
        found = [] if self._obstacle is None else [f"handlers have not started: {self._obstacle}"]
        if self._worker is not None and self._worker.error is not None:
            found.append(f"a thread that handlers need has ended: {self._worker.error!r}")
        return found
