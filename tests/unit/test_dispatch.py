"""How a handler is called, and what each way of ending means for its message."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest

from gearshift import App, Delivery, Reject, Retry, errors
from gearshift._core.consuming.entry import Entry
from gearshift.driver import Received
from gearshift.message import Message
from gearshift.worker.call import Call
from gearshift.worker.dispatch import Ending, run
from gearshift.worker.event_loop import EventLoop

if TYPE_CHECKING:
    from decimal import Decimal


class Order(msgspec.Struct):
    n: int


class _Decoding:
    """A subscription, and its policy, that only decodes."""

    channel, group = "orders", "billing"

    @property
    def policy(self) -> _Decoding:
        return self

    def decode(self, message: Message) -> Any:
        return message.body and Order(1)


def delivery(body: bytes | None = b"{}") -> Delivery[Any]:
    return Delivery(_Decoding(), Entry.of(Received(Message(body), 1, None, 1)))  # type: ignore[arg-type]


def never(_: object) -> Any:
    raise AssertionError("nothing is to be waited for")


def ending(handler: Callable[..., Any], body: bytes | None = b"{}") -> Ending:
    """How a registered handler ends, on a real event loop."""
    with contextlib.closing(EventLoop()) as loop:
        return run(functools.partial(Call.of(handler), [delivery(body)]), loop.wait)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as most are: it hides what the function is, not what it takes."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


# ── what may be registered ──


def yields(order: Order) -> Iterator[None]:
    yield


async def yields_async(order: Order) -> AsyncIterator[None]:
    yield


def by_keyword(*, order: Order) -> None: ...


def one_by_keyword(order: Order, *, session: object) -> None: ...


def two_values(order: Order, session: object) -> None: ...


def bare_second(order, session) -> None: ...


def three(order: Order, delivery: Delivery[Order], session: object) -> None: ...


def none() -> None: ...


def anything(*arguments: object) -> None: ...


def two_deliveries(one: Delivery[Order], other: Delivery[Order]) -> None: ...


class Service:
    seen: list[Any]

    def __init__(self) -> None:
        self.seen = []

    def handle(self, order: Order) -> None:
        self.seen.append(order)

    @plain
    def decorated(self, order: Order, delivery: Delivery[Order]) -> None:
        self.seen.append(order)

    @classmethod
    def of_class(cls, order: Order) -> None: ...

    @staticmethod
    def unbound(order: Order) -> None: ...

    def __call__(self, order: Order) -> None:
        self.seen.append(order)


class YieldingService:
    def __call__(self, order: Order) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (yields, "yields"),
        (yields_async, "yields"),
        (functools.partial(yields), "yields"),
        (YieldingService(), "yields"),
        (by_keyword, "'order' by keyword"),
        (one_by_keyword, "'session' by keyword"),
        (two_values, "'order' and 'session'"),
        (plain(two_values), "'order' and 'session'"),
        (bare_second, "'order' and 'session'"),
        (three, "'order', 'delivery', 'session'"),
        (two_deliveries, "'one' and 'other'"),
        (none, "names no parameter"),
        (anything, "names no parameter"),
        (Service.handle, "method without its 'self'"),
        (Service.decorated, "method without its 'self'"),
        (Service.__dict__["of_class"], "is not a function"),
        (Service, "is not a function"),
        (None, "is not a function"),
    ],
)
def test_what_cannot_be_called_with_one_message_is_refused_at_registration(
    function: Any, why: str
) -> None:
    """The error says why not, and what would do; the app has no such handler."""
    app = App()
    with pytest.raises(errors.UsageError, match="cannot be called with one message") as caught:
        app.handler("orders")(function)
    assert why in caught.value.message
    hint = str(caught.value.hint)
    assert "(instance.method)" in hint if "self" in why else "(delivery: Delivery)" in hint
    assert app.handlers == []


def test_the_hint_is_the_signature_that_would_do() -> None:
    """With the function's own name, to be copied."""
    with pytest.raises(errors.UsageError) as caught:
        App().handler("orders")(two_values)
    assert str(caught.value.hint).startswith("write def two_values(value), def two_values(value, ")


def test_a_type_that_is_not_there_at_run_time_is_refused() -> None:
    """As one imported under TYPE_CHECKING: the body could not be decoded to it."""

    def handle(amount: Decimal) -> None: ...

    with pytest.raises(errors.UsageError, match="type of 'amount' cannot be read") as caught:
        Call.of(handle)
    assert "TYPE_CHECKING" in str(caught.value.hint)


def value(order: Order) -> None: ...


def value_then_delivery(order: Order, delivery: Delivery[Order]) -> None: ...


def delivery_then_value(received: Delivery[Any], order: Order) -> None: ...


def only_delivery(received: Delivery[Order]) -> None: ...


def bare_delivery(order, delivery): ...


def own_default(order: Order, retries: int = 3, *, session: object = None) -> None: ...


def delivery_with_default(order: Order, d: Delivery[Order] | None = None) -> None: ...


def default_after_delivery(received: Delivery[Order], retries: int = 3) -> None: ...


def unknown_return(order: Order) -> Decimal: ...


def injected(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that gives one argument itself."""

    @functools.wraps(function)
    def wrapper(order: Order) -> Any:
        return function(order, "a session")

    return wrapper


@pytest.mark.parametrize(
    ("function", "parameters", "value_type"),
    [
        (value, ("value",), Order),
        (value_then_delivery, ("value", "delivery"), Order),
        (delivery_then_value, ("delivery", "value"), Order),
        (only_delivery, ("delivery",), Order),
        (bare_delivery, ("value", "delivery"), Any),
        (own_default, ("value",), Order),
        (delivery_with_default, ("value", "delivery"), Order),
        (default_after_delivery, ("delivery",), Order),
        (unknown_return, ("value",), Order),
        (lambda order: None, ("value",), Any),
        (plain(value_then_delivery), ("value", "delivery"), Order),
        (plain(plain(value)), ("value",), Order),
        (injected(two_values), ("value",), Order),
        (functools.partial(two_values, session=1), ("value",), Order),
        (Service().handle, ("value",), Order),
        (Service().decorated, ("value", "delivery"), Order),
        (Service.of_class, ("value",), Order),
        (Service(), ("value",), Order),
        (Service.unbound, ("value",), Order),
        (Service.__dict__["unbound"], ("value",), Order),
        (Service().seen.append, ("value",), Any),
    ],
)
def test_what_a_function_is_given(
    function: Callable[..., Any], parameters: tuple[str, ...], value_type: Any
) -> None:
    """By its annotations, in its own order; what has a default keeps it."""
    call = Call.of(function)
    assert (call.parameters, call.value_type) == (parameters, value_type)
    assert ending(function).action == "ack"


def test_a_decorator_in_c_takes_what_its_function_takes() -> None:
    """It has no signature of its own."""
    assert Call.of(functools.cache(value)).value_type is Order


# ── how it ends ──


def raising(error: BaseException | type[BaseException]) -> Callable[[Order], None]:
    def handle(order: Order) -> None:
        raise error

    return handle


def raising_async(error: BaseException | type[BaseException]) -> Callable[[Order], Any]:
    async def handle(order: Order) -> None:
        await asyncio.sleep(0)
        raise error

    return handle


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Never(Reject):
    def __init__(self) -> None:
        """As a subclass may, without its base's."""


@pytest.mark.parametrize("kind", [raising, raising_async])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), ("retry", None, "ValueError: no")),
        (SystemExit(3), ("retry", None, "SystemExit: 3")),
        (asyncio.CancelledError(), ("retry", None, "CancelledError: ")),
        (GeneratorExit(), ("retry", None, "GeneratorExit: ")),
        (Mute(), ("retry", None, "Mute: a Mute without text")),
        (Leaving(), ("retry", None, "Leaving: a Leaving without text")),
        (Retry(2.5), ("retry", 2.5, "")),
        (Retry, ("retry", None, "")),
        (Retry(-1), ("retry", None, "UsageError: delay_s -1 is out of range")),
        (Reject("never"), ("reject", None, "never")),
        (Reject(ValueError("x")), ("reject", None, "x")),  # type: ignore[arg-type]
        (Never(), ("reject", None, "rejected by the handler")),
        (errors.DecodeError("no JSON"), ("reject", None, "no JSON")),
    ],
)
def test_what_a_handler_raises_decides(kind: Any, error: Any, expected: Any) -> None:
    """Whatever it is, also what is no Exception, the caller's thread and loop go on."""
    found = ending(kind(error))
    assert (found.action, found.delay_s, found.reason.partition(" (hint")[0]) == expected


def test_a_keyboard_interrupt_is_the_programs_in_the_main_thread_only() -> None:
    """On another thread nobody has pressed Ctrl-C: it is a failure like others."""
    body = functools.partial(raising(KeyboardInterrupt), Order(1))
    with pytest.raises(KeyboardInterrupt):
        run(body, never)
    found: list[Ending] = []
    thread = threading.Thread(target=lambda: found.append(run(body, never)))
    thread.start()
    thread.join()
    assert found[0].action == "retry"


def test_whatever_looks_like_a_function_its_awaitable_is_awaited_to_its_end() -> None:
    """Behind plain decorators, an async one included, and as a partial."""
    done: list[int] = []

    async def handle(order: Order) -> str:
        await asyncio.sleep(0)
        done.append(order.n)
        return "done"

    async def lazy(order: Order) -> Any:
        return handle(order)

    for handler in (handle, plain(handle), plain(plain(handle)), functools.partial(handle), lazy):
        found = ending(handler)
        assert (found.action, found.returned) == ("ack", "done")
    assert len(done) == 5


def test_a_future_is_part_of_the_body() -> None:
    """What is returned from ``Producer.submit`` or an executor: its message waits for it."""
    stored, failed = Future[str](), Future[str]()
    stored.set_result("receipt")
    failed.set_exception(errors.BackpressureError("full"))
    assert ending(lambda order: stored).returned == "receipt"
    assert ending(lambda order: failed).action == "retry"


@pytest.mark.parametrize("decorate", [plain, contextlib.contextmanager])
@pytest.mark.parametrize("function", [yields, yields_async])
def test_a_generator_that_a_decorator_hid_is_a_failure(
    decorate: Callable[..., Any], function: Callable[..., Any]
) -> None:
    """Its body has not run, so its message is not acked."""
    found = ending(decorate(function))
    assert found.action == "retry"
    assert "generator" in found.reason


def without_its_parentheses(times: int) -> Callable[[Any], Any]:
    return lambda function: lambda *arguments: function(*arguments)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda order: map(print, [order]), "map"),
        (lambda order: filter(print, [order]), "filter"),
        (lambda order: [Future[None]()], "of what nobody awaits"),
        (without_its_parentheses(Order), "a decorator may lack its parentheses"),  # type: ignore[arg-type]
        (lambda order: functools.partial(print, order), "a function"),
        (lambda order: Reject("unknown customer"), "the error Reject('unknown customer')"),
        (lambda order: Retry, "raise it"),
    ],
)
def test_what_has_not_run_or_was_not_raised_is_a_failure(
    handler: Callable[..., Any], said: str
) -> None:
    """A handler that returns it has not done its work, so its message is not acked."""
    found = ending(handler)
    assert found.action == "retry"
    assert said in found.reason


# ── tombstones ──


def optional(order: Order | None) -> None:
    assert order is None


@pytest.mark.parametrize(
    ("annotation", "takes_none"),
    [
        (Order, False), (str, False), (bytes, False), (dict[str, int], False), (int | str, False),
        (type("Custom", (), {}), False), (Order | None, True), (Any, True), (object, True),
        (type("Custom", (), {}) | None, True), (Annotated[Order | None, "note"], True),
        (Literal["a", None], True), (None, True),
    ],
)  # fmt: skip
def test_a_tombstone_is_given_to_those_that_take_none(annotation: Any, takes_none: bool) -> None:
    """Others have it rejected with a reason, and are not called."""
    calls: list[object] = []

    def handle(order: object) -> None:
        calls.append(order)

    handle.__annotations__["order"] = annotation
    found = ending(handle, body=None)
    assert calls == ([None] if takes_none else [])
    assert found.action == ("ack" if takes_none else "reject")
    if not takes_none:
        assert "tombstone" in found.reason
        assert "| None" in found.reason


def test_a_handler_of_deliveries_sees_tombstones_itself() -> None:
    """It has asked for the delivery, which has no body."""
    assert ending(only_delivery, body=None).action == "ack"


# ── the loop ──


def test_the_loop_outlives_whatever_its_tasks_do() -> None:
    """A task that exits and a handler that stops the loop end nothing but themselves."""
    ends: list[BaseException] = []
    with contextlib.closing(EventLoop(ends.append)) as loop:

        async def leave_a_task_that_exits() -> None:
            async def leave() -> None:
                raise SystemExit

            task = asyncio.get_running_loop().create_task(leave())
            with contextlib.suppress(SystemExit):
                await task

        async def stop() -> object:
            running = asyncio.get_running_loop()
            running.stop()
            await asyncio.sleep(0)
            return running

        loop.wait(leave_a_task_that_exits())
        first = loop.wait(stop())
        assert loop.wait(stop()) is first
    assert ends == []


def test_a_loop_that_breaks_is_told() -> None:
    """To its owner, who can fail aloud, and to all who wait or come later: none of them hangs."""
    ended: list[BaseException] = []
    loop = EventLoop(ended.append)

    def explode() -> None:
        raise ZeroDivisionError

    async def break_it() -> None:
        asyncio.get_running_loop()._run_once = explode  # type: ignore[attr-defined]
        # Nothing can end this task any more, and asyncio would say so in a later test.
        asyncio.current_task()._log_destroy_pending = False  # type: ignore[union-attr]
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        loop.wait(break_it())
    late = asyncio.Future[None](loop=asyncio.new_event_loop())
    with pytest.raises(ZeroDivisionError):
        loop.wait(late)
    late.get_loop().close()
    assert [type(error) for error in ended] == [ZeroDivisionError]
    loop.close()
