"""Reading a handler's signature, and calling it with one message."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gearshift.delivery import Delivery
from gearshift.errors import DecodeError, UsageError

__all__ = ["Call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function and its arguments: ``parameters`` names "value" and "delivery" in its order.

    ``value_type`` is what the body decodes to; ``takes_none`` is True if that may be None, which
    is the value of a tombstone.
    """

    function: Callable[..., Any]
    parameters: tuple[Literal["value", "delivery"], ...]
    value_type: Any
    takes_none: bool
    is_async: bool

    @staticmethod
    def of(function: object) -> Call:
        """Read ``function``'s signature. Raises UsageError if one message cannot be its argument.

        It takes ``(value)``, ``(value, delivery)`` in any order, or ``(delivery)``. The delivery is
        the parameter annotated ``Delivery``, or the one of two that has the bare name ``delivery``.
        A parameter with a default need not get an argument.
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
            is_async=_is_async(function),
        )

    def __call__(self, delivery: Delivery[Any]) -> Any:
        """Call the function; returns what it returns, also an awaitable. Raises DecodeError."""
        if "value" in self.parameters and delivery.body is None and not self.takes_none:
            raise DecodeError(
                f"a tombstone (a message without a body) for a handler of {_name(self.value_type)}",
                hint="annotate the parameter with | None to be given None",
            )
        arguments = [delivery.value if one == "value" else delivery for one in self.parameters]
        return self.function(*arguments)


def _taken(function: object, signature: inspect.Signature) -> list[inspect.Parameter]:
    """Return the one or two parameters that may get an argument. Raises UsageError."""
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
    name = _name(function).rpartition(".")[2]
    f = f"def {name if name.isidentifier() else 'handle'}"
    return UsageError(
        f"handler {_name(function)} cannot be called with one message: it {why}",
        hint=hint or f"write {f}(value), {f}(value, delivery: Delivery) or {f}(delivery: Delivery)",
    )


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))


def _is_async(function: Callable[..., Any]) -> bool:
    """True for a coroutine function; one that hides in a decorator shows when it is called."""
    while isinstance(function, functools.partial):
        function = function.func
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004  its code, not whether
    return any(map(inspect.iscoroutinefunction, candidates))


def _yields(function: Callable[..., Any]) -> bool:
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004  its code, not whether
    return any(inspect.isgeneratorfunction(c) or inspect.isasyncgenfunction(c) for c in candidates)


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, Callable[..., Any]]:
    """Return the signature that a call must fit, and the function that has it.

    A decorator may give its function other parameters than it takes itself, so the outermost
    counts. If that takes ``*args``, it hands them to the function that it wraps, which counts then.
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
    """Return the type that a parameter is annotated with, else Any. Raises UsageError."""
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
    """Return the globals of the function's code, in which annotations are looked up."""
    function = inspect.unwrap(function)
    if isinstance(function, functools.partial):
        return _globals(function.func)
    if not hasattr(function, "__globals__") and not inspect.ismethod(function):
        function = type(function).__call__  # an object that can be called
    return getattr(function, "__globals__", {})


def _is_delivery(annotation: Any) -> bool:
    """True for ``Delivery``, ``Delivery[Order]`` and ``Delivery | None``."""
    return any(Delivery in (one, typing.get_origin(one)) for one in _options(annotation))


def _value_of(delivery: Any) -> Any:
    """Return ``Order`` of ``Delivery[Order]``."""
    found = next(filter(_is_delivery, _options(delivery)))
    return (typing.get_args(found) or (Any,))[0]


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one that it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _takes_none(value_type: Any) -> bool:
    if value_type in (Any, object) or type(None) in _options(value_type):
        return True
    try:
        msgspec.convert(None, value_type)
    except Exception:  # also of types that msgspec does not know
        return False
    return True
