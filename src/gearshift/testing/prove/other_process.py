"""A second process that stands still where it is told to, and goes on or is killed there."""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from gearshift.errors import UsageError

__all__ = ["OtherProcess", "Stop"]

#: Called in the other process: tells the first one a value, and blocks for what that answers.
Stop: TypeAlias = Callable[[Any], Any]


class OtherProcess:
    """Runs ``work``, which gets a ``Stop``, in a fork of this process. One thread.

    A fork, as handlers may be functions that no import finds; leaving the block kills it. Raises
    UsageError where there is no fork.
    """

    def __init__(self, work: Callable[[Stop], Any]) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise UsageError("this system has no fork, so no second process can be made")
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(work, theirs), daemon=True)
        with warnings.catch_warnings():  # other threads' locks: it makes what it uses itself
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def told(self, until: float) -> Any:
        """What it tells next, or what ``work`` returns. Blocks until a monotonic time.

        Raises TimeoutError, and UsageError if ``work`` has failed.
        """
        if not self._pipe.poll(max(0.0, until - time.monotonic())):
            raise TimeoutError("the second process did not come to the point of the story")
        try:
            error, value = self._pipe.recv()
        except EOFError:
            raise UsageError("the second process has ended by itself") from None
        if error is not None:
            raise UsageError(error)
        return value

    def go_on(self, answer: Any) -> None:
        """Let it go on where it stands."""
        self._pipe.send((None, answer))

    def kill(self) -> None:
        """SIGKILL it, wherever it is. Again does nothing."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _run(work: Callable[[Stop], Any], pipe: Any) -> None:
    def stop(value: Any) -> Any:
        pipe.send((None, value))
        return pipe.recv()[1]

    try:
        pipe.send((None, work(stop)))
    except UsageError as error:
        pipe.send((str(error), None))
    except BaseException as error:
        pipe.send((f"in the second process: {type(error).__name__}: {error}", None))
    pipe.recv()  # until it is killed: nothing here may be closed in an orderly way
