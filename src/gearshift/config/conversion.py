"""From tables to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gearshift.config.document import Document, Keys
from gearshift.config.errors import (
    Failure,
    Hook,
    field_types,
    from_settings,
    is_secret,
    translate,
)
from gearshift.config.masking import Redactor
from gearshift.errors import GearshiftError
from gearshift.secret import Secret

__all__ = ["convert"]


def convert(
    table: Mapping[str, Any], target: type, *, keys: Keys, document: Document, secrets: Redactor
) -> Any:
    """``table``, which stands at ``keys`` of ``document``, as an instance of ``target``.

    Text becomes ``Secret`` or ``Path`` (relative to the file's folder) where the type says so.
    Raises ConfigError, without context: what msgspec raised may hold a secret.
    """
    _learn(table, target, secrets)
    table = _default_paths(target) | dict(table)
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
    what, hint = failure.what, failure.hint
    if failure.foreign:
        what, hint = secrets.redact(what), secrets.redact(hint) if hint else None
    problem = document.problem(place, what, hint=hint, secret=failure.secret)
    del table, failure, override, result  # a traceback that shows locals must not show these
    raise problem


def _default_paths(target: type) -> dict[str, str]:
    """Defaults that are paths, as texts: they begin where those in the file do."""
    fields = field_types(target)
    return {key: str(f.default) for key, f in fields.items() if isinstance(f.default, Path)}


def _learn(table: Mapping[str, Any], target: type, secrets: Redactor) -> None:
    """Make known what the keys, the values' form or the types of fields say is secret."""
    fields = field_types(target)
    for key, value in table.items():
        secrets.learn_from({key: value}, secret=key in fields and is_secret(fields[key].type))


def _attempt(table: Mapping[str, Any], target: type, folder: Path) -> tuple[Any, Failure | None]:
    """The converted table, or why not. Never raises."""
    hook, kind = _hook(folder), msgspec.inspect.type_info(target)
    try:
        # A dict, because msgspec lets unknown keys of any other mapping pass.
        return msgspec.convert(dict(table), target, dec_hook=hook), None
    except msgspec.ValidationError as error:
        return None, translate(error, table, kind, hook)
    except GearshiftError as error:
        return None, from_settings(error, (), kind)
    except Exception as error:  # a fault of the settings type; its traceback could show a password
        what = f"{target.__name__} failed: {type(error).__name__}: {error}"
        return None, Failure((), what, foreign=True)


def _hook(folder: Path) -> Hook:
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
