"""The plugins of one bus: found, checked and called."""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import product
from typing import Any, Literal, cast

import pluggy

from gearshift._core.entry_points import PluginEntry, broken, import_entry
from gearshift._core.entry_points import installed as installed_plugins
from gearshift._core.listeners import Listeners, ignore
from gearshift._core.logs import LimitedLog
from gearshift._core.publishing.batch import Batch
from gearshift.delivery import Delivery
from gearshift.driver import plugin as backend_hooks
from gearshift.errors import GearshiftError, PluginError, UsageError
from gearshift.hooks import specs
from gearshift.hooks.awaited import AwaitedHooks
from gearshift.hooks.failure_log import FailureLog
from gearshift.hooks.specs import ConnectionEvent, Outgoing
from gearshift.message import Message, SendResult

__all__ = ["GROUP", "Hooks", "check_installed", "load_hooks"]

GROUP = "gearshift.plugins"

log = logging.getLogger("gearshift.plugins")

#: How long closing waits for plugins to be told of the last events. Seconds.
_CLOSE_TIMEOUT_S = 5.0


def load_hooks(plugins: Sequence[object] = (), installed: Sequence[PluginEntry] = ()) -> Hooks:
    """Make the hooks of ``plugins`` and, behind them, of ``installed`` ones, which are imported.

    Raises PluginError for an installed one that cannot be used, UsageError for a given one.
    """
    manager = pluggy.PluginManager(backend_hooks.PROJECT)
    manager.add_hookspecs(backend_hooks)
    manager.add_hookspecs(specs)
    _register(manager, FailureLog())  # pluggy calls first what was registered last
    for entry in reversed(installed):
        plugin = import_entry(entry)
        try:
            made = plugin() if isinstance(plugin, type) else plugin
            _register(manager, made, f"{entry.name} of {entry}")
        except Exception as error:
            raise broken(entry, str(error)) from error
    for plugin in reversed(plugins):
        _register(manager, plugin)
    return Hooks(manager)


def check_installed() -> list[tuple[PluginEntry, PluginError | None]]:
    """Load each installed plugin by itself; the error of one that cannot be used."""
    found: list[tuple[PluginEntry, PluginError | None]] = []
    for entry in installed_plugins(GROUP):
        try:
            load_hooks((), [entry])
        except PluginError as error:
            found.append((entry, error))
        else:
            found.append((entry, None))
    return found


def _register(manager: pluggy.PluginManager, plugin: object, label: str | None = None) -> None:
    """Register ``plugin`` if all of its hooks can be called. Raises UsageError."""
    name = _name(plugin)
    if isinstance(plugin, type):
        raise UsageError(f"plugin {name} is a class", hint=f"give an object of it: {name}()")
    try:
        manager.register(plugin, label)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise UsageError(f"plugin {name}: {error}", hint="see gearshift.hooks.specs") from error
    callers = manager.get_hookcallers(plugin)
    if not callers:
        raise UsageError(f"plugin {name} has no hooks", hint="mark its functions with hookimpl")
    for caller in callers:
        is_around = caller.name == "gearshift_handle"
        for one in [impl for impl in caller.get_hookimpls() if impl.plugin is plugin]:
            kind = one.function
            is_async = inspect.iscoroutinefunction(kind) or inspect.isasyncgenfunction(kind)
            if is_async is not (caller.name == "gearshift_send_async"):
                needs = "must not be" if is_async else "needs"
                raise UsageError(f"plugin {name}: {caller.name} {needs} an async function")
            if one.wrapper is not is_around or one.hookwrapper:
                marker = "hookimpl(wrapper=True)" if is_around else "hookimpl without wrapper"
                raise UsageError(f"plugin {name}: {caller.name} needs {marker}")


class Hooks:
    """Calls the plugins of one bus. Any thread. Which plugins there are does not change.

    A hook that no plugin implements is None, so that a message costs one look and no call. Each
    plugin is called by itself, in pluggy's order, so that the error of one does not keep the others
    from being called; around a handler they are nested. ``_lock`` guards ``_notifier``.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._log = LimitedLog(log)
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[ConnectionEvent | None] = queue.SimpleQueue()
        self._notifier: threading.Thread | None = None
        self._senders = self._implementations("gearshift_send")
        self._wrappers = self._implementations("gearshift_handle")
        self._contexts = self._implementations("gearshift_handle_async")
        self.send = self._send if self._senders else None
        awaited = self._implementations("gearshift_send_async")
        self.send_async = AwaitedHooks(awaited, self._failed) if awaited else None
        self.handle = self._handle if self._wrappers else None
        self.around = self._around if self._wrappers else None
        self.within = self._within if self._contexts else None
        self.opened = self._notification("gearshift_opened") or ignore
        self._tell = self._notification("gearshift_connection")
        self.listeners = Listeners(
            received=self._notification("gearshift_received"),
            settled=self._notification("gearshift_settled"),
            retry=self._notification("gearshift_retry") or ignore,
            dead_letter=self._notification("gearshift_dead_letter") or ignore,
            connection=self._enqueue if self._tell else ignore,
        )

    def has(self, plugin: object) -> bool:
        """True if ``plugin`` is one of these."""
        return self._manager.is_registered(plugin)

    def order(self) -> dict[str, list[str]]:
        """Names of the plugins that implement each hook, in the order in which they are called."""
        named: dict[str, list[str]] = {}
        for hook in sorted(name for name in vars(specs) if name.startswith("gearshift_")):
            for one in self._implementations(hook):
                label = one.plugin_name if " of " in one.plugin_name else _name(one.plugin)
                named.setdefault(hook, []).append(label)
        return named

    def check_batches(self, handler: str) -> None:
        """Raise UsageError if a plugin around handlers would see one message of a batch only."""
        for one in (*self._wrappers, *self._contexts):
            if "delivery" in one.argnames and "deliveries" not in one.argnames:
                raise UsageError(
                    f"plugin {_name(one.plugin)} takes one delivery, and {handler} has batches",
                    hint="name deliveries in its signature, of which there may be one",
                )

    def close(self) -> None:
        """Wait, for up to 5 s, until plugins were told of every connection event. Idempotent."""
        with self._lock:
            notifier, self._notifier = self._notifier, None
        if notifier is not None:
            self._events.put(None)
            if notifier is not threading.current_thread():  # a plugin closes the bus
                notifier.join(_CLOSE_TIMEOUT_S)

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]

    def _notification(self, hook: str) -> Callable[..., None] | None:
        implementations = self._implementations(hook)
        return partial(self._notify, implementations) if implementations else None

    def _notify(self, implementations: Sequence[pluggy.HookImpl], **arguments: Any) -> None:
        for one in implementations:
            try:
                _call(one, **arguments)
            except Exception as error:
                self._failed(one.function, error)

    def _failed(self, function: Callable[..., Any], error: Exception) -> None:
        self._log.error("%s of a plugin failed", _name(function), exc_info=error)

    def _send(
        self, batch: Batch, backend: str, channel: str, check: Callable[[Message], object]
    ) -> Batch:
        """Return the batch as plugins want it: with its messages changed, and its results told.

        ``check`` raises if a changed message cannot be sent.
        """
        sent = [Outgoing(backend, channel, message) for message in batch.messages]
        for outgoing, one in product(sent, self._senders):
            before = outgoing.message
            try:
                _call(one, outgoing=outgoing)
                if outgoing.message is not before:
                    check(outgoing.message)
            except Exception as error:
                outgoing.message = before
                self._failed(one.function, error)
        on_done = batch.on_done
        if any(outgoing.callbacks for outgoing in sent):
            on_done = partial(self._report, sent, on_done)
        messages = [outgoing.message for outgoing in sent]
        return Batch(messages, batch.deadline, on_done, batch.is_awaited)

    def _report(
        self, sent: Sequence[Outgoing], on_done: Callable[[Batch], None] | None, batch: Batch
    ) -> None:
        for outgoing, result in zip(sent, batch.results, strict=True):
            for callback in reversed(outgoing.callbacks):
                try:
                    callback(cast(SendResult, result))
                except Exception as error:
                    self._failed(callback, error)
        if on_done is not None:
            on_done(batch)

    def _handle(
        self,
        deliveries: Sequence[Delivery[Any]],
        handler: Callable[..., Any],
        complete: Callable[[], Any],
    ) -> Any:
        def gearshift_handle() -> Any:  # innermost; pluggy reads its signature
            return complete()

        arguments = _handled(deliveries, handler)
        return self._manager.hook.gearshift_handle.call_extra([gearshift_handle], arguments)

    async def _around(
        self,
        deliveries: Sequence[Delivery[Any]],
        handler: Callable[..., Any],
        complete: Callable[[], Awaitable[Any]],
    ) -> Any:
        """As ``_handle`` for what is awaited: pluggy's wrappers, which do not await themselves."""
        entered: list[Generator[None, Any, Any]] = []
        result, error = None, None
        try:
            for one in self._wrappers:
                wrapper = _call(one, **_handled(deliveries, handler))
                next(wrapper)
                entered.append(wrapper)
            result = await complete()
        except BaseException as raised:
            error = raised
        for wrapper in reversed(entered):
            try:
                wrapper.send(result) if error is None else wrapper.throw(error)
            except StopIteration as ended:
                result, error = ended.value, None
            except BaseException as raised:
                error = raised
            else:
                wrapper.close()
                error = RuntimeError(f"{_name(wrapper)} yielded a second time")
        if error is not None:
            raise error
        return result

    async def _within(
        self,
        deliveries: Sequence[Delivery[Any]],
        handler: Callable[..., Any],
        awaitable: Awaitable[Any],
    ) -> Any:
        try:
            async with AsyncExitStack() as stack:
                for one in self._contexts:
                    context = _call(one, **_handled(deliveries, handler))
                    if context is not None:
                        await stack.enter_async_context(context)
                return await awaitable
        finally:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # if a context could not be entered

    def _enqueue(
        self,
        channel: str,
        group: str | None,
        kind: Literal["lost", "back", "draining"],
        error: GearshiftError | None = None,
    ) -> None:
        with self._lock:
            if self._notifier is None:
                self._notifier = threading.Thread(
                    target=self._tell_events, name="gearshift-plugins", daemon=True
                )
                self._notifier.start()
        self._events.put(ConnectionEvent(kind, channel, group, error))

    def _tell_events(self) -> None:
        assert self._tell is not None
        while (event := self._events.get()) is not None:
            self._tell(event=event)


def _call(implementation: pluggy.HookImpl, **arguments: Any) -> Any:
    return implementation.function(*(arguments[name] for name in implementation.argnames))


def _handled(deliveries: Sequence[Delivery[Any]], handler: Callable[..., Any]) -> dict[str, Any]:
    return {"delivery": deliveries[0], "deliveries": deliveries, "handler": handler}


def _name(named: object) -> str:
    for attribute in ("__qualname__", "__name__"):
        if hasattr(named, attribute):
            return str(getattr(named, attribute))
    return type(named).__qualname__
