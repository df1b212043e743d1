"""Handlers: plain or async functions that are given the messages of a channel.

::

    app = gearshift.App()

    @app.handler("orders", group="billing", concurrency=8)
    def bill(order: Order) -> None: ...

A handler that returns acks its message. One that raises has it tried again, later and at most
``max_attempts`` times, then it goes to the dead letters; ``Reject`` sends it there at once, and
``Retry`` chooses the delay.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from gearshift.capabilities import Requirement
from gearshift.delivery import Delivery
from gearshift.errors import UsageError
from gearshift.handling.rate_limit import parse_rate
from gearshift.message import DEFAULT_GROUP, validate_name

__all__ = ["App", "Handler", "Reject", "Retry", "load_app", "load_function"]

F = TypeVar("F", bound=Callable[..., Any])


class Reject(Exception):
    """Raised by a handler: this message can never be handled, move it to the dead letters."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Exception):
    """Raised by a handler: try again after ``delay_s`` seconds (None: the channel's backoff)."""

    def __init__(self, delay_s: float | None = None) -> None:
        super().__init__(f"retry, delay_s={delay_s}")
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A registered function and how it wants its messages.

    ``value_type`` is what the body decodes to, from the annotation of the first parameter. If
    that is a Delivery, or there is a second parameter, the function is given the delivery itself.
    """

    function: Callable[..., Any]
    channel: str
    group: str | None
    concurrency: int
    prefetch: int | None
    rate_limit: str | None
    requires: tuple[str, ...]
    value_type: Any
    takes_value: bool
    takes_delivery: bool
    is_async: bool

    @property
    def name(self) -> str:
        """The function's name and what it listens to, for logs."""
        where = f"{self.channel}/{self.group or DEFAULT_GROUP}"
        return f"{getattr(self.function, '__qualname__', self.function)} on {where}"

    def arguments(self, delivery: Delivery[Any]) -> tuple[Any, ...]:
        """What to call the function with. Raises DecodeError."""
        value = (delivery.value,) if self.takes_value else ()
        return (*value, delivery) if self.takes_delivery else value


@dataclass(slots=True)
class App:
    """A set of handlers, run by ``gearshift run module:app`` or ``gearshift.worker.Worker``."""

    handlers: list[Handler] = field(default_factory=list)

    def handler(
        self,
        channel: str,
        *,
        group: str | None = None,
        concurrency: int = 1,
        prefetch: int | None = None,
        rate_limit: str | None = None,
        requires: Sequence[str] = (),
    ) -> Callable[[F], F]:
        """Register a function for ``channel`` and ``group``; it stays callable as it is.

        ``concurrency`` is how many messages a process handles at once: messages of one key one
        after the other, each on a thread (or, for async functions, all on one event loop).
        ``prefetch`` bounds what the process holds, ``rate_limit`` ("100/s", "30/min", "500/h")
        how many messages it begins in a time; None is the channel's setting (for ``prefetch`` on a
        queue of soft prefetch, such as Kafka's, ``concurrency``). ``requires`` names
        capabilities without which the worker must not start. Raises UsageError, ConfigError and
        InvalidMessage at import, not when the first message comes.
        """
        validate_name(channel, "channel")
        if group is not None:
            validate_name(group, "group")
        if not isinstance(concurrency, int) or not 1 <= concurrency <= 1000:
            raise UsageError(f"concurrency {concurrency!r} is out of range", hint="use 1 to 1000")
        if rate_limit is not None:
            parse_rate(rate_limit)
        Requirement.parse_all(requires)

        def register(function: F) -> F:
            value_type, takes_value, takes_delivery = _signature(function)
            self.handlers.append(
                Handler(
                    function=function,
                    channel=channel,
                    group=group,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    rate_limit=rate_limit,
                    requires=tuple(requires),
                    value_type=value_type,
                    takes_value=takes_value,
                    takes_delivery=takes_delivery,
                    is_async=inspect.iscoroutinefunction(function),
                )
            )
            return function

        return register


def load_app(target: str) -> App:
    """Import ``module:attribute``, with the current folder on the path. Raises UsageError."""
    app = _imported(target, "orders:app")
    attribute = target.partition(":")[2]
    if not isinstance(app, App):
        found = "nothing" if app is None else f"a {type(app).__name__}"
        raise UsageError(
            f"{target!r} is {found}, not a gearshift.App",
            hint=f"write {attribute} = gearshift.App()",
        )
    if not app.handlers:
        raise UsageError(
            f"{target!r} has no handlers", hint="decorate a function with @app.handler"
        )
    return app


def load_function(target: str) -> Callable[..., Any]:
    """Import the function ``module:function`` as ``load_app`` does. Raises UsageError."""
    function = _imported(target, "orders:bill")
    if not callable(function):
        raise UsageError(f"{target!r} is not a function", hint="name one that takes a message")
    return cast(Callable[..., Any], function)


def _imported(target: str, example: str) -> object:
    """What ``module:attribute`` names; None if the module has no such attribute."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"{target!r} is not module:attribute", hint=f"for example {example}")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise UsageError(
            f"there is no module {module_name!r}", hint="run from its folder, or install it"
        ) from error
    return getattr(module, attribute, None)


def _signature(function: Callable[..., Any]) -> tuple[Any, bool, bool]:
    """The value's type, and whether the function takes the value and the delivery."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not 1 <= len(parameters) <= 2:
        raise UsageError(
            f"handler {function!r} takes {len(parameters)} parameters",
            hint="take (value), (value, delivery) or (delivery: Delivery)",
        )
    hints = typing.get_type_hints(function)
    first = hints.get(parameters[0].name, Any)
    if first is Delivery or typing.get_origin(first) is Delivery:
        return (typing.get_args(first) or (Any,))[0], False, True
    return first, True, len(parameters) == 2
