"""msgspec's errors in the words of someone who writes a TOML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as kinds

from gearshift.config.document import Keys
from gearshift.config.masking import is_secret_key, mask_url
from gearshift.errors import GearshiftError
from gearshift.secret import Secret

__all__ = [
    "Failure",
    "Hook",
    "describe_type",
    "field_types",
    "from_settings",
    "is_secret",
    "translate",
    "unknown",
]

#: A ``dec_hook`` of msgspec.
Hook: TypeAlias = Callable[[type, Any], Any]

_PLACE = re.compile(r" - at `(?:key` in `)?\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`$")
_EXPECTED = re.compile(r"Expected `[^`]*`(?P<rest>.*)$", re.DOTALL)
_FIELD_FIRST = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(:?)\s+")
_VERB = re.compile(r"(?:must|is|has|lists|names|needs|cannot)\b")

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
class Failure:
    """Why a table could not be converted. ``path`` is relative to the table.

    ``foreign``: the text comes from a settings type and may repeat a value. ``secret``: the value
    at ``path`` is one.
    """

    path: Keys
    what: str
    hint: str | None = None
    foreign: bool = False
    secret: bool = False


def unknown(name: str, known: Iterable[str], what: str) -> tuple[str, str]:
    """Text and hint for a name that is not one of ``known``."""
    names, name = list(known), mask_url(name)
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


def translate(error: msgspec.ValidationError, table: Any, kind: kinds.Type, hook: Hook) -> Failure:
    text = str(error)
    place = _PLACE.search(text)
    text = _PLACE.sub("", text)
    path, kind = _walk(place["path"] if place else "", table, kind, hook)
    if error.__cause__ is not None:
        return from_settings(error.__cause__, path, kind)
    if found := _UNKNOWN.match(text):
        what, hint = unknown(found[1], _names(kind), "setting")
        return Failure((*path, found[1]), what, hint, secret=_may_be_secret(found[1], kind))
    if found := _MISSING.match(text):
        return Failure((*path, found[1]), "is missing", f"add {found[1]} = ...")
    secret = is_secret(kind)
    found = _EXPECTED.match(text)
    if found and found["rest"] and not found["rest"].startswith(", got"):
        return Failure(path, f"must be{found['rest']}", secret=secret)
    return Failure(path, f"expected {describe_type(kind)}", secret=secret)


def from_settings(cause: BaseException, path: Keys, kind: kinds.Type) -> Failure:
    """A ValueError out of ``__post_init__`` or a type; its text may begin with a field's name."""
    what = cause.message if isinstance(cause, GearshiftError) else str(cause)
    hint = cause.hint if isinstance(cause, GearshiftError) else None
    first = _FIELD_FIRST.match(what)
    if first and (named := tuple(first[1].split(".")))[0] in _names(kind):
        path, kind = (*path, *named), _inner(kind, named[0])
        if first[2] or _VERB.match(what, first.end()):  # the path says it already
            what = what[first.end() :]
    return Failure(path, what, hint, foreign=True, secret=is_secret(kind))


def _may_be_secret(name: str, kind: kinds.Type) -> bool:
    """True if ``name`` could be the misspelt name of a field that holds a secret."""
    secret = [
        field for field in _names(kind) if is_secret_key(field) or is_secret(_inner(kind, field))
    ]
    return bool(difflib.get_close_matches(name, secret, n=1, cutoff=0.5))


def _walk(path: str, node: Any, kind: kinds.Type, hook: Hook) -> tuple[Keys, kinds.Type]:
    """Follow msgspec's path through value and type: its keys, and the type at its end."""
    keys: Keys = ()
    for name, index, wildcard in _STEP.findall(path):
        kind = _inner(kind, name)
        # msgspec does not tell which key of a dict it means.
        key: Any = _culprit(node, kind, hook) if wildcard else int(index) if index else name
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):  # as far as it can be told
            node = None
        else:
            keys = (*keys, key)
    return keys, kind


def _culprit(node: Any, kind: kinds.Type, hook: Hook) -> str | None:
    """The key whose value does not convert."""
    wanted = _python_type(kind)
    for key, value in node.items() if isinstance(node, dict) else ():
        try:
            msgspec.convert(value, wanted, dec_hook=hook)
        except (msgspec.ValidationError, GearshiftError):
            return str(key)
    return None


def _python_type(kind: kinds.Type) -> Any:
    """The type that ``kind`` describes, as far as the values of tables need it."""
    if isinstance(kind, kinds.DictType):
        return dict.__class_getitem__((str, _python_type(kind.value_type)))
    if isinstance(kind, kinds.CollectionType):
        return list.__class_getitem__(_python_type(kind.item_type))
    if isinstance(kind, kinds.UnionType):
        return reduce(or_, map(_python_type, kind.types))
    return _SCALARS.get(type(kind)) or getattr(kind, "cls", Any)


_SCALARS: dict[type[kinds.Type], Any] = {
    kinds.BoolType: bool,
    kinds.IntType: int,
    kinds.FloatType: float,
    kinds.StrType: str,
    kinds.NoneType: type(None),
}


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


def _alternatives(kind: kinds.Type) -> list[kinds.Type]:
    if isinstance(kind, kinds.UnionType):
        return [option for inner in kind.types for option in _alternatives(inner)]
    return _alternatives(kind.type) if isinstance(kind, kinds.Metadata) else [kind]


def _names(kind: kinds.Type) -> list[str]:
    structs = [option for option in _alternatives(kind) if isinstance(option, kinds.StructType)]
    return [field.encode_name for struct in structs for field in struct.fields]


def describe_type(kind: kinds.Type) -> str:
    """What a user has to write for this type."""
    words = [_word(option) for option in _alternatives(kind)]
    return " or ".join(dict.fromkeys(word for word in words if word)) or "another kind of value"


def _word(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.EnumType):
        return "one of " + ", ".join(repr(str(member.value)) for member in kind.cls)
    if isinstance(kind, kinds.LiteralType):
        return "one of " + ", ".join(map(repr, kind.values))
    return next((word for sort, word in _WORDS if isinstance(kind, sort)), "")
