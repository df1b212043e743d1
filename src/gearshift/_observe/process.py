"""Worker processes: started with a job, then drained, frozen or killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

__all__ = ["WorkerProcess", "read_job"]

T = TypeVar("T")


class WorkerProcess:
    """A Python process that runs ``main`` of ``module``, which reads ``job`` from its stdin.

    What it prints goes to the file ``output``. Close it; that kills what still runs.
    """

    def __init__(self, module: str, job: msgspec.Struct, output: Path) -> None:
        self._output = output
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {module} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
            )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(msgspec.json.encode(job))

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line that it printed; empty if it printed none."""
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGKILL, SIGSTOP, SIGCONT or SIGTERM."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        self._process.wait(timeout_s)

    def close(self, timeout_s: float = 0.0) -> None:
        """Wait ``timeout_s`` for its end, then kill it. Idempotent."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def read_job(type_: type[T]) -> T:
    """The job of the worker process that calls this."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=type_)
