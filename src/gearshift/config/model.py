"""The loaded configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.inspect import Field

from gearshift import plugins
from gearshift.capabilities import Requirement
from gearshift.config.channels import ChannelSettings
from gearshift.config.conversion import convert
from gearshift.config.document import MISSING, Document, Keys, dotted
from gearshift.config.errors import field_types, is_secret
from gearshift.config.masking import Redactor, is_secret_key, shown
from gearshift.driver import BackendPlugin
from gearshift.errors import ConfigError, GearshiftError, UsageError
from gearshift.secret import Secret

__all__ = ["Config", "Profile", "Row", "declared_default"]


class Row(NamedTuple):
    """One effective setting: its path, its value with secrets masked, where it comes from."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile's name and the backend that it is for."""

    name: str
    backend: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Config:
    """The selected profile and every declared channel. Immutable.

    ``file`` is None where there is no file; ``rehearsal`` is set in a rehearsal only; ``unset`` are
    variables that it was loaded without, with ``Unset``. ``over`` is this configuration with the
    profile selected that the selected one stands over, if it does. Safe to print: neither ``str``
    nor ``rows`` shows a secret. Any thread.
    """

    profile: str
    profiles: Mapping[str, Profile]
    channels: Mapping[str, ChannelSettings]
    file: Path | None
    profile_origin: str
    rehearsal: Path | None
    unset: frozenset[str]
    _document: Document
    _table: Mapping[str, Any]  # the selected profile, ${VAR} replaced: never shown
    _secrets: Redactor
    over: Config | None = None

    @staticmethod
    def from_mapping(settings: Mapping[str, Any], *, profile: str | None = None) -> Config:
        """The configuration in ``settings``, which has the form of ``gearshift.toml``.

        The environment is merged as with a file. Does not block. Raises ConfigError, and UsageError
        for what is not a mapping.
        """
        from gearshift.config.loading import load  # which makes Configs

        return load(settings=settings, profile=profile)

    def __repr__(self) -> str:
        where = f"file={str(self.file)!r}" if self.file else "file=None"
        text = f"Config(profile={self.profile!r}, backend={self.backend!r}, {where})"
        return self._document.redactor().redact(text)

    @property
    def backend(self) -> str:
        """Name of the selected profile's backend."""
        return self.profiles[self.profile].backend

    @property
    def stack(self) -> str:
        """The backend for people, with the one that it stands over: ``chaos over kafka``."""
        return self.backend if self.over is None else f"{self.backend} over {self.over.backend}"

    def channel(self, name: str) -> ChannelSettings:
        """The settings of channel ``name``; the defaults if it is not declared."""
        return self.channels.get(name) or ChannelSettings()

    def load_plugin(self) -> BackendPlugin:
        """Import the selected profile's backend, and the one that it stands over.

        Raises PluginError, and ConfigError if a backend that stands over others is not told which.
        """
        plugin = plugins.load(self.backend)
        if plugin.wrap is None:
            return plugin
        over = self.over
        if over is None:
            keys: Keys = ("profiles", self.profile, "over")
            others = ", ".join(name for name in self.profiles if name != self.profile)
            hint = f"name the profile that it stands over: {others}"
            raise self._document.problem(keys, "is missing", hint=hint)
        below = over.load_plugin()
        return plugin.wrap(below, lambda: below.connect(over.settings_for(below)))

    def settings_for(self, plugin: BackendPlugin) -> Any:
        """The selected profile as an instance of ``plugin.settings``. Raises ConfigError."""
        if plugin.name not in (self.backend, self.over and self.over.backend):
            raise UsageError(f"profile {self.profile!r} is for backend {self.backend!r}")
        return convert(
            self._table,
            plugin.settings,
            keys=("profiles", self.profile),
            document=self._document,
            secrets=self._secrets,
        )

    def native_for(self, channel: str, plugin: BackendPlugin) -> Any:
        """``channels.NAME.native.BACKEND`` as ``plugin.channel_settings``; defaults if not there.

        Raises ConfigError.
        """
        return convert(
            self.channel(channel).native.get(plugin.name, {}),
            plugin.channel_settings,
            keys=("channels", channel, "native", plugin.name),
            document=self._document,
            secrets=Redactor(),
        )

    def channel_error(self, channel: str, field: str, error: GearshiftError) -> ConfigError:
        """``error`` about ``field`` of a channel, with the place where that is set."""
        return self._document.problem(("channels", channel, field), error.message, hint=error.hint)

    def masked(self, text: str) -> str:
        """``text`` without any secret of the selected profile, for what others have written."""
        return self._document.redactor().redact(self._secrets.redact(text))

    def masking(self) -> AbstractContextManager[None]:
        """Around what may put a setting into an error: it leaves without what looks secret."""
        return self._document.masking()

    def clear(self, endpoints: Iterable[tuple[str, int]]) -> None:
        """Let ``masked`` show hosts and ports that came through ``${VAR}``."""
        self._secrets.clear(endpoints)

    def rows(self, plugin: BackendPlugin | None = None) -> list[Row]:
        """Every effective setting. With ``plugin``, also the defaults of the backend's settings.

        What came through ``${VAR}`` is shown as ``${VAR}``.
        """
        rows = [Row("profile", shown(self.profile), self.profile_origin)]
        rows += self._profile_rows(plugin)
        if self.over is not None:
            rows += self.over._profile_rows(plugin and self.over.load_plugin())
        for name, settings in self.channels.items():
            rows += self._channel_rows(name, settings)
        secrets = self._document.redactor()
        return [row._replace(key=secrets.redact(row.key)) for row in rows]

    def _profile_rows(self, plugin: BackendPlugin | None) -> Iterator[Row]:
        keys: Keys = ("profiles", self.profile)
        fields = field_types(plugin.settings) if plugin else {}
        table = self._document.get(keys)
        for key, value in table.items():
            # What the backend does not know may be a misspelt password.
            secret = is_secret(fields[key].type) if key in fields else plugin and key != "backend"
            yield from self._leaves((*keys, key), value, bool(secret))
        for key in [key for key in fields if key not in table]:
            yield Row(dotted((*keys, key)), shown(declared_default(fields[key])), "default")

    def _channel_rows(self, name: str, settings: ChannelSettings) -> Iterator[Row]:
        for field in settings.__struct_fields__:
            keys: Keys = ("channels", name, field)
            value = _plain(getattr(settings, field))
            if field == "native":
                yield from self._leaves(keys, value, False)
                continue
            if field == "dead_letter":
                value = settings.dead_letter_name(name) or False
            given = self._document.get(keys) is not MISSING
            yield Row(
                dotted(keys), shown(value), self._document.origin(keys) if given else "default"
            )

    def _leaves(self, keys: Keys, value: Any, secret: bool) -> Iterator[Row]:
        """One row per value that is not a table."""
        secret = secret or is_secret_key(keys[-1])
        if not isinstance(value, Mapping):
            yield Row(dotted(keys), shown(value, secret=secret), self._document.origin(keys))
            return
        for key, inner in value.items():
            yield from self._leaves((*keys, key), inner, secret)


def declared_default(field: Field) -> Any:
    """The declared default of a field, which ``__post_init__`` may change."""
    if field.default_factory is not msgspec.NODEFAULT:
        return _plain(field.default_factory())
    return None if field.default is msgspec.NODEFAULT else _plain(field.default)


def _plain(value: Any) -> Any:
    """``value`` in terms of TOML: structs and enums unfolded, secrets masked."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Secret | Path | Requirement):
        return str(value)
    return msgspec.to_builtins(value, enc_hook=str)
