"""``${VAR}`` in the selected profile: replaced from the environment.

- ``$${`` stands for a literal ``${``.
- A variable that is not set is an error; one that is set to nothing is an empty text.
- In a URL (a text with ``://``) a value in the credentials or in the path is percent-encoded: the
  variable holds the password as it is, ``/`` and ``@`` included, and must not be encoded already.
  In the host, and in a text that is one ``${URL}``, it is inserted unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gearshift.config.document import Document, Keys
from gearshift.config.masking import Redactor

__all__ = ["expand"]

_MARK = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(
    value: Any, keys: Keys, document: Document, environ: Mapping[str, str], secrets: Redactor
) -> Any:
    """``value`` with every reference replaced; what came in is made known to ``secrets``.

    Raises ConfigError that names the field and the variable.
    """
    if isinstance(value, dict):
        return {
            key: expand(inner, (*keys, key), document, environ, secrets)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            expand(inner, (*keys, index), document, environ, secrets)
            for index, inner in enumerate(value)
        ]
    if isinstance(value, str) and "${" in value:
        problem = _problem(value, environ)
        if problem:
            what, hint = problem
            raise document.problem(keys, what, hint=hint)
        return _expand_text(value, environ, secrets)
    return value


def _problem(text: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong with the references of ``text``, and the fix."""
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
        secrets.learn(environ[name])
        value = environ[name]
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
