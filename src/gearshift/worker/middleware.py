"""An app's own functions around handlers and sends, made into plugins."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from gearshift.driver.plugin import hookimpl
from gearshift.errors import UsageError
from gearshift.hooks import Outgoing
from gearshift.message import SendResult
from gearshift.worker.signature import function_name

__all__ = ["AppPlugin", "around_handlers", "around_sends"]


class AppPlugin:
    """A plugin with the hooks that a function of the app is made into; has its name."""

    def __init__(self, function: Callable[..., Any], **hooks: Callable[..., Any]) -> None:
        self.__name__ = function_name(function)
        for name, hook in hooks.items():
            setattr(self, name, hook)

    def __repr__(self) -> str:
        return f"<{self.__name__} of the app>"


def around_handlers(function: Callable[..., Any]) -> AppPlugin:
    """A plugin of a generator function, plain or async. Raises UsageError."""
    if inspect.isgeneratorfunction(function):
        return AppPlugin(function, gearshift_handle=hookimpl(wrapper=True)(function))
    if inspect.isasyncgenfunction(function):
        context = contextlib.asynccontextmanager(function)
        return AppPlugin(function, gearshift_handle_async=hookimpl(context))
    raise UsageError(
        f"{function_name(function)} does not yield, so nothing can run inside of it",
        hint="write def around(deliveries): ...; yield; ...",
    )


def around_sends(function: Callable[..., Any]) -> AppPlugin:
    """A plugin of a function of an Outgoing, plain or async, which may yield for the result."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return AppPlugin(function, gearshift_send_async=hookimpl(_of_awaited(function)))
    if not inspect.isgeneratorfunction(function):
        return AppPlugin(function, gearshift_send=hookimpl(_of_outgoing(function)))

    def gearshift_send(outgoing: Outgoing) -> None:
        running = function(outgoing)
        next(running)
        outgoing.on_result(lambda result: _told(running, result))

    return AppPlugin(function, gearshift_send=hookimpl(gearshift_send))


def _of_outgoing(function: Callable[..., Any]) -> Callable[[Outgoing], None]:
    def gearshift_send(outgoing: Outgoing) -> None:
        function(outgoing)

    return gearshift_send


def _of_awaited(function: Callable[..., Any]) -> Callable[[Outgoing], Any]:
    if inspect.isasyncgenfunction(function):

        async def generator(outgoing: Outgoing) -> AsyncGenerator[None, SendResult]:
            async with contextlib.aclosing(function(outgoing)) as running:
                with contextlib.suppress(StopAsyncIteration):
                    await anext(running)
                    await running.asend((yield))

        return generator

    async def gearshift_send_async(outgoing: Outgoing) -> None:
        await function(outgoing)

    return gearshift_send_async


def _told(running: Generator[None, SendResult, None], result: SendResult) -> None:
    with contextlib.suppress(StopIteration):
        running.send(result)
