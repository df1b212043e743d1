"""How a handler is called with a message, and what the way it ends means for that message.

One set of rules for whoever runs handlers: the worker, ``compare`` and its rehearsals. No threads
and no I/O here; who calls says how an awaitable is waited for.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
import typing
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from gearshift._core.consuming.retry import checked_delay_s
from gearshift.delivery import Delivery
from gearshift.errors import DecodeError, UsageError

__all__ = ["Call", "Ending", "Reject", "Retry", "Settleable", "run"]


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


# ── How it ended ─────────────────────────────────────────────────────────────────────────────────


class Settleable(Protocol):
    """What an ending needs of a delivery."""

    def ack(self) -> None: ...

    def retry(self, delay_s: float | None = None, *, reason: str | None = None) -> None: ...

    def reject(self, reason: str = ...) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What becomes of the message: ``action``, and why.

    ``error`` is what the handler raised, ``returned`` what it returned. ``failed`` is True where
    that is a fault to be logged, False where the handler asked for it with Reject or Retry.
    """

    action: Literal["ack", "retry", "reject"]
    delay_s: float | None = None
    reason: str = ""
    error: BaseException | None = None
    returned: object = None

    @property
    def failed(self) -> bool:
        return self.error is not None and not isinstance(self.error, Reject | Retry)

    def settle(self, delivery: Settleable) -> None:
        """Settle ``delivery`` accordingly. Blocks and raises as the Delivery's methods do."""
        if self.action == "ack":
            delivery.ack()
        elif self.action == "retry":
            delivery.retry(self.delay_s, reason=self.reason or None)
        else:
            delivery.reject(self.reason)


def run(body: Callable[[], Any], wait: Callable[[Awaitable[Any]], Any]) -> Ending:
    """Run a handler's ``body`` to its end, and say what that means.

    An awaitable that it returns is part of the body: ``wait`` blocks for its result, or raises. So
    is a Future, as of ``Producer.submit``.
    Raises nothing but a KeyboardInterrupt of the main thread, which is meant for the program.
    """
    try:
        returned = body()
        while inspect.isawaitable(returned) or isinstance(returned, Future):
            returned = returned.result() if isinstance(returned, Future) else wait(returned)
        _refuse_unfinished(returned)
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return _ending_of(error)
    except BaseException as error:  # sys.exit() and CancelledError too: none may end a worker
        return _ending_of(error)
    return Ending(action="ack", returned=returned)


def _refuse_unfinished(returned: object) -> None:
    """A decorator can hide from ``Call.of`` that a function is a generator; here it shows."""
    returned = getattr(returned, "gen", returned)  # as contextlib.contextmanager keeps it
    if isinstance(returned, types.GeneratorType | types.AsyncGeneratorType):
        raise UsageError(
            "the handler returned a generator, whose body has not run",
            hint="a handler must not yield",
        )


def _ending_of(error: BaseException) -> Ending:
    if isinstance(error, Reject):
        return Ending(action="reject", reason=_text(error.reason), error=error)
    if isinstance(error, Retry):
        try:
            checked_delay_s(error.delay_s)
        except UsageError as wrong:
            wrong.__cause__ = error  # its traceback shows where the delay was chosen
            return _ending_of(wrong)
        return Ending(action="retry", delay_s=error.delay_s, error=error)
    if isinstance(error, DecodeError):
        return Ending(action="reject", reason=_text(error), error=error)
    reason = f"{type(error).__name__}: {_text(error)}"
    return Ending(action="retry", reason=reason, error=error)


def _text(value: object) -> str:
    """``str(value)``, whatever a class of the user's makes of it."""
    try:
        return str(value)
    except Exception:
        return f"a {type(value).__name__} without text"


# ── How it is called ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function and what it is given: ``parameters`` names "value" and "delivery" in its order.

    ``value_type`` is what the body decodes to; ``takes_none`` says whether that may be None, which
    is the value of a tombstone.
    """

    function: Callable[..., Any]
    parameters: tuple[Literal["value", "delivery"], ...]
    value_type: Any
    takes_none: bool

    @staticmethod
    def of(function: object) -> Call:
        """Read ``function``'s signature. Raises UsageError if one message cannot be its argument.

        It takes ``(value)``, ``(value, delivery)`` in any order, or ``(delivery)``. A delivery is
        told by its annotation ``Delivery``; of two parameters also by the bare name ``delivery``.
        What has a default may stay without an argument.
        """
        if not callable(function) or isinstance(function, type):
            raise _refusal(function, "is not a function")
        if _yields(function):
            raise _refusal(function, "yields, so a call would not run its body")
        try:
            signature, plain = _signature(function)
        except (TypeError, ValueError) as error:
            raise _refusal(function, "does not say what it takes") from error
        taken = _taken(function, signature)
        types_of = {one.name: _annotation(one, plain) for one in taken}
        deliveries = [name for name, annotation in types_of.items() if _is_delivery(annotation)]
        if not deliveries and len(taken) == 2 and types_of.get("delivery") is Any:
            deliveries = ["delivery"]
        if len(taken) == 2 and taken[1].name not in deliveries and _has_default(taken[1]):
            del taken[1]
        if len(taken) == 2 and len(deliveries) != 1:
            both = " and ".join(repr(one.name) for one in taken)
            raise _refusal(function, f"takes {both}, and not one of them is the delivery")
        values = [one.name for one in taken if one.name not in deliveries]
        value_type = types_of[values[0]] if values else _value_of(types_of[deliveries[0]])
        return Call(
            function=function,
            parameters=tuple("value" if one.name in values else "delivery" for one in taken),
            value_type=value_type,
            takes_none=_takes_none(value_type),
        )

    def __call__(self, delivery: Delivery[Any]) -> Any:
        """Call the function; what it returns, an awaitable included. Raises DecodeError."""
        if "value" in self.parameters and delivery.body is None and not self.takes_none:
            raise DecodeError(
                f"a tombstone (a message without a body) for a handler of {_name(self.value_type)}",
                hint="annotate the parameter with | None to be given None",
            )
        arguments = [delivery.value if one == "value" else delivery for one in self.parameters]
        return self.function(*arguments)


def _taken(function: object, signature: inspect.Signature) -> list[inspect.Parameter]:
    """The one or two parameters that may get an argument. Raises UsageError."""
    parameters = list(signature.parameters.values())
    positional = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if positional and positional[0].name in ("self", "cls"):
        raise _refusal(
            function,
            f"is a method without its {positional[0].name!r}",
            hint="register it on an instance: app.handler(...)(instance.method)",
        )
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not _has_default(one):
            raise _refusal(function, f"needs {one.name!r} by keyword")
    if not positional:
        raise _refusal(function, "names no parameter; its decorator may lack functools.wraps")
    required = [one.name for one in positional if not _has_default(one)]
    if len(required) > 2:
        raise _refusal(function, f"needs {', '.join(map(repr, required))}")
    return positional[:2]


def _has_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty


def _refusal(function: object, why: str, hint: str | None = None) -> UsageError:
    short = _name(function).rpartition(".")[2]
    def_ = f"def {short if short.isidentifier() else 'handle'}"
    return UsageError(
        f"handler {_name(function)} cannot be called with one message: it {why}",
        hint=hint
        or f"write {def_}(value), {def_}(value, delivery: Delivery) or {def_}(delivery: Delivery)",
    )


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))


def _yields(function: Callable[..., Any]) -> bool:
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004  its code, not whether
    return any(inspect.isgeneratorfunction(c) or inspect.isasyncgenfunction(c) for c in candidates)


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, Callable[..., Any]]:
    """The signature that a call must fit, and the function that has it.

    A decorator may give its function other parameters than it takes itself, so the outermost
    counts; one that takes ``*args`` and hands them on takes what the next one does.
    """
    while True:
        wrapped = getattr(function, "__wrapped__", None)
        try:
            signature = inspect.signature(function, follow_wrapped=False)
            kinds = {parameter.kind for parameter in signature.parameters.values()}
            if wrapped is None or inspect.Parameter.VAR_POSITIONAL not in kinds:
                return signature, function
        except ValueError:  # a decorator in C, as functools.cache
            if wrapped is None:
                raise
        if inspect.ismethod(function):
            wrapped = types.MethodType(wrapped, function.__self__)
        function = wrapped


def _annotation(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The type that a parameter is annotated with; Any if with none. Raises UsageError."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, _globals(function))["it"]
    except Exception as error:
        raise UsageError(
            f"handler {_name(function)}: the type of {parameter.name!r} cannot be read: {error}",
            hint="import its type where the program runs, not only under TYPE_CHECKING",
        ) from error


def _globals(function: Any) -> dict[str, Any]:
    """The names around the function's code, where the texts of annotations are looked up."""
    function = inspect.unwrap(function)
    if isinstance(function, functools.partial):
        return _globals(function.func)
    if not hasattr(function, "__globals__") and not inspect.ismethod(function):
        function = type(function).__call__  # an object that can be called
    return getattr(function, "__globals__", {})


def _is_delivery(annotation: Any) -> bool:
    """Also ``Delivery[Order]`` and ``Delivery | None``."""
    if _is_union(annotation):
        return any(_is_delivery(one) for one in typing.get_args(annotation))
    return annotation is Delivery or typing.get_origin(annotation) is Delivery


def _value_of(delivery: Any) -> Any:
    """``Order`` of ``Delivery[Order]``."""
    if _is_union(delivery):
        delivery = next(one for one in typing.get_args(delivery) if _is_delivery(one))
    return (typing.get_args(delivery) or (Any,))[0]


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _takes_none(value_type: Any) -> bool:
    if value_type in (Any, object):
        return True
    try:
        msgspec.convert(None, value_type)
    except Exception:  # also of types that msgspec does not know
        return _is_union(value_type) and type(None) in typing.get_args(value_type)
    return True
