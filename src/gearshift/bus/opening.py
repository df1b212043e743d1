"""``gearshift.open``: from a file, a URL or settings to a Bus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gearshift import config as configuration
from gearshift import plugins as backends
from gearshift._core.entry_points import installed
from gearshift.bus.bus import Bus
from gearshift.codecs import codec_named
from gearshift.config import Config
from gearshift.errors import ConfigError, UsageError
from gearshift.hooks.registry import GROUP, load_hooks
from gearshift.rehearsal import Rehearsed

__all__ = ["configured", "open_bus", "opening_by"]

#: Opens each bus instead, the last one: a test's (see ``gearshift.testing``).
_openers: list[Callable[..., Bus]] = []


@contextmanager
def opening_by(opener: Callable[..., Bus]) -> Iterator[None]:
    """Inside the block ``open_bus`` returns what ``opener`` makes of its arguments. Any thread."""
    _openers.append(opener)
    try:
        yield
    finally:
        _openers.remove(opener)


def open_bus(
    source: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Config | None = None,
    plugins: Sequence[object] = (),
) -> Bus:
    """Open the broker that the configuration selects. This is ``gearshift.open``.

    Reads the file ``source``, or ``gearshift.toml`` found by walking up from the current folder,
    and the environment; without a file it is an embedded SQLite broker. ``profile`` chooses a
    profile over both. Instead of a file, ``source`` may be

    - a broker's URL, such as ``amqp://user:password@host/vhost``; channels have the defaults;
    - ``settings``, a mapping of the form that the file has;
    - ``config``, a Config that was loaded before.

    ``plugins`` have hooks that are called around what the bus does: see ``gearshift.hooks``.

    No connection is made before the first producer or consumer. Raises ConfigError, PluginError,
    and UsageError for arguments that exclude one another or a plugin that cannot be called.
    """
    if _openers:
        return _openers[-1](
            source, profile=profile, settings=settings, config=config, plugins=plugins
        )
    loaded = configured(source, settings, config, profile)
    hooks = load_hooks(plugins, installed(GROUP))
    with loaded.masking():
        plugin = loaded.load_plugin()
        _check_codecs(loaded)
        backend = plugin.connect(loaded.settings_for(plugin))
    loaded.clear(backend.endpoints())
    if loaded.rehearsal is not None:
        backend = Rehearsed(backend, loaded.rehearsal)
    bus = Bus(loaded, plugin, backend, hooks)
    hooks.opened(bus=bus)
    return bus


def configured(
    source: object,
    settings: Mapping[str, Any] | None,
    config: Config | None,
    profile: str | None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration that these arguments of ``open_bus`` mean; ``environ`` as for ``load``.

    Raises as ``open_bus``.
    """
    if sum(one is not None for one in (source, settings, config)) > 1:
        raise UsageError("open() takes one of a file, a URL, settings and a config")
    if config is not None and not isinstance(config, Config):
        raise UsageError(
            f"config is a Config, not {type(config).__name__}", hint="Config.from_mapping makes one"
        )
    if settings is not None:
        return configuration.load(settings=settings, profile=profile, environ=environ)
    source = source if config is None else config
    is_url = isinstance(source, str) and "://" in source
    if profile is not None and (is_url or isinstance(source, Config)):
        raise UsageError("profile is for a file or settings; a URL or a Config has its profile")
    if isinstance(source, Config):
        return source
    if isinstance(source, str) and is_url:
        table = backends.profile_for_url(source)
        table = {"profiles": {"url": table}}
        return configuration.load(settings=table, profile="url", environ=environ)
    if isinstance(source, Mapping):
        return configuration.load(settings=source, profile=profile, environ=environ)
    if source is None or isinstance(source, str | Path):
        return configuration.load(source, profile=profile, environ=environ)
    raise UsageError(
        f"open() takes a file, a URL, settings or a config, not {type(source).__name__}",
        hint='gearshift.open("gearshift.toml"), gearshift.open(profile="rabbit")',
    )


def _check_codecs(config: Config) -> None:
    for name, settings in config.channels.items():
        problem = None
        try:
            codec_named(settings.codec)
        except ConfigError as error:
            problem = config.channel_error(name, "codec", error)
        if problem:  # raised here, so that what was not masked is not its context
            raise problem
