"""Prometheus, which is no broker but a server like them: it scrapes what services tell."""

from __future__ import annotations

import os
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

from native_brokers.broker import Broker
from native_brokers.ports import LOOPBACK, require_free
from native_brokers.process import Process
from native_brokers.software import Program, Software

__all__ = ["PROMETHEUS", "PROMTOOL", "Prometheus"]

PROMETHEUS = Program("prometheus", "prometheus")
PROMTOOL = Program("promtool", "prometheus")


class Prometheus(Broker):
    """A Prometheus server of its own."""

    name: ClassVar[str] = "Prometheus"
    port_count: ClassVar[int] = 1

    def __init__(self, configuration: Path) -> None:
        """Run with the file `configuration`, beside which its rules are."""
        super().__init__()
        self._configuration = configuration

    @classmethod
    def software(cls) -> tuple[Software, ...]:
        """The system's package."""
        return (PROMETHEUS,)

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://{LOOPBACK}:{self.port}"

    def _launch(self, directory: Path) -> Process:
        require_free(self._ports)
        command = [
            PROMETHEUS.path(),
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--log.level=warn",
        ]
        return Process(command, env=os.environ, directory=directory, log=self.log)

    def _answers(self) -> bool:
        with (
            suppress(OSError, HTTPException),
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=2.0) as answer,
        ):
            return bool(answer.status == 200)
        return False
