"""Single settings from environment variables: ``GEARSHIFT_CHANNELS__ORDERS__MAX_ATTEMPTS=7``.

``__`` separates the names of the path. Names match those in the file whatever their case, and a
``.`` or ``-`` in them is written ``_``; a name that the file does not have is taken in lower case.
The value is read as TOML if it is a number, true or false, a list or an inline table, and else as
the text that it is; where a setting wants text, ``12345`` stays that text. Any other
``GEARSHIFT_*`` variable than these and RESERVED is refused: a misspelt one would be ignored.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from typing import Any

from gearshift.config.document import Document, Keys, Override, dotted
from gearshift.errors import ConfigError

__all__ = ["CONFIG", "PREFIX", "PROFILE", "REHEARSAL", "RESERVED", "apply"]

PREFIX = "GEARSHIFT_"
CONFIG = "GEARSHIFT_CONFIG"
PROFILE = "GEARSHIFT_PROFILE"
REHEARSAL = "GEARSHIFT_REHEARSAL"
RESERVED = frozenset({CONFIG, PROFILE, REHEARSAL})

_SECTIONS = ("profiles", "channels")


def apply(document: Document, environ: Mapping[str, str], channel_fields: tuple[str, ...]) -> None:
    """Put every override of ``environ`` into ``document``."""
    names = [name for name in environ if name.startswith(PREFIX) and name not in RESERVED]
    # A whole table before single values in it, whatever order the environment has.
    for variable in sorted(names, key=lambda name: (name.count("__"), name)):
        path = _path(variable)
        if path[0] == "channels" and path[2:]:
            path[2] = _match(path[2], channel_fields)
        _put(document, path, Override(variable, environ[variable]))


def _path(variable: str) -> list[str]:
    path = variable.removeprefix(PREFIX).lower().split("__")
    if path[0] not in _SECTIONS:
        raise _unknown(variable)
    if len(path) < 3 or not all(path):
        raise ConfigError(
            f"environment variable {variable} names no setting",
            hint=f"write {PREFIX}{path[0].upper()}__NAME__SETTING",
        )
    return path


def _unknown(variable: str) -> ConfigError:
    head, separator, tail = variable.partition("__")
    whole, sections = sorted(RESERVED), [PREFIX + section.upper() for section in _SECTIONS]
    close = difflib.get_close_matches(head, sections if separator else whole + sections, n=1)
    meant = f"did you mean {close[0]}{separator}{tail}? " if close else ""
    return ConfigError(
        f"unknown environment variable {variable}",
        hint=f"{meant}Known are {', '.join(whole)}, {sections[0]}__NAME__SETTING "
        f"and {sections[1]}__NAME__SETTING",
    )


def _put(document: Document, path: list[str], override: Override) -> None:
    node: dict[str, Any] = document.tree
    keys: Keys = ()
    for name in path[:-1]:
        key = _known_key(node, name, override.variable, keys)
        keys = (*keys, key)
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"environment variable {override.variable}: {dotted(keys)} is not a table, "
                "so nothing can be set inside it"
            )
    key = _known_key(node, path[-1], override.variable, keys)
    keys = (*keys, key)
    if earlier := document.overrides.get(keys):
        raise ConfigError(
            f"environment variables {earlier.variable} and {override.variable} both set "
            f"{dotted(keys)}",
            hint="unset one of them",
        )
    node[key] = interpret(override.text)
    document.overrides[keys] = override


def _known_key(node: Mapping[str, Any], name: str, variable: str, keys: Keys) -> str:
    """The key of ``node`` that ``name`` stands for, or ``name`` if there is none."""
    found = [key for key in node if _plain(key) == name]
    if len(found) > 1 and name not in found:
        raise ConfigError(
            f"environment variable {variable} could mean {' or '.join(map(repr, found))} "
            f"in {dotted(keys)}",
            hint="set this value in the file",
        )
    return name if name in found or not found else found[0]


def _match(name: str, fields: tuple[str, ...]) -> str:
    return next((known for known in fields if _plain(known) == name), name)


def _plain(name: str) -> str:
    return name.lower().replace(".", "_").replace("-", "_")


def interpret(text: str) -> Any:
    """``text`` as a TOML number, boolean, list or inline table, else itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = parsed["value"]
    # A comment or a second line would be cut off in silence.
    whole = (
        len(parsed) == 1
        and "\n" not in text
        and (isinstance(value, dict | list) or "#" not in text)
    )
    return value if whole and isinstance(value, bool | int | float | dict | list) else text
