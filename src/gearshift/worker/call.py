"""Calling a handler with what its signature asks for."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from gearshift.delivery import Delivery
from gearshift.errors import DecodeError, UsageError
from gearshift.worker.dependencies import Lifespan, Need, ProducerFor, Provided, StateOf, source_of
from gearshift.worker.signature import (
    annotation_of,
    element_of,
    function_name,
    has_default,
    is_async,
    is_delivery,
    options,
    signature_of,
    yields,
)

__all__ = ["Call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function and its arguments: ``parameters`` are "value", "delivery" and needs, in its order.

    ``value_type`` is what the body decodes to; ``takes_none`` is True if that may be None, which
    is the value of a tombstone. One that ``is_batch`` is given lists of values and deliveries. What
    is ``given`` for its needs comes from a worker's ``Provided``.
    """

    function: Callable[..., Any]
    parameters: tuple[Literal["value", "delivery"] | Need, ...]
    value_type: Any
    takes_none: bool
    is_async: bool
    is_batch: bool = False
    given: Mapping[Need, Callable[[], Any]] | None = None

    @property
    def needs(self) -> list[Need]:
        """The parameters that are no part of a message."""
        return [one for one in self.parameters if isinstance(one, Need)]

    @staticmethod
    def of(function: object, *, is_batch: bool = False, lifespans: Sequence[Lifespan] = ()) -> Call:
        """Read ``function``'s signature. Raises UsageError if a message cannot be its argument.

        It takes ``(value)``, ``(value, delivery)`` in any order, or ``(delivery)``; for batches
        lists of these. The delivery is the parameter annotated ``Delivery``, or the one of two that
        has the bare name ``delivery``. A parameter with a default need not get an argument. Others
        may ask for producers, for the bus, and for what ``lifespans`` provide.
        """
        if not callable(function) or isinstance(function, type):
            raise _refusal(function, "is not a function")
        if yields(function):
            raise _refusal(function, "yields, so a call would not run its body")
        try:
            signature, plain = signature_of(function)
        except (TypeError, ValueError) as error:
            raise _refusal(function, "does not say what it takes") from error
        needs = _needs(function, signature, plain, lifespans)
        taken = _taken(function, signature, needs)
        types_of = {one.name: annotation_of(one, plain) for one in taken}
        _check_lists(function, taken, types_of, is_batch)
        if is_batch:
            types_of = {name: element_of(annotation) for name, annotation in types_of.items()}
        deliveries = [name for name, annotation in types_of.items() if is_delivery(annotation)]
        if not deliveries and len(taken) == 2 and types_of.get("delivery") is Any:
            deliveries = ["delivery"]
        if len(taken) == 2 and taken[1].name not in deliveries and has_default(taken[1]):
            del types_of[taken.pop().name]
        if len(taken) == 2 and len(deliveries) != 1:
            both = " and ".join(repr(one.name) for one in taken)
            raise _refusal(
                function,
                f"takes {both}, and not one of them is the delivery or provided",
                is_unprovided=True,
            )
        values = [one.name for one in taken if one.name not in deliveries]
        value_type = types_of[values[0]] if values else _value_of(types_of[deliveries[0]])
        return Call(
            function=function,
            parameters=tuple(
                needs.get(name, "value" if name in values else "delivery")
                for name in signature.parameters
                if name in needs or name in types_of
            ),
            value_type=value_type,
            takes_none=_takes_none(value_type),
            is_async=is_async(function),
            is_batch=is_batch,
        )

    def given_by(self, provided: Provided) -> Call:
        """The same call, with what ``provided`` has for its needs."""
        return replace(self, given=provided.given(self.needs)) if self.needs else self

    def __call__(self, deliveries: Sequence[Delivery[Any]]) -> Any:
        """Call the function with the one delivery, or with the batch. Raises DecodeError.

        Returns what it returns, also an awaitable.
        """
        if self.is_async and self.given is not None:
            return self._call_on_loop(list(deliveries), self.given)
        if self.is_batch or self.given is not None:
            return self._call_with(list(deliveries), self.given or {})
        (delivery,) = deliveries
        arguments = [self.value(delivery) if one == "value" else delivery
                     for one in self.parameters]  # fmt: skip
        return self.function(*arguments)

    async def _call_on_loop(
        self, deliveries: list[Delivery[Any]], given: Mapping[Need, Callable[[], Any]]
    ) -> Any:
        """Whoever calls may be on another thread, and what is given belongs to a loop."""
        return await self._call_with(deliveries, given)

    def _call_with(
        self, deliveries: list[Delivery[Any]], given: Mapping[Need, Callable[[], Any]]
    ) -> Any:
        arguments: list[Any] = []
        keywords: dict[str, Any] = {}
        for one in self.parameters:
            if isinstance(one, Need) and one.by_keyword:
                keywords[one.name] = given[one]()
            elif isinstance(one, Need):
                arguments.append(given[one]())
            else:
                what = [self.value(d) for d in deliveries] if one == "value" else deliveries
                arguments.append(what if self.is_batch else what[0])
        return self.function(*arguments, **keywords)

    def value(self, delivery: Delivery[Any]) -> Any:
        """The decoded body. Raises DecodeError, also for a tombstone that is not wanted."""
        if delivery.body is None and not self.takes_none:
            raise DecodeError(
                "a tombstone (a message without a body) for a handler of "
                f"{function_name(self.value_type)}",
                hint="annotate the parameter with | None to be given None",
            )
        return delivery.value


def _needs(
    function: Callable[..., Any],
    signature: inspect.Signature,
    plain: Callable[..., Any],
    lifespans: Sequence[Lifespan],
) -> dict[str, Need]:
    """Return the parameters that are provided, by name. Raises UsageError."""
    needs: dict[str, Need] = {}
    for one in signature.parameters.values():
        if has_default(one) or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        source = source_of(one.name, annotation_of(one, plain, extras=True), lifespans)
        if source is None:
            continue
        if not isinstance(source, StateOf) and source.is_async is not is_async(function):
            kind, fits = ("an async", "aio.") if is_async(function) else ("a plain", "")
            fitting = f"gearshift.{fits}Bus"
            if isinstance(source, ProducerFor):
                fitting = f'Annotated[gearshift.{fits}Producer, "{source.channel}"]'
            raise UsageError(
                f"handler {function_name(function)} is {kind} function, and its {one.name!r} is "
                "for the other kind",
                hint=f"write {one.name}: {fitting}",
            )
        needs[one.name] = Need(one.name, source, one.kind is one.KEYWORD_ONLY)
    return needs


def _taken(
    function: object, signature: inspect.Signature, needs: Mapping[str, Need]
) -> list[inspect.Parameter]:
    """Return the one or two parameters that get a message's part. Raises UsageError."""
    parameters = [one for one in signature.parameters.values() if one.name not in needs]
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
        if one.kind is one.KEYWORD_ONLY and not has_default(one):
            raise _refusal(function, f"needs {one.name!r} by keyword, which nothing provides")
    if not positional and needs:
        raise _refusal(function, "takes no message")
    if not positional:
        raise _refusal(function, "names no parameter; its decorator may lack functools.wraps")
    required = [one.name for one in positional if not has_default(one)]
    if len(required) > 2:
        raise _refusal(
            function,
            f"needs {', '.join(map(repr, required))}, and nothing provides the third",
            is_unprovided=True,
        )
    return positional[:2]


def _check_lists(
    function: object, taken: list[inspect.Parameter], types_of: dict[str, Any], is_batch: bool
) -> None:
    """Raise UsageError if a handler of batches takes no list, or another a list of deliveries."""
    f = _definition(function)
    for one in taken:
        element = element_of(types_of[one.name])
        if is_batch and element is None and not has_default(one):
            raise UsageError(
                f"handler {function_name(function)} is given batches, and its parameter "
                f"{one.name!r} is not annotated as a list",
                hint=f"write {f}(values: list[Order]) or {f}(deliveries: list[Delivery])",
            )
        if not is_batch and element is not None and is_delivery(element):
            raise UsageError(
                f"handler {function_name(function)} takes a list of deliveries, and is given one",
                hint=f'write @app.handler("channel", batch=100), or {f}(delivery: Delivery)',
            )


def _definition(function: object) -> str:
    name = function_name(function).rpartition(".")[2]
    return f"def {name if name.isidentifier() else 'handle'}"


def _refusal(
    function: object, why: str, hint: str | None = None, *, is_unprovided: bool = False
) -> UsageError:
    f = _definition(function)
    fitting = f"write {f}(value), {f}(value, delivery: Delivery) or {f}(delivery: Delivery)"
    if is_unprovided:
        fitting += "; or have an @app.lifespan function before it yield what it needs, by its type"
    return UsageError(
        f"handler {function_name(function)} cannot be called with one message: it {why}",
        hint=hint or fitting,
    )


def _value_of(delivery: Any) -> Any:
    """Return ``Order`` of ``Delivery[Order]``."""
    found = next(filter(is_delivery, options(delivery)))
    return (typing.get_args(found) or (Any,))[0]


def _takes_none(value_type: Any) -> bool:
    if value_type in (Any, object) or type(None) in options(value_type):
        return True
    try:
        msgspec.convert(None, value_type)
    except Exception:  # also of types that msgspec does not know
        return False
    return True
