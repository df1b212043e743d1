"""Plugins: refused in words if they cannot be called, called in order, and unable to do harm."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, cast

import pytest

from gearshift import errors
from gearshift._core.publishing.batch import Batch
from gearshift.hooks import ConnectionEvent, Outgoing, hookimpl
from gearshift.hooks.failure_log import FailureLog
from gearshift.hooks.registry import Hooks, load_hooks
from gearshift.message import Message, Receipt

DELIVERY: Any = object()


def handler() -> None: ...


def test_what_a_message_made_a_handler_say_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error's text may be an attacker's, and of any length."""
    reason = "a\n2026-01-01 ERROR forged \x1b[31m" + 2000 * "x"
    FailureLog().gearshift_dead_letter("c", "g", Message(b"", id="1"), reason, None, 0.0)
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 1200


class Around:
    """Notes when it is entered and left around a handler."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    @hookimpl(wrapper=True)
    def gearshift_handle(self) -> Generator[None, Any, Any]:
        self.notes.append(f"{self.name} in")
        try:
            return (yield)
        finally:
            self.notes.append(f"{self.name} out")


class First(Around):
    @hookimpl(wrapper=True, tryfirst=True)
    def gearshift_handle(self) -> Generator[None, Any, Any]:
        return (yield from super().gearshift_handle())


class Last(Around):
    @hookimpl(wrapper=True, trylast=True)
    def gearshift_handle(self) -> Generator[None, Any, Any]:
        return (yield from super().gearshift_handle())


Handle = Callable[[Hooks, Callable[[], Any]], Any]


def _on_a_thread(hooks: Hooks, complete: Callable[[], Any]) -> Any:
    assert hooks.handle is not None
    return hooks.handle([DELIVERY], handler, complete)


def _as_a_task(hooks: Hooks, complete: Callable[[], Any]) -> Any:
    async def body() -> Any:
        await asyncio.sleep(0)
        return complete()

    assert hooks.around is not None
    return asyncio.run(hooks.around([DELIVERY], handler, body))


@pytest.fixture(params=[_on_a_thread, _as_a_task])
def handle(request: pytest.FixtureRequest) -> Handle:
    """A handler within its wrappers, as plain ones and as async ones are run."""
    return cast(Handle, request.param)


# ── which plugins there are ──


class Misspelt:
    @hookimpl
    def gearshift_sent(self, outgoing: Outgoing) -> None: ...


class WrongParameter:
    @hookimpl
    def gearshift_send(self, message: Message) -> None: ...


class Unmarked:
    def gearshift_send(self, outgoing: Outgoing) -> None: ...


class NotAround:
    @hookimpl
    def gearshift_handle(self, delivery: Any) -> None: ...


class AroundASend:
    @hookimpl(wrapper=True)
    def gearshift_send(self) -> Generator[None, Any, Any]:
        return (yield)


class Async:
    @hookimpl
    async def gearshift_settled(self) -> None: ...


@pytest.mark.parametrize(
    ("plugin", "why"),
    [
        (Misspelt(), "unknown hook 'gearshift_sent'"),
        (WrongParameter(), "'message'"),
        (Unmarked(), "has no hooks"),
        (Misspelt, "is a class"),
        (contextlib, "plugin contextlib has no hooks"),
        (NotAround(), "gearshift_handle needs hookimpl(wrapper=True)"),
        (AroundASend(), "gearshift_send needs hookimpl without wrapper"),
        (Async(), "gearshift_settled must not be an async function"),
    ],
)
def test_a_plugin_that_cannot_be_called_is_refused_at_once(plugin: object, why: str) -> None:
    """When the bus is opened, and not when the first message comes."""
    with pytest.raises(errors.UsageError) as caught:
        load_hooks([plugin])
    assert why in str(caught.value)


def test_a_plugin_is_given_once() -> None:
    """Twice would count and log everything twice."""
    plugin = Around("a", [])
    with pytest.raises(errors.UsageError, match="already registered"):
        load_hooks([plugin, plugin])
    load_hooks([Around("a", []), Around("b", [])])  # two of a class may be


def test_without_plugins_there_is_nothing_to_call() -> None:
    """Each hook that a message passes is None: it costs a look."""
    hooks = load_hooks()
    listeners = hooks.listeners
    passed = (hooks.send, listeners.received, hooks.handle, hooks.within, listeners.settled)
    assert passed == (None,) * 5


# ── around a handler ──


def test_wrappers_are_in_the_order_in_which_they_are_given(handle: Handle) -> None:
    """The first is the outermost; tryfirst and trylast go over that."""
    notes: list[str] = []
    hooks = load_hooks(
        [Last("last", notes), Around("a", notes), Around("b", notes), First("first", notes)]
    )
    assert handle(hooks, lambda: notes.append("handler") or 7) == 7  # type: ignore[func-returns-value]
    assert notes == [
        "first in", "a in", "b in", "last in", "handler", "last out", "b out", "a out", "first out",
    ]  # fmt: skip


def test_a_wrapper_may_swallow_an_error_or_be_broken(handle: Handle) -> None:
    """What the innermost makes of it is what the others see."""
    notes: list[str] = []

    class Swallowing:
        @hookimpl(wrapper=True)
        def gearshift_handle(self) -> Generator[None, Any, Any]:
            with contextlib.suppress(KeyError):
                return (yield)
            return "swallowed"

    class Greedy:
        @hookimpl(wrapper=True)
        def gearshift_handle(self) -> Generator[None, Any, Any]:
            yield
            yield

    def fails() -> None:
        raise KeyError("a")

    assert handle(load_hooks([Around("a", notes), Swallowing()]), fails) == "swallowed"
    assert notes == ["a in", "a out"]
    with pytest.raises(RuntimeError):
        handle(load_hooks([Around("b", notes), Greedy()]), lambda: 7)
    assert notes == ["a in", "a out", "b in", "b out"]


def test_what_a_handler_raises_passes_its_wrappers(handle: Handle) -> None:
    """Each may look at it, or raise something else."""
    notes: list[str] = []

    class Translating:
        @hookimpl(wrapper=True)
        def gearshift_handle(self) -> Generator[None, Any, Any]:
            try:
                return (yield)
            except KeyError as error:
                raise errors.UsageError("no such key") from error

    def fails() -> None:
        raise KeyError("a")

    with pytest.raises(errors.UsageError, match="no such key"):
        handle(load_hooks([Translating(), Around("a", notes)]), fails)
    assert notes == ["a in", "a out"]


def test_an_async_handler_is_awaited_within_context_managers() -> None:
    """In the order of the plugins, in the handler's task; timeouts are asyncio's own."""
    notes: list[str] = []

    class Session:
        @hookimpl
        def gearshift_handle_async(self) -> contextlib.AbstractAsyncContextManager[None]:
            return self.open()

        @contextlib.asynccontextmanager
        async def open(self) -> AsyncIterator[None]:
            notes.append("open")
            yield
            notes.append("closed")

    class Timeout:
        @hookimpl
        def gearshift_handle_async(self) -> contextlib.AbstractAsyncContextManager[Any]:
            return asyncio.timeout(0.01)

    class Nothing:
        @hookimpl
        def gearshift_handle_async(self) -> None: ...

    async def work(seconds: float) -> int:
        await asyncio.sleep(seconds)
        notes.append("worked")
        return 7

    within = load_hooks([Nothing(), Session()]).within
    assert within is not None
    assert asyncio.run(within([DELIVERY], handler, work(0))) == 7
    assert notes == ["open", "worked", "closed"]
    within = load_hooks([Timeout()]).within
    assert within is not None
    with pytest.raises(TimeoutError):
        asyncio.run(within([DELIVERY], handler, work(60)))


def test_a_context_that_cannot_be_entered_fails_the_handler() -> None:
    """Its body does not run, and is not left behind as never awaited."""

    class Broken:
        @hookimpl
        def gearshift_handle_async(self) -> None:
            raise OSError("no session")

    async def work() -> None:
        raise AssertionError("it must not run")

    within = load_hooks([Broken()]).within
    assert within is not None
    with pytest.raises(OSError, match="no session"):
        asyncio.run(within([DELIVERY], handler, work()))


# ── around a send ──


class Header:
    """Adds a header, and keeps the results."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name = name
        self.order = order
        self.results: list[object] = []

    @hookimpl
    def gearshift_send(self, outgoing: Outgoing) -> None:
        outgoing.set_header("trace", f"{outgoing.message.headers.get('trace', '')}{self.name}")
        outgoing.on_result(self.results.append)
        outgoing.on_result(lambda _: self.order.append(self.name))


class Broken:
    @hookimpl
    def gearshift_send(self, outgoing: Outgoing) -> None:
        outgoing.set_header("trace", "broken")
        raise RuntimeError("oops")

    @hookimpl
    def gearshift_settled(self) -> None:
        raise RuntimeError("oops")


def check(message: Message) -> None:
    if message.headers.get("trace") == "ab":
        raise errors.MessageTooLarge("ab is too much")


def test_a_sent_message_is_changed_in_order_and_its_result_told_in_reverse() -> None:
    """Each plugin sees what those before it have changed."""
    order: list[str] = []
    one, other = Header("1", order), Header("2", order)
    hooks = load_hooks([one, other])
    assert hooks.send is not None
    message = Message(b"x", id="m")
    batch = hooks.send(
        Batch([message], 0.0, lambda _: order.append("sender")), "memory", "orders", check
    )
    assert [message.headers["trace"] for message in batch.messages] == ["12"]
    batch.results[0] = Receipt("m", "orders", None, False)
    assert batch.on_done is not None
    batch.on_done(batch)
    assert order == ["2", "1", "sender"]
    assert one.results == other.results == [Receipt("m", "orders", None, False)]


def test_a_plugin_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The message goes on as it was, the other plugins are called, and there is one line."""
    a, b = Header("a", []), Header("b", [])
    hooks = load_hooks([Broken(), a, b])
    assert hooks.send is not None
    with caplog.at_level(logging.ERROR, "gearshift"):
        batch = hooks.send(Batch([Message(b"x")], 0.0), "memory", "orders", check)
    assert batch.messages[0].headers["trace"] == "a"  # b's could not have been sent
    assert [record.getMessage() for record in caplog.records] == [
        "Broken.gearshift_send of a plugin failed",
        "Header.gearshift_send of a plugin failed",
    ]


def test_a_plugin_that_always_raises_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of many lines alike, ten a minute are written."""
    settled = load_hooks([Broken()]).listeners.settled
    assert settled is not None
    with caplog.at_level(logging.ERROR, "gearshift"):
        for _ in range(100):
            settled(delivery=DELIVERY, outcome="ack", reason=None, took_s=0.0)
    assert len(caplog.records) == 10


# ── events ──


def test_connection_events_come_in_order_on_a_thread_that_may_block() -> None:
    """Whoever reports one does not wait for the plugins; closing does."""
    seen: list[tuple[str, str]] = []
    go_on = threading.Event()

    class Watcher:
        @hookimpl
        def gearshift_connection(self, event: ConnectionEvent) -> None:
            go_on.wait(10.0)
            seen.append((event.kind, threading.current_thread().name))

    hooks = load_hooks([Watcher()])
    for kind in ("lost", "back", "draining"):
        hooks.listeners.connection("orders", None, kind)
    assert seen == []
    go_on.set()
    hooks.close()
    assert seen == [(kind, "gearshift-plugins") for kind in ("lost", "back", "draining")]
    hooks.close()


def test_context_variables_of_a_wrapper_reach_the_handler(handle: Handle) -> None:
    """So a span that a plugin begins is the current one while the handler runs."""
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current")

    class Span:
        @hookimpl(wrapper=True)
        def gearshift_handle(self) -> Generator[None, Any, Any]:
            token = current.set("span")
            try:
                return (yield)
            finally:
                current.reset(token)

    assert handle(load_hooks([Span()]), current.get) == "span"
    assert current.get("none") == "none"
