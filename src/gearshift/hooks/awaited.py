"""What plugins await around the sends of coroutines."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias, cast

import pluggy

from gearshift.errors import DeadlineExceeded, GearshiftError
from gearshift.hooks.specs import Outgoing
from gearshift.message import Message, SendResult

__all__ = ["AroundSends", "AwaitedHooks"]

Running: TypeAlias = AsyncGenerator[None, SendResult]


@dataclass(frozen=True, slots=True)
class AwaitedHooks:
    """Implementations of ``gearshift_send_async``, in their order; ``failed`` logs an error."""

    implementations: Sequence[pluggy.HookImpl]
    failed: Callable[[Callable[..., Any], Exception], None]


@dataclass(slots=True)
class AroundSends:
    """Plugins around what one call sends: ``begin`` with the messages, ``end`` with all results.

    An ``async with`` block, in the sender's task; leaving it ends what was not told of a result.
    ``check`` raises if a changed message cannot be sent. ``deadline`` is by the loop's clock.
    """

    hooks: AwaitedHooks
    backend: str
    channel: str
    check: Callable[[Message], object]
    deadline: float
    _begun: list[tuple[int, Outgoing, list[Running]]] = field(default_factory=list)
    _places: int = 0  # of results, so far

    async def begin(self, message: Message) -> Message:
        """The message as plugins want it. Raises DeadlineExceeded: then it was not sent."""
        import asyncio  # whose loop runs; hooks of threads load without it

        outgoing = Outgoing(self.backend, self.channel, message)
        running: list[Running] = []
        self._begun.append((self._places, outgoing, running))
        self._places += 1
        try:
            async with asyncio.timeout_at(self.deadline) as limit:
                for one in self.hooks.implementations:
                    await self._begin(one, outgoing, running)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                "plugins around the send took longer than timeout_s; nothing was sent",
                backend=self.backend,
                channel=self.channel,
            ) from None
        return outgoing.message

    async def begin_all(
        self, prepared: Sequence[Message | GearshiftError], deadline: float
    ) -> tuple[list[Message | GearshiftError], GearshiftError | None]:
        """The messages as plugins want them; what takes too long is refused, with all behind it."""
        self.deadline = deadline
        found: list[Message | GearshiftError] = []
        refused: GearshiftError | None = None
        for one in prepared:
            if refused is not None or not isinstance(one, Message):
                self._places += 1
                found.append(refused or one)
                continue
            try:
                found.append(await self.begin(one))
            except DeadlineExceeded as error:
                refused = error
                found.append(error)
        return found, refused

    async def end(self, results: Sequence[SendResult]) -> None:
        """Tell plugins the result of each message, in the reverse order."""
        for place, outgoing, running in self._begun:
            for one in reversed(running):
                with self._logged(one):
                    await one.asend(results[place])
            for callback in reversed(outgoing.callbacks):
                with self._logged(callback):
                    callback(results[place])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _place, _outgoing, running in self._begun:
            for one in reversed(running):
                with self._logged(one):
                    await one.aclose()

    async def _begin(
        self, one: pluggy.HookImpl, outgoing: Outgoing, running: list[Running]
    ) -> None:
        before = outgoing.message
        try:
            called: Any = one.function(*(outgoing for _ in one.argnames))
            if inspect.isasyncgen(called):
                running.append(cast(Running, called))
                with contextlib.suppress(StopAsyncIteration):
                    await anext(called)
            else:
                await called
            if outgoing.message is not before:
                self.check(outgoing.message)
        except Exception as error:
            outgoing.message = before
            self.hooks.failed(one.function, error)

    @contextlib.contextmanager
    def _logged(self, function: Any) -> Any:
        try:
            yield
        except StopAsyncIteration:
            return
        except Exception as error:
            self.hooks.failed(function, error)
