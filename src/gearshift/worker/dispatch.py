"""What the way in which a handler ends means for its message.

One set of rules for whoever runs handlers: the worker, ``compare`` and its rehearsals. No I/O here.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from gearshift._core.consuming.retry import checked_delay_s
from gearshift.delivery import BaseDelivery, Delivery
from gearshift.errors import DeadlineExceeded, DecodeError, UsageError
from gearshift.hooks.registry import Hooks

__all__ = [
    "BatchFailed",
    "Dispatcher",
    "Ending",
    "Reject",
    "Retry",
    "Settleable",
    "ending_of",
    "late",
    "run",
]


class Reject(Exception):
    """Raised by a handler: this message can never be handled, move it to the dead letters."""

    reason: str = "rejected by the handler"

    def __init__(self, reason: str = reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raised by a handler: try again after ``delay_s`` seconds (None: the channel's backoff)."""

    delay_s: float | None = None

    def __init__(self, delay_s: float | None = None) -> None:
        super().__init__(f"retry, delay_s={delay_s}")
        self.delay_s = delay_s


class BatchFailed(Exception):
    """Raised by a handler of batches: these of its messages have failed, the others are done.

    ``errors`` gives the error of each: its key is the delivery, or its place in the batch from 0.
    Each ends as if a handler had raised that for it alone: ``Reject`` and ``Retry`` included. The
    others are acked.
    """

    def __init__(self, errors: Mapping[int | BaseDelivery[Any], BaseException]) -> None:
        hint = 'raise BatchFailed({3: ValueError("why")})'
        if not isinstance(errors, Mapping):
            what = f"{errors!r}, which does not say of which message"
            raise UsageError(f"BatchFailed is given {what}", hint=hint)
        wrong = [one for one in errors.values() if not isinstance(one, BaseException)]
        if wrong or not errors:
            what = f"{wrong[0]!r}, which is not an error" if wrong else "no message"
            raise UsageError(f"BatchFailed is given {what}", hint=hint)
        first = next(iter(errors.values()))
        super().__init__(f"{len(errors)} failed, the first with {type(first).__name__}: {first}")
        self.errors = dict(errors)

    def by_place(self, deliveries: Sequence[BaseDelivery[Any]]) -> dict[int, BaseException]:
        """The errors by place in the batch. Raises UsageError for one that is not in it."""
        places = {id(delivery): place for place, delivery in enumerate(deliveries)}
        found: dict[int, BaseException] = {}
        for key, error in self.errors.items():
            place = key if isinstance(key, int) else places.get(id(key), -1)
            if not 0 <= place < len(deliveries):
                raise UsageError(
                    f"BatchFailed names {key!r}, which is not in the batch",
                    hint=f"name deliveries of the batch, or places 0 to {len(deliveries) - 1}",
                )
            found[place] = error
        return found


class Settleable(Protocol):
    """A delivery, as far as an ending needs it."""

    def ack(self) -> None: ...

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None: ...

    def reject(self, reason: str = ...) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The ``action`` that settles the message, and why.

    ``error`` is what the handler raised, ``returned`` what it returned.
    """

    action: Literal["ack", "retry", "reject"]
    delay_s: float | None = None
    reason: str = ""
    error: BaseException | None = None
    returned: object = None

    @property
    def failed(self) -> bool:
        """True if the handler raised an error, other than to ask for its Reject or Retry."""
        named = self.error.errors.values() if isinstance(self.error, BatchFailed) else [self.error]
        return not all(one is None or isinstance(one, Reject | Retry) for one in named)

    def settle(self, delivery: Settleable) -> None:
        """Settle ``delivery`` accordingly. Blocks and raises as the Delivery's methods do."""
        if self.action == "ack":
            delivery.ack()
        elif self.action == "retry":
            delivery.retry(self.delay_s, reason=self.reason or None)
        else:
            delivery.reject(self.reason)


_LAZY = (types.GeneratorType, types.AsyncGeneratorType, map, filter)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, partial)


def run(
    body: Callable[[], Any],
    wait: Callable[[Awaitable[Any]], Any],
    around: Callable[[Callable[[], Any]], Any] | None = None,
) -> Ending:
    """Run a handler's ``body`` to its end, and return how it ended.

    An awaitable that it returns is part of the body: ``wait`` blocks for its result. So is a
    Future, such as ``Producer.submit`` gives. ``around`` is called with all of this.
    Raises only the KeyboardInterrupt of the main thread, which is meant for the program.
    """
    try:
        if around is None:
            returned = _complete(body, wait)
        else:
            returned = around(partial(_complete, body, wait))
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return ending_of(error)
    except BaseException as error:  # also sys.exit() and CancelledError: a worker goes on
        return ending_of(error)
    return Ending(action="ack", returned=returned)


class Dispatcher:
    """Runs handlers with the plugins of a bus around them, on the caller's thread or event loop.

    ``wait`` blocks until an awaitable is done. Any thread.
    """

    def __init__(self, hooks: Hooks, wait: Callable[[Awaitable[Any]], Any]) -> None:
        self._hooks = hooks
        self._wait = wait

    def run(
        self,
        body: Callable[[], Any],
        handler: Callable[..., Any],
        deliveries: Sequence[Delivery[Any]],
    ) -> Ending:
        """Run ``body``, the call of ``handler`` with ``deliveries``, as the function ``run``."""
        hooks, wait, around = self._hooks, self._wait, None
        if hooks.within is not None:
            within = partial(hooks.within, deliveries, handler)

            def wait(awaitable: Awaitable[Any]) -> Any:
                return self._wait(within(awaitable))

        if hooks.handle is not None:
            around = partial(hooks.handle, deliveries, handler)
        return run(body, wait, around)

    async def run_async(
        self,
        body: Callable[[], Any],
        handler: Callable[..., Any],
        deliveries: Sequence[Delivery[Any]],
        timeout_s: float | None = None,
    ) -> Ending:
        """As ``run``, on an event loop, which awaits what the handler returns.

        After ``timeout_s`` seconds that is cancelled, and has failed. Raises nothing.
        """
        hooks = self._hooks

        async def complete() -> Any:
            returned = body()
            try:
                async with asyncio.timeout(timeout_s) as limit:
                    while _is_awaited(returned):
                        if isinstance(returned, Future):
                            returned = asyncio.wrap_future(returned)
                        if hooks.within is not None:
                            returned = hooks.within(deliveries, handler, returned)
                        returned = await returned
            except TimeoutError:
                if limit.expired():
                    raise late(timeout_s) from None
                raise
            return _checked(returned)

        try:
            if hooks.around is None:
                returned = await complete()
            else:
                returned = await hooks.around(deliveries, handler, complete)
        except BaseException as error:
            return ending_of(error)
        return Ending(action="ack", returned=returned)


def late(timeout_s: float | None) -> DeadlineExceeded:
    """The error of a handler that took too long."""
    return DeadlineExceeded(f"the handler took longer than timeout_s = {timeout_s:g}")


def _complete(body: Callable[[], Any], wait: Callable[[Awaitable[Any]], Any]) -> Any:
    returned = body()
    while _is_awaited(returned):
        returned = returned.result() if isinstance(returned, Future) else wait(returned)
    return _checked(returned)


def _is_awaited(returned: object) -> bool:
    return inspect.isawaitable(returned) or isinstance(returned, Future)


def _checked(returned: object) -> object:
    """Return what a handler returned. Raises UsageError if its body has not run, or has failed."""
    # A decorator can hide from ``Call.of`` what a function does; here it shows.
    unfinished = getattr(returned, "gen", returned)  # contextlib.contextmanager keeps it there
    if isinstance(unfinished, _LAZY):
        raise UsageError(
            f"the handler returned a {type(unfinished).__name__}, whose body has not run",
            hint="a handler must not yield, and must go through what it maps itself",
        )
    if isinstance(returned, list | tuple) and returned and _is_awaited(returned[0]):
        raise UsageError(
            f"the handler returned a {type(returned).__name__} of what nobody awaits",
            hint="await asyncio.gather(*them), or ask each future for its result()",
        )
    if isinstance(returned, _FUNCTIONS):
        raise UsageError(
            "the handler returned a function, which nobody calls",
            hint="a decorator may lack its parentheses: @retry() instead of @retry",
        )
    if isinstance(returned, BaseException) or (
        isinstance(returned, type) and issubclass(returned, BaseException)
    ):
        raise UsageError(
            f"the handler returned the error {returned!r}", hint="raise it: returning means success"
        )
    return returned


def ending_of(error: BaseException) -> Ending:
    """What it means that a handler raised ``error``."""
    if isinstance(error, Reject):
        return Ending(action="reject", reason=_text(error.reason), error=error)
    if isinstance(error, Retry):
        try:
            checked_delay_s(error.delay_s)
        except UsageError as wrong:
            wrong.__cause__ = error  # its traceback shows where the delay was chosen
            return ending_of(wrong)
        return Ending(action="retry", delay_s=error.delay_s, error=error)
    if isinstance(error, DecodeError):
        return Ending(action="reject", reason=_text(error), error=error)
    reason = f"{type(error).__name__}: {_text(error)}"
    return Ending(action="retry", reason=reason, error=error)


def _text(value: object) -> str:
    """Return ``str(value)``, also if the value's class fails at that, even with SystemExit."""
    try:
        return str(value)
    except BaseException:
        return f"a {type(value).__name__} without text"
