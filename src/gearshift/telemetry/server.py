"""``/metrics`` and ``/healthz`` of a bus over HTTP, on threads of their own."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gearshift._core.clients import Closing
from gearshift.bus import Bus
from gearshift.errors import ConfigError
from gearshift.telemetry.pages import Pages

__all__ = ["TelemetryServer", "parse_address"]


def parse_address(text: str) -> tuple[str, int]:
    """``PORT`` or ``HOST:PORT``; without host it is 127.0.0.1. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(f"{text!r} is not an address for metrics", hint="PORT or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


class TelemetryServer(Closing):
    """Serves ``Pages`` from when it is made until it is closed. Any thread.

    Raises ConfigError if the address cannot be had, MissingExtra without prometheus-client.
    """

    def __init__(self, bus: Bus, host: str, port: int) -> None:
        pages = Pages(bus)
        pages.registry  # noqa: B018  raises now what the first scrape would
        try:
            self._server = _Server((host, port), _handler(pages))
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


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            page = pages.page(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(page.status)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Do not log scrapes."""

    return Handler
