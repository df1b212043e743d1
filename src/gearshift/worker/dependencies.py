"""What handlers are given besides messages: states of the service, producers, and the bus."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast

from gearshift.bus import Bus
from gearshift.errors import GearshiftError, UsageError
from gearshift.hooks.awaited import AwaitedHooks
from gearshift.producer import Producer
from gearshift.worker.event_loop import EventLoop
from gearshift.worker.signature import function_name, signature_of

__all__ = ["Lifespan", "Need", "ProducerFor", "Provided", "StateOf", "source_of"]

T = TypeVar("T")

log = logging.getLogger("gearshift.worker")

Context: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]

_LEAVE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Lifespan:
    """A function that yields a state of the service, made once in each process.

    It provides a value of ``type``, or the ``names`` of a TypedDict; neither for a state that no
    handler is given. Of one function there is one, however many apps it was given to.
    """

    function: Callable[..., Any]
    make: Callable[[], Context] = field(compare=False, repr=False)
    type: type | None = field(compare=False)
    names: Mapping[str, Any] = field(compare=False)

    @property
    def name(self) -> str:
        """The function's, for errors."""
        return function_name(self.function)

    @staticmethod
    def of(function: Callable[..., Any]) -> Lifespan:
        """Read ``function``, a generator or what ``contextlib`` makes of one. Raises UsageError."""
        yielding = inspect.unwrap(function)
        make: Callable[..., Any] = function
        if function is yielding and inspect.isasyncgenfunction(function):
            make = contextlib.asynccontextmanager(function)
        elif function is yielding and inspect.isgeneratorfunction(function):
            make = contextlib.contextmanager(function)
        name, hint = (
            function_name(function),
            "write def services() -> Iterator[Services]: yield ...",
        )
        if not inspect.isasyncgenfunction(yielding) and not inspect.isgeneratorfunction(yielding):
            raise UsageError(f"lifespan {name} does not yield", hint=hint)
        if signature_of(function)[0].parameters:
            raise UsageError(f"lifespan {name} takes parameters", hint=hint)
        yielded = _yielded(yielding, name)
        if typing.is_typeddict(yielded):
            return Lifespan(function, make, None, typing.get_type_hints(yielded))
        if yielded is None or yielded is type(None):
            return Lifespan(function, make, None, {})
        if not isinstance(yielded, type) or yielded.__module__ == "builtins":
            raise UsageError(
                f"lifespan {name} yields {yielded!r}, which handlers could not ask for",
                hint="yield an object of a class of its own, or a TypedDict for several by name",
            )
        return Lifespan(function, make, yielded, {})


@dataclass(frozen=True, slots=True)
class StateOf:
    """What a lifespan yields, or the part of that name."""

    lifespan: Lifespan
    name: str | None


@dataclass(frozen=True, slots=True)
class ProducerFor:
    """A producer of that channel, for threads or for coroutines."""

    channel: str
    is_async: bool


@dataclass(frozen=True, slots=True)
class WorkersBus:
    """The bus on which the handlers run, for threads or for coroutines."""

    is_async: bool


Source: TypeAlias = StateOf | ProducerFor | WorkersBus


@dataclass(frozen=True, slots=True)
class Need:
    """A handler's parameter that is no part of a message."""

    name: str
    source: Source
    by_keyword: bool


def source_of(name: str, annotation: Any, lifespans: Iterable[Lifespan]) -> Source | None:
    """What a parameter is given, if it asks for something that is provided."""
    base, *notes = typing.get_args(annotation) if _is_annotated(annotation) else (annotation,)
    aio = sys.modules.get("gearshift.aio")  # who has no such object has not imported it
    if base is Bus or (aio is not None and base is aio.Bus):
        return WorkersBus(base is not Bus)
    if base is Producer or (aio is not None and base is aio.Producer):
        if len(notes) != 1 or not isinstance(notes[0], str):
            raise UsageError(
                f"parameter {name!r} does not say for which channel its producer is",
                hint=f'write {name}: Annotated[gearshift.Producer, "CHANNEL"]',
            )
        return ProducerFor(notes[0], base is not Producer)
    for lifespan in lifespans:
        if name in lifespan.names and annotation in (Any, lifespan.names[name]):
            return StateOf(lifespan, name)
        if lifespan.type is not None and _is_kind(lifespan.type, base):
            return StateOf(lifespan, None)
    return None


class Provided:
    """The states and producers of one worker, and its bus.

    ``enter`` and ``close`` from one thread at a time.
    """

    def __init__(self, bus: Bus, loop: EventLoop) -> None:
        self._bus = bus
        self._loop = loop
        self._stack = ExitStack()
        self._states: dict[Lifespan, Any] = {}
        self._producers: dict[str, Producer] = {}

    def enter(self, lifespans: Iterable[Lifespan], needs: Iterable[Need], timeout_s: float) -> None:
        """Enter the lifespans in their order, then connect the producers. Blocks.

        What was entered before is left alone, so it may be called again after an error. Raises
        what the bus raises, and GearshiftError for what a lifespan raises.
        """
        for lifespan in lifespans:
            if lifespan not in self._states:
                self._states[lifespan] = self._entered(lifespan)
        for source in [need.source for need in needs]:
            if isinstance(source, ProducerFor) and source.channel not in self._producers:
                producer = self._bus.producer(source.channel, timeout_s=timeout_s)
                self._producers[source.channel] = producer
                self._stack.callback(producer.close)

    def given(self, needs: Sequence[Need]) -> dict[Need, Callable[[], Any]]:
        """What gives the argument for each need when a handler is called."""
        return {need: self._giver(need.source) for need in needs}

    def state(self, kind: type[T]) -> T:
        """What a lifespan that was entered has yielded, by its type. Raises UsageError."""
        for lifespan, state in self._states.items():
            if lifespan.type is not None and _is_kind(lifespan.type, kind):
                return cast(T, state)
        raise UsageError(
            f"no lifespan that was entered yields {function_name(kind)}",
            hint="ask for an object's class, while the service runs",
        )

    def close(self) -> None:
        """Leave what was entered, last first. What a lifespan raises is logged. Blocks."""
        try:
            self._stack.close()
        except (Exception, SystemExit, asyncio.CancelledError):  # the rest is to be closed as well
            log.exception("a lifespan has failed at the end")

    def _entered(self, lifespan: Lifespan) -> Any:
        try:
            context = lifespan.make()
            if isinstance(context, AbstractAsyncContextManager):
                return self._stack.enter_context(_OnLoop(self._loop, context))
            return self._stack.enter_context(context)
        except GearshiftError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            raise GearshiftError(
                f"lifespan {lifespan.name} failed: {type(error).__name__}: {error}"
            ) from error

    def _giver(self, source: Source) -> Callable[[], Any]:
        if isinstance(source, StateOf):
            state = self._states[source.lifespan]
            value = state if source.name is None else state[source.name]
            return lambda: value
        shared = self._bus if isinstance(source, WorkersBus) else self._producers[source.channel]
        if source.is_async:
            return _OfLoop(shared, self._bus.hooks.send_async).get
        return lambda: shared


class _OfLoop:
    """A bus or producer for the coroutines of each event loop that asks, on that loop."""

    def __init__(self, shared: Bus | Producer, around: AwaitedHooks | None) -> None:
        self._shared = shared
        self._around = around
        self._made: dict[asyncio.AbstractEventLoop, Any] = {}

    def get(self) -> Any:
        from gearshift import aio

        loop = asyncio.get_running_loop()
        if loop not in self._made:
            shared = self._shared
            if isinstance(shared, Bus):
                self._made[loop] = aio.Bus(shared)
            else:
                self._made[loop] = aio.Producer(shared, self._around)
        return self._made[loop]


@dataclass(slots=True, eq=False)
class _OnLoop:
    """An async context manager, entered and left in one task of the event loop."""

    loop: EventLoop
    context: AbstractAsyncContextManager[Any]
    entered: Future[Any] = field(default_factory=Future)
    leave: Callable[[], object] = lambda: None
    held: Future[BaseException | None] | None = None

    def __enter__(self) -> Any:
        self.held = self.loop.begin(self._hold())
        futures.wait([self.entered, self.held], return_when=futures.FIRST_COMPLETED)
        if not self.entered.done():
            error = self.held.result()
            assert error is not None
            raise error
        return self.entered.result()

    def __exit__(self, *_: object) -> None:
        assert self.held is not None
        self.leave()
        error = self.held.result(_LEAVE_TIMEOUT_S)
        if error is not None:
            raise error

    async def _hold(self) -> BaseException | None:
        """Return what it raised: SystemExit, raised in a task, would end the loop."""
        loop, leaving = asyncio.get_running_loop(), asyncio.Event()
        self.leave = functools.partial(loop.call_soon_threadsafe, leaving.set)
        try:
            async with self.context as value:
                self.entered.set_result(value)
                await leaving.wait()
        except BaseException as error:
            return error
        return None


def _yielded(function: Callable[..., Any], name: str) -> Any:
    """The type that a generator function is annotated to yield; None if it is not annotated."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception as error:
        raise UsageError(
            f"lifespan {name}: what it yields cannot be read: {error}",
            hint="import its type where the program runs, not only under TYPE_CHECKING",
        ) from error
    return (typing.get_args(returned) or (None,))[0]


def _is_annotated(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Annotated


def _is_kind(provided: type, wanted: Any) -> bool:
    """True if an object of ``provided`` will do for ``wanted``."""
    if not isinstance(wanted, type) or wanted is object:
        return False
    try:
        return issubclass(provided, wanted)
    except TypeError:  # a protocol that says nothing at run time
        return False
