"""``prove``: from an app, or its name, to a verdict."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from gearshift import plugins
from gearshift.config import Config, Unset, load
from gearshift.driver import BackendPlugin
from gearshift.errors import ConfigError, UsageError
from gearshift.message import Key
from gearshift.testing.prove.buses import SimulatedBuses
from gearshift.testing.prove.proof import Prover
from gearshift.testing.prove.story import Proof
from gearshift.testing.prove.workload import read_examples
from gearshift.worker.app import App
from gearshift.worker.loading import load_app, load_function

__all__ = ["prove", "prove_target"]

#: A file, settings, or None for what ``gearshift.open`` would find.
Source: TypeAlias = str | Path | Mapping[str, Any] | None


def prove(
    app: App,
    *,
    profile: str | None = None,
    state: Callable[[], Any] | None = None,
    reset: Callable[[], object] | None = None,
    examples: Iterable[Any] | None = None,
    key: Callable[[Any], Key | None] | None = None,
    cases: int = 500,
    processes: int = 2,
    seed: int = 0,
    on_broker: bool = False,
    config: Source = None,
) -> Proof:
    """Do to ``app``'s handlers what ``profile`` may do to them, and say whether they stand it.

    ``profile`` is one of the configuration ``config`` (a file or settings, as ``gearshift.open``
    takes them), or the name of a backend; nothing is connected to. ``state()`` returns what the
    handlers have done so far, as plain values; ``reset()`` begins anew. What ``state`` shows
    outlives a process; other variables of the handlers' modules die with it. ``examples`` are
    messages as they are sent, in order: values, or ``Example``; without them values of the
    handlers' types are made up. ``key`` gives a value's key where its example has none.
    ``processes`` is how many run the app at once, ``seed`` chooses the cases. With ``on_broker``
    each story is run once more on ``profile``'s broker, on a channel of its own.

    While it runs, every ``gearshift.open`` of this process gives a bus that keeps what is sent; a
    producer that was opened before goes on sending to its broker. Blocks, for seconds; not inside
    an event loop. Raises UsageError, ConfigError, NotSupported.
    """
    with _simulated(config, profile) as buses:
        prover = Prover(app, buses, state=state, reset=reset, processes=processes, seed=seed)
        prover.broker = _broker(config, profile) if on_broker else None
        return prover.prove(examples, key, cases)


def prove_target(
    target: str,
    *,
    profile: str | None = None,
    state: str | None = None,
    messages: Path | None = None,
    key_field: str | None = None,
    cases: int = 500,
    processes: int = 2,
    seed: int = 0,
    on_broker: bool = False,
    config: str | Path | None = None,
) -> Proof:
    """As ``prove`` for the app ``module:attribute``, which is imported where nothing is sent.

    The functions ``state``, ``reset`` and ``examples`` are found beside it, by these names, or
    beside the ``state`` that is given as ``module:function``.
    """
    with _simulated(config, profile) as buses:
        app = load_app(target)
        module = (state or target).partition(":")[0]
        given = None if state is None else load_function(state)
        beside = sys.modules[module]
        prover = Prover(
            app,
            buses,
            state=given or getattr(beside, "state", None),
            reset=getattr(beside, "reset", None),
            processes=processes,
            seed=seed,
        )
        prover.broker = _broker(config, profile) if on_broker else None
        return prover.prove(_examples(target, messages), _key_by(key_field), cases)


@contextmanager
def _simulated(source: Source, profile: str | None) -> Iterator[SimulatedBuses]:
    """Buses with the channels of the configuration and what ``profile``'s backend declares."""
    loaded, name = _loaded(source, profile)
    buses = SimulatedBuses(loaded, plugins.load(name))
    with buses.opened():
        try:
            yield buses
        finally:
            buses.close()


def _loaded(source: Source, profile: str | None) -> tuple[Config, str]:
    """The configuration and the backend's name: ``profile`` may be one that needs no settings."""
    path, settings = (None, source) if isinstance(source, Mapping) else (source, None)
    environ = Unset(os.environ)  # nothing is connected to, so no password matters
    try:
        loaded = load(path, profile=profile, settings=settings, environ=environ)
    except ConfigError as error:
        if profile is None:
            raise
        loaded = load(path, settings=settings, environ=environ)
        if profile in loaded.profiles:
            raise error from None
        backends = sorted({entry.name for entry in plugins.available()})
        if profile not in backends:
            hint = f"{error.hint}; installed backends: {', '.join(backends)}"
            raise ConfigError(error.message, hint=hint) from None
        return replace(loaded, profile=profile), profile
    return loaded, (loaded.over or loaded).backend


def _broker(source: Source, profile: str | None) -> tuple[Config, BackendPlugin]:
    """The profile with its secrets, which must be set."""
    path, settings = (None, source) if isinstance(source, Mapping) else (source, None)
    loaded = load(path, profile=profile, settings=settings)
    return loaded, loaded.load_plugin()


def _examples(target: str, messages: Path | None) -> Iterable[Any] | None:
    if messages is not None:
        return read_examples(messages)
    function = getattr(sys.modules[target.partition(":")[0]], "examples", None)
    return None if function is None else list(function())


def _key_by(field: str | None) -> Callable[[Any], Key | None] | None:
    if field is None:
        return None

    def key_of(value: Any) -> Key:
        try:
            key = value[field] if isinstance(value, Mapping) else getattr(value, field)
        except (KeyError, AttributeError):
            raise UsageError(f"{value!r} has no {field!r} to be its key") from None
        return str(key)

    return key_of
