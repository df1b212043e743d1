"""The tutorial, followed to the letter: its files written, its commands run, what it shows seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE_S, until

import gearshift
from native_brokers import Kafka, RabbitMQ

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_FENCE = re.compile(r"(.*?)^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"[Ww]rite `([\w.]+)`:\s*\Z")


class Reader:
    """Somebody with two terminals in one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._exports = ""
        self._second: subprocess.Popen[bytes] | None = None
        self._screens = folder / "screens"
        self._screens.touch()
        self._seen = 0

    def read(self, prose: str, language: str, text: str) -> None:
        """Do what one block and the words before it say."""
        if "Ctrl-C" in prose:
            self.stop()
        if file := _FILE.search(prose):
            (self._folder / file[1]).write_text(text)
        elif language == "sh" and "second terminal" in prose:
            self._second = self._start(text)
        elif language == "sh":
            assert self._start(text).wait(PATIENCE_S) == 0, text + self._screens.read_text()
            self._exports += "".join(re.findall(r"^export .*\n", text, re.MULTILINE))
        elif language == "text":
            assert until(lambda: text.strip() in self._new()), text + self._screens.read_text()

    def stop(self) -> None:
        """Press Ctrl-C in the second terminal."""
        if self._second is not None:
            os.killpg(self._second.pid, signal.SIGINT)
            assert self._second.wait(PATIENCE_S) == 0, self._screens.read_text()
            self._second = None

    def _new(self) -> str:
        """What was shown since the last command began."""
        return self._screens.read_text()[self._seen :]

    def kill(self) -> None:
        """Whatever still runs must not outlive the test."""
        if self._second is not None and self._second.poll() is None:
            os.killpg(self._second.pid, signal.SIGKILL)
            self._second.wait()

    def _start(self, commands: str) -> subprocess.Popen[bytes]:
        self._seen = len(self._screens.read_text())
        with self._screens.open("ab") as screens:
            return subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self._exports + commands],
                cwd=self._folder, env=self._environment, stdout=screens, stderr=screens,
                start_new_session=True,
            )  # fmt: skip


@pytest.fixture
def environment(rabbitmq: RabbitMQ, kafka: Kafka) -> Iterator[dict[str, str]]:
    """The tutorial's profiles, at the addresses of the tests' brokers, which are left as found."""
    yield os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RABBIT_PASSWORD": "unused",
        "GEARSHIFT_PROFILES__RABBIT__URL": rabbitmq.url,
        "GEARSHIFT_PROFILES__KAFKA__BOOTSTRAP_SERVERS": f'["{kafka.url}"]',
    }
    for url, channel in ((rabbitmq.url, "orders"), (f"kafka://{kafka.url}", "clicks")):
        with gearshift.open(url) as bus:
            bus.delete(channel)


@pytest.mark.broker
@pytest.mark.timeout(240)
def test_the_tutorial_works(tmp_path: Path, environment: dict[str, str]) -> None:
    """From an empty folder over SQLite and RabbitMQ to Kafka."""
    reader = Reader(tmp_path, environment)
    try:
        for prose, language, text in _FENCE.findall(TUTORIAL.read_text()):
            reader.read(prose, language, text)
    finally:
        reader.kill()
