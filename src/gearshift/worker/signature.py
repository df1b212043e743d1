"""What a function takes, read before it is called."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from gearshift.delivery import Delivery
from gearshift.errors import UsageError

__all__ = [
    "annotation_of",
    "element_of",
    "function_name",
    "has_default",
    "is_async",
    "is_delivery",
    "options",
    "signature_of",
    "yields",
]


def function_name(function: object) -> str:
    """The name of a function, or of what is called like one."""
    return str(getattr(function, "__qualname__", function))


def has_default(parameter: inspect.Parameter) -> bool:
    """True if a call need not give it."""
    return parameter.default is not parameter.empty


def is_async(function: Callable[..., Any]) -> bool:
    """True for a coroutine function; one that hides in a decorator shows when it is called."""
    while isinstance(function, functools.partial):
        function = function.func
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004  its code, not whether
    return any(map(inspect.iscoroutinefunction, candidates))


def yields(function: Callable[..., Any]) -> bool:
    """True for a generator function, plain or async."""
    candidates = (function, getattr(function, "__call__", None))  # noqa: B004  its code, not whether
    return any(inspect.isgeneratorfunction(c) or inspect.isasyncgenfunction(c) for c in candidates)


def signature_of(function: Callable[..., Any]) -> tuple[inspect.Signature, Callable[..., Any]]:
    """The signature that a call must fit, and the function that has it.

    A decorator may give its function other parameters than it takes itself, so the outermost
    counts. If that takes ``*args``, it hands them to the function that it wraps, which counts then.
    Raises TypeError and ValueError if there is none.
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


def annotation_of(
    parameter: inspect.Parameter, function: Callable[..., Any], *, extras: bool = False
) -> Any:
    """The type that a parameter is annotated with, else Any. Raises UsageError.

    ``extras`` keeps what ``Annotated`` adds.
    """
    if parameter.annotation is parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, _globals(function), include_extras=extras)["it"]
    except Exception as error:
        raise UsageError(
            f"handler {function_name(function)}: the type of {parameter.name!r} cannot be read: "
            f"{error}",
            hint="import its type where the program runs, not only under TYPE_CHECKING",
        ) from error


def is_delivery(annotation: Any) -> bool:
    """True for ``Delivery``, ``Delivery[Order]`` and ``Delivery | None``."""
    return any(Delivery in (one, typing.get_origin(one)) for one in options(annotation))


def element_of(annotation: Any) -> Any:
    """``Order`` of ``list[Order]`` or ``Sequence[Order]``; None for what is no list."""
    if annotation is list:
        return Any
    if typing.get_origin(annotation) in (list, Sequence):
        return typing.get_args(annotation)[0]
    return None


def options(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one that it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _globals(function: Any) -> dict[str, Any]:
    """Return the globals of the function's code, in which annotations are looked up."""
    function = inspect.unwrap(function)
    if isinstance(function, functools.partial):
        return _globals(function.func)
    if not hasattr(function, "__globals__") and not inspect.ismethod(function):
        function = type(function).__call__  # an object that can be called
    return getattr(function, "__globals__", {})
