"""Parts of a message that another broker does not take, or changes, in plain words.

Backends declare it (``BackendPlugin.only_here`` and ``on_arrival``); what they deliver says which
of it a message has (``Native.properties``). Everybody who tells reads it here: ``explain`` of two
profiles, and the commands that send to one broker what came from another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gearshift import plugins
from gearshift.driver import BackendPlugin
from gearshift.errors import PluginError
from gearshift.message import Message

__all__ = ["PortabilityReport", "between"]

#: Of a name that the backend which it came from does not explain, or is not installed.
_LEFT_OUT = "left out"

#: Between any two brokers.
_ALWAYS = (
    "new: position; id and timestamp of a message without",
    "refused: header names with a line break or NUL",
)


def between(source: BackendPlugin, target: BackendPlugin) -> list[str]:
    """The changes that may happen to a message, a line each; none within a backend."""
    if source.name == target.name:
        return []
    return [*_lines(source.only_here, source.only_here), *target.on_arrival, *_ALWAYS]


class PortabilityReport:
    """The changes to particular messages on their way to the backend ``target``."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._names: dict[str, dict[str, None]] = {}  # of which backend, in order

    def add(self, message: Message) -> None:
        """One of them."""
        native = message.native
        if native is not None and native.backend != self._target:
            self._names.setdefault(native.backend, {}).update(dict.fromkeys(native.properties))

    def lines(self) -> list[str]:
        """A line per change; nothing where all of it arrives."""
        return [
            f"from {backend}, {line}"
            for backend, names in self._names.items()
            for line in _lines(names, _only(backend))
        ]


def _only(backend: str) -> Mapping[str, str]:
    try:
        return plugins.load(backend).only_here
    except PluginError:  # the message can have been in a file since
        return {}


def _lines(names: Iterable[str], fates: Mapping[str, str]) -> list[str]:
    by_fate: dict[str, list[str]] = {}
    for name in names:
        by_fate.setdefault(fates.get(name, _LEFT_OUT), []).append(name)
    return [f"{fate}: {', '.join(them)}" for fate, them in by_fate.items()]
