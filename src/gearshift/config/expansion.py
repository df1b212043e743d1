"""``${VAR}`` in the selected profile: replaced from the environment.

- ``$${`` stands for a literal ``${``.
- A variable that is not set is an error; one that is set to nothing is an empty text. For whoever
  connects to nothing, ``Unset`` collects such names instead.
- In a URL (a text with ``://``) a value in the credentials or in the path is percent-encoded: the
  variable holds the password as it is, ``/`` and ``@`` included, and must not be encoded already.
  In the host, and in a text that is one ``${URL}``, it is inserted unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from gearshift.config.document import Document, Keys
from gearshift.config.masking import Redactor, is_secret_key

__all__ = ["Unset", "expand"]

_MARK = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(
    value: Any, keys: Keys, document: Document, environ: Mapping[str, str], secrets: Redactor
) -> Any:
    """``value`` with every reference replaced; what came in is made known to ``secrets``.

    Raises ConfigError that names the field and the variable.
    """

    def inside(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        for key, inner in pairs:
            if not _is_left_out(inner, environ):
                yield key, expand(inner, (*keys, key), document, environ, secrets)

    if isinstance(value, dict):
        return dict(inside(value.items()))
    if isinstance(value, list):
        return [item for _, item in inside(enumerate(value))]
    if isinstance(value, str) and "${" in value:
        problem = _problem(value, environ)
        if problem:
            what, hint = problem
            raise document.problem(keys, what, hint=hint)
        return _expand_text(value, environ, secrets)
    return value


class Unset(Mapping[str, str]):
    """An environment in which every variable is set, for looking at settings without secrets.

    A setting that is nothing but one that is not set is left out; in a longer text "1" stands for
    it, which a host or a port may be. ``names`` are those that were asked for.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        if name in self._known or name.startswith("GEARSHIFT_"):  # those choose, and have defaults
            return self._known[name]
        self.names.add(name)
        return "1"

    def lacks(self, text: str) -> bool:
        """True if ``text`` is one reference to what is not set."""
        mark = _MARK.fullmatch(text)
        name = mark["name"] if mark else None
        if not name or not _NAME.fullmatch(name) or name in self._known:
            return False
        self.names.add(name)
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _is_left_out(value: Any, environ: Mapping[str, str]) -> bool:
    return isinstance(environ, Unset) and isinstance(value, str) and environ.lacks(value)


def _problem(text: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The fault in the references of ``text``, and the fix."""
    for mark in _MARK.finditer(text):
        name = mark["name"]
        if mark[0] == "$${":
            continue
        if name is None or not _NAME.fullmatch(name):
            return "'${' without a variable's name and '}'", "write $${ for a literal ${"
        if name not in environ:
            return (
                f"environment variable {name} is not set",
                f"set {name}, or choose another profile",
            )
        if not _is_unicode(environ[name]):
            return f"environment variable {name} is not UTF-8 text", f"set {name} to UTF-8 text"
    return None


def _expand_text(text: str, environ: Mapping[str, str], secrets: Redactor) -> str:
    def replaced(mark: re.Match[str]) -> str:
        name = mark["name"]
        if name is None:
            return "${"
        value = environ[name]
        if is_secret_key(name):
            secrets.learn(value)
        else:
            secrets.suspect(value)
        return quote(value, safe="") if _is_quoted_at(text, mark.start()) else value

    return _MARK.sub(replaced, text)


def _is_quoted_at(text: str, position: int) -> bool:
    """True if ``position`` is in the credentials or the path of the URL that ``text`` is."""
    start = text.find("://")
    if start < 0 or position < start:
        return False
    at = text.rfind("@")
    path = text.find("/", at if at > start else start + 3)
    return position < at or 0 <= path < position


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
