"""From tables to typed settings, and from msgspec's complaints to errors that name the fix."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as kinds

from gearshift.config.document import MISSING, Document, Keys
from gearshift.config.masking import Redactor
from gearshift.errors import GearshiftError
from gearshift.secret import Secret

__all__ = ["convert", "field_types", "is_secret", "unknown"]

_PLACE = re.compile(r" - at `(?:key` in `)?\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`$")
_EXPECTED = re.compile(r"Expected `[^`]*`(?P<rest>.*)$", re.DOTALL)
_FIELD_FIRST = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):?\s+")

_WORDS: list[tuple[type[kinds.Type], str]] = [
    (kinds.BoolType, "true or false"),
    (kinds.IntType, "a whole number"),
    (kinds.FloatType, "a number"),
    (kinds.StrType, "a text in quotes"),
    (kinds.CustomType, "a text in quotes"),
    (kinds.CollectionType, "a list in [ ]"),
    (kinds.TupleType, "a list in [ ]"),
    (kinds.DictType, "a table"),
    (kinds.StructType, "a table"),
]


@dataclass(frozen=True, slots=True, repr=False)
class _Failure:
    """Why a table could not be converted. ``path`` is relative to the table."""

    path: Keys
    what: str
    hint: str | None = None
    secret: bool = False


def convert(
    table: Mapping[str, Any],
    target: type,
    *,
    keys: Keys,
    document: Document,
    secrets: Redactor,
) -> Any:
    """``table``, which stands at ``keys`` of ``document``, as an instance of ``target``.

    Text becomes ``Secret`` or ``Path`` (relative to the file's folder) where the type says so.
    Raises ConfigError, without context: what msgspec raised may hold a secret.
    """
    tried: set[Keys] = set()
    while True:
        result, failure = _attempt(table, target, document.folder)
        if failure is None:
            return result
        place = (*keys, *failure.path)
        override = document.overrides.get(place)
        if override is None or place in tried:
            break
        # A password that looks like a number came out of the environment as a number.
        tried.add(place)
        table = _replaced(table, failure.path, override.text)
    what = secrets.redact(failure.what)
    hint = secrets.redact(failure.hint) if failure.hint else None
    problem = document.problem(place, what, hint=hint, secret=failure.secret)
    del table, failure, override  # a traceback that shows locals must not show these
    raise problem


def unknown(name: str, known: Iterable[str], what: str) -> tuple[str, str]:
    """Text and hint for a name that is not one of ``known``."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}", f"{meant}Known: {', '.join(names) or 'none'}"


def field_types(target: type) -> dict[str, kinds.Field]:
    """The fields of a Struct by their name in TOML; empty for any other type."""
    info = kinds.type_info(target)
    return {f.encode_name: f for f in info.fields} if isinstance(info, kinds.StructType) else {}


def is_secret(kind: kinds.Type) -> bool:
    """True if a value of this type is, or may be, a Secret."""
    return any(isinstance(k, kinds.CustomType) and k.cls is Secret for k in _alternatives(kind))


def _attempt(table: Mapping[str, Any], target: type, folder: Path) -> tuple[Any, _Failure | None]:
    """The converted table, or why not. Never raises."""
    hook = _hook(folder)
    try:
        return msgspec.convert(table, target, dec_hook=hook), None
    except msgspec.ValidationError as error:
        return None, _translate(error, table, kinds.type_info(target), hook)
    except GearshiftError as error:
        return None, _from_settings(error, (), kinds.type_info(target))
    except Exception as error:  # a fault of the settings type; its traceback could show a password
        return None, _Failure((), f"{target.__name__} failed: {type(error).__name__}: {error}")


def _hook(folder: Path) -> Callable[[type, Any], Any]:
    def decode(wanted: type, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("expected a text in quotes")
        if wanted is Secret:
            return Secret(value)
        if wanted is Path:
            return _path(value, folder)
        raise ValueError(f"settings of type {wanted.__name__} are not supported")

    return decode


def _path(text: str, folder: Path) -> Path:
    if not text or "\0" in text:
        raise ValueError("is not a path")
    if text.startswith("~"):
        raise ValueError("'~' is not expanded here; write ${HOME} in a profile, or the full path")
    return folder / text


def _replaced(node: Any, path: Keys, value: Any) -> Any:
    """A copy of ``node`` with ``value`` at ``path``."""
    if not path:
        return value
    if isinstance(node, list):
        return [_replaced(v, path[1:], value) if i == path[0] else v for i, v in enumerate(node)]
    return {**node, path[0]: _replaced(node[path[0]], path[1:], value)}


# ── Translating msgspec ──────────────────────────────────────────────────────────────────────────


def _translate(
    error: msgspec.ValidationError, table: Any, kind: kinds.Type, hook: Callable[[type, Any], Any]
) -> _Failure:
    text = str(error)
    place = _PLACE.search(text)
    text = _PLACE.sub("", text)
    path, kind = _walk(place["path"] if place else "", table, kind, hook)
    if error.__cause__ is not None:
        return _from_settings(error.__cause__, path, kind)
    if found := _UNKNOWN.match(text):
        what, hint = unknown(found[1], _names(kind), "setting")
        return _Failure((*path, found[1]), what, hint)
    if found := _MISSING.match(text):
        return _Failure((*path, found[1]), "is missing", f"add {found[1]} = ...")
    secret = is_secret(kind)
    found = _EXPECTED.match(text)
    if found and found["rest"] and not found["rest"].startswith(", got"):
        return _Failure(path, f"must be{found['rest']}", secret=secret)
    return _Failure(path, f"expected {_describe(kind)}", secret=secret)


def _from_settings(cause: BaseException, path: Keys, kind: kinds.Type) -> _Failure:
    """A ValueError out of ``__post_init__`` or a type; its text may begin with a field's name."""
    what = cause.message if isinstance(cause, GearshiftError) else str(cause)
    hint = cause.hint if isinstance(cause, GearshiftError) else None
    if (first := _FIELD_FIRST.match(what)) and first[1].split(".")[0] in _names(kind):
        named = tuple(first[1].split("."))
        return _Failure((*path, *named), what[first.end() :], hint, _field_secret(kind, named[0]))
    return _Failure(path, what, hint, is_secret(kind))


def _walk(
    path: str, node: Any, kind: kinds.Type, hook: Callable[[type, Any], Any]
) -> tuple[Keys, kinds.Type]:
    """Follow msgspec's path through value and type: its keys, and the type at its end."""
    keys: Keys = ()
    for name, index, wildcard in _STEP.findall(path):
        inner = _inner(kind, name)
        if wildcard:  # msgspec does not tell the key of a dict: find the value that fails
            key: str | int = _culprit(node, inner, hook)
        else:
            key = int(index) if index else name
        keys = (*keys, key)
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            node = MISSING
        kind = inner
    return keys, kind


def _culprit(node: Any, kind: kinds.Type, hook: Callable[[type, Any], Any]) -> str:
    values = node if isinstance(node, dict) else {}
    wanted = _python_type(kind)
    for key, value in values.items():
        try:
            msgspec.convert(value, wanted, dec_hook=hook)
        except (msgspec.ValidationError, GearshiftError):
            return str(key)
    return "?"


def _python_type(kind: kinds.Type) -> Any:
    """The type that ``kind`` describes, as far as values of tables need it."""
    for sort, wanted in _PLAIN_TYPES:
        if isinstance(kind, sort):
            return wanted
    if isinstance(kind, kinds.DictType):
        return dict[_python_type(kind.key_type), _python_type(kind.value_type)]  # type: ignore[misc]
    return getattr(kind, "cls", Any)


_PLAIN_TYPES: list[tuple[type[kinds.Type], Any]] = [
    (kinds.BoolType, bool),
    (kinds.IntType, int),
    (kinds.FloatType, float),
    (kinds.StrType, str),
    (kinds.ListType, list),
]


def _inner(kind: kinds.Type, name: str) -> kinds.Type:
    """The type of field ``name``, or of the elements if there is no name."""
    for option in _alternatives(kind):
        if isinstance(option, kinds.StructType) and name:
            return next((f.type for f in option.fields if f.encode_name == name), kinds.AnyType())
        if isinstance(option, kinds.DictType):
            return option.value_type
        if isinstance(option, kinds.CollectionType):
            return option.item_type
    return kinds.AnyType()


def _alternatives(kind: kinds.Type) -> tuple[kinds.Type, ...]:
    if isinstance(kind, kinds.UnionType):
        return kind.types
    return _alternatives(kind.type) if isinstance(kind, kinds.Metadata) else (kind,)


def _names(kind: kinds.Type) -> list[str]:
    for option in _alternatives(kind):
        if isinstance(option, kinds.StructType):
            return [field.encode_name for field in option.fields]
    return []


def _field_secret(kind: kinds.Type, name: str) -> bool:
    return is_secret(_inner(kind, name))


def _describe(kind: kinds.Type) -> str:
    """What a user has to write for this type."""
    words = [_word(option) for option in _alternatives(kind)]
    return " or ".join(dict.fromkeys(word for word in words if word)) or "another kind of value"


def _word(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.EnumType):
        return "one of " + ", ".join(repr(_value(member)) for member in kind.cls)
    if isinstance(kind, kinds.LiteralType):
        return "one of " + ", ".join(map(repr, kind.values))
    return next((word for sort, word in _WORDS if isinstance(kind, sort)), "")


def _value(member: enum.Enum) -> str:
    return str(member.value)
