"""``/metrics`` and ``/healthz`` of a bus over HTTP, on threads of their own."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gearshift._core.clients import Closing
from gearshift.bus import Bus
from gearshift.errors import ConfigError
from gearshift.extras import importing
from gearshift.telemetry import health

__all__ = ["TelemetryServer", "parse_address"]


def parse_address(text: str) -> tuple[str, int]:
    """``PORT`` or ``HOST:PORT``; without host it is 127.0.0.1. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(f"{text!r} is not an address for metrics", hint="PORT or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


class TelemetryServer(Closing):
    """Serves from when it is made until it is closed. Any thread.

    ``/metrics`` also tells what waits for the groups of the configured channels. ``/healthz`` is
    200, or 503 with what is wrong; ``degraded``, in either case, is what a restart would not mend.
    Raises ConfigError if the address cannot be had, MissingExtra without prometheus-client.
    """

    def __init__(self, bus: Bus, host: str, port: int) -> None:
        try:
            self._server = _Server((host, port), _handler(bus))
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {host}:{port}: {error.strerror or error}",
                hint="choose another port",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="gearshift-telemetry", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port; the one that was free if 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that sends nothing must not hold up the end


def _handler(bus: Bus) -> type[BaseHTTPRequestHandler]:
    with importing("prometheus"):
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder
    from gearshift.telemetry.prometheus import BusCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(BusCollector(bus, depth_of=tuple(bus.config.channels)))
    ProcessCollector(registry=registry)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(HTTPStatus.OK, encode(registry), content_type)
            elif path == "/healthz":
                problems, degraded = health.problems(bus), health.degraded(bus)
                status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
                found = {"healthy": not problems, "problems": problems, "degraded": degraded}
                self._answer(status, json.dumps(found).encode(), "application/json")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics or /healthz\n", "text/plain")

        def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Do not log scrapes."""

    return Handler
