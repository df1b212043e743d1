"""The configuration file: found, read, and every value traceable to its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gearshift.config.masking import Redactor, is_secret_key, shown
from gearshift.errors import ConfigError, GearshiftError

__all__ = ["FILE_NAME", "MISSING", "Document", "Keys", "Override", "copied", "dotted", "locate",
           "read"]  # fmt: skip

FILE_NAME = "gearshift.toml"

#: A place in the settings: ``("profiles", "rabbit", "port")``; a number is an index in a list.
Keys: TypeAlias = tuple[str | int, ...]

#: What ``Document.get`` returns where nothing is.
MISSING: Any = object()

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 32
_KEY_LINE = re.compile(r"\s*([^=#]+?)\s*=")
_TABLE_LINE = re.compile(r"\s*\[([^\[\]][^\]]*)\]\s*(?:#.*)?$")
_WHERE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)")


class Override(NamedTuple):
    """A value that an environment variable set: which, and its text before it was interpreted."""

    variable: str
    text: str


@dataclass(slots=True, repr=False)
class Document:
    """The settings as a tree, with where each comes from. ``label`` is how messages call the file;
    relative paths in settings start at ``folder``."""

    label: str
    folder: Path
    file: Path | None = None
    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=dict)
    overrides: dict[Keys, Override] = field(default_factory=dict)

    def get(self, keys: Keys) -> Any:
        """The value at ``keys``, or MISSING."""
        node: Any = self.tree
        for key in keys:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return MISSING
        return node

    def origin(self, keys: Keys) -> str:
        """The variable, or file and line, that sets the value at ``keys`` or would."""
        for length in range(len(keys), 0, -1):
            if override := self.overrides.get(keys[:length]):
                return f"environment {override.variable}"
            if origin := self.origins.get(keys[:length]):
                return origin
            if length == len(keys) and (override := self._inside(keys)):
                return f"environment {override.variable}"
        return self.label

    def _inside(self, keys: Keys) -> Override | None:
        """The variable that made the table at ``keys``, if the file does not have it."""
        inside = (over for path, over in self.overrides.items() if path[: len(keys)] == keys)
        return next(inside, None)

    def redactor(self) -> Redactor:
        """Knows whatever looks like a secret here, wherever it stands: in the wrong place too."""
        secrets = Redactor()
        secrets.learn_from(self.tree)
        return secrets.without_short()

    @contextmanager
    def masking(self) -> Iterator[None]:
        """Errors that leave the block hold no secret of these settings."""
        try:
            yield
        except GearshiftError as error:
            error.rewrite(self.redactor().redact)
            raise

    def problem(
        self, keys: Keys, what: str, *, hint: str | None = None, secret: bool = False
    ) -> ConfigError:
        """The error for the value at ``keys``: its origin, path, value as written, and ``what``."""
        value = self.get(keys)
        setting = dotted(keys)
        if keys and value is not MISSING and not isinstance(value, Mapping):
            named = keys[:1] + keys[2:] if keys[2:] else keys  # a name of the user's says nothing
            secret = secret or any(map(is_secret_key, named))
            setting += f" = {shown(value, secret=secret)}"
        parts = [self.origin(keys), setting, what]
        error = ConfigError(": ".join(part for part in parts if part), hint=hint)
        error.rewrite(self.redactor().redact)
        return error


def dotted(keys: Keys) -> str:
    """``keys`` as one writes them in TOML; list positions as ``[0]``."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            text += ("." if text else "") + (key if plain else '"' + repr(key)[1:-1] + '"')
    return text


def locate(directory: Path) -> Path | None:
    """The nearest ``gearshift.toml`` in ``directory`` or above it."""
    for folder in (directory, *directory.parents):
        candidate = folder / FILE_NAME
        try:
            if candidate.exists():
                return candidate
        except OSError:  # a folder that we may not look into holds nothing for us
            continue
    return None


def read(file: Path, label: str) -> Document:
    """Read and parse ``file``. Raises ConfigError with file and line."""
    text = _text(file, label)
    tree, problem = _parse(text, label)
    if problem:  # raised here, so that no parser error (which may hold the text) is its context
        raise problem
    if _too_deep(tree, _MAX_DEPTH):
        raise ConfigError(f"{label}: tables or lists are nested over {_MAX_DEPTH} deep")
    folder = file.absolute().parent
    origins = {keys: f"{label}:{line}" for keys, line in _lines(text).items()}
    return Document(label=label, folder=folder, file=file, tree=tree, origins=origins)


def copied(settings: Mapping[str, Any], left: int = _MAX_DEPTH) -> dict[str, Any]:
    """``settings`` in the types of TOML, for us to change. Raises ConfigError."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return copied(value, left - 1)
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    if left == 0:
        raise ConfigError(f"settings: tables are nested over {_MAX_DEPTH} deep")
    for key in settings:
        if not isinstance(key, str):
            raise ConfigError(f"settings: a key is {type(key).__name__}, not a text")
    return {key: plain(value) for key, value in settings.items()}


def _text(file: Path, label: str) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError(
            f"{label}: is a directory", hint=f"name the file, such as {label}/{FILE_NAME}"
        ) from None
    except FileNotFoundError:
        hint = "gearshift init writes one"
        if re.fullmatch(r"[\w-]+", label):
            hint = f'if that is a profile: gearshift.open(profile="{label}"), or --profile {label}'
        raise ConfigError(f"{label}: no such file", hint=hint) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{label}: cannot be read: {reason}") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{label}: is over {_MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    raise ConfigError(f"{label}:{line}: is not UTF-8 text", hint="save the file as UTF-8")


def _parse(text: str, label: str) -> tuple[dict[str, Any], ConfigError | None]:
    try:
        return tomllib.loads(text), None
    except RecursionError:
        return {}, ConfigError(f"{label}: tables or lists are nested too deep")
    except ValueError as error:
        what = str(error)
    where = _WHERE.search(what)
    last = len(text.rstrip().splitlines()) or 1
    line = (where[1] if where else None) or last
    return {}, ConfigError(
        f"{label}:{line}: not valid TOML: {_WHERE.sub('', what)}",
        hint="texts stand in quotes; see toml.io",
    )


def _too_deep(value: object, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left == 0 or any(_too_deep(item, left - 1) for item in inner)


def _lines(text: str) -> dict[Keys, int]:
    """The line of each key, as far as it begins one. A key inside an inline table has none."""
    lines: dict[Keys, int] = {}
    table: Keys | None = ()
    quotes: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        opened = quotes
        quotes = _open_quotes(line, quotes)
        if opened:
            continue
        if header := _TABLE_LINE.match(line):
            table = _keys(f"[{header[1]}]")
            lines.setdefault(table, number)
        elif line.lstrip().startswith("[["):  # an array of tables: its keys are not told apart
            table = None
        elif table is not None and (key := _KEY_LINE.match(line)):
            lines.setdefault(table + _keys(f"{key[1]} = 0"), number)
    lines.pop((), None)
    return lines


def _open_quotes(line: str, quotes: str | None) -> str | None:
    """Which multi-line string is open after ``line``, if ``quotes`` was open before it."""
    for mark in re.findall(r'"""|\'\'\'', line):
        if quotes is None:
            quotes = mark
        elif quotes == mark:
            quotes = None
    return quotes


def _keys(line: str) -> Keys:
    """The dotted key of one line, read by the TOML parser itself; empty if it has none."""
    try:
        node: Any = tomllib.loads(line)
    except ValueError:
        return ()
    keys: list[str] = []
    while isinstance(node, dict) and node:
        key, node = next(iter(node.items()))
        keys.append(key)
    return tuple(keys)
