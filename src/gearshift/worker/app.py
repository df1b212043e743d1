"""Handlers: plain or async functions that are given the messages of a channel.

::

    app = gearshift.App()

    @app.handler("orders", group="billing", concurrency=8)
    def bill(order: Order) -> None: ...

A handler that returns acks its message. One that raises has it tried again, later and at most
``max_attempts`` times, then it goes to the dead letters; ``Reject`` sends it there at once, and
``Retry`` chooses the delay. How it is called and what each way of ending means: dispatch.py.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from gearshift._core.consuming.rate_limit import parse_rate
from gearshift.capabilities import Requirement
from gearshift.errors import GearshiftError, UsageError
from gearshift.message import DEFAULT_GROUP, validate_name
from gearshift.worker.dispatch import Call, Reject, Retry

__all__ = ["App", "Handler", "Reject", "Retry", "load_app", "load_function"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A registered function and how it wants its messages."""

    call: Call
    channel: str
    group: str | None
    concurrency: int
    prefetch: int | None
    rate_limit: str | None
    requires: tuple[str, ...]

    @property
    def name(self) -> str:
        """The function's name and what it listens to, for logs."""
        where = f"{self.channel}/{self.group or DEFAULT_GROUP}"
        function = self.call.function
        return f"{getattr(function, '__qualname__', function)} on {where}"


@dataclass(slots=True)
class App:
    """A set of handlers, run by ``gearshift run module:app`` or a ``Worker``."""

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

        It takes ``(value)``, ``(value, delivery: Delivery)`` in any order, or ``(delivery:
        Delivery)``; the annotation of the value is the type that the body decodes to.
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
            self.handlers.append(
                Handler(
                    call=Call.of(function),
                    channel=channel,
                    group=group,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    rate_limit=rate_limit,
                    requires=tuple(requires),
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
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _not_importable(module_name, error) from error
        raise UsageError(
            f"there is no module {module_name!r}", hint="run from its folder, or install it"
        ) from error
    except GearshiftError:
        raise
    except (Exception, SystemExit) as error:
        raise _not_importable(module_name, error) from error
    return getattr(module, attribute, None)


def _not_importable(module_name: str, error: BaseException) -> UsageError:
    """One error with the line of the user's own code that it came from."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not _is_installed(Path(frame.filename))
    ]
    place = f"{own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    return UsageError(
        f"{module_name!r} cannot be imported: {type(error).__name__}: {what}",
        hint=f"see {place}" if place else None,
    )


def _is_installed(file: Path) -> bool:
    """Of Python's or somebody else's code, ours included."""
    library = Path(os.__file__).parent
    return "site-packages" in file.parts or file.is_relative_to(library) or file == Path(__file__)
