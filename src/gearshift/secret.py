"""A text that never shows itself: passwords and tokens on their way from settings to a client."""

from __future__ import annotations

import re
from typing import NoReturn

__all__ = ["Secret", "without_credentials"]

_IN_URL = re.compile(r"(?P<before>[A-Za-z][\w+.-]*://[^\s/@:]*:)(?P<password>\S*)@")
_REFERENCE = re.compile(r"\$\{\w+\}")


class Secret:
    """Holds a secret; prints as ``***`` everywhere. ``reveal()`` gives it to a client library."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Pass it straight on; never store or format it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


def without_credentials(text: str) -> str:
    """``text`` with the password of every ``scheme://user:password@`` masked, but for a ``${VAR}``.

    For texts in which a URL stands where none is expected, such as the name of a backend.
    """

    def masked(url: re.Match[str]) -> str:
        return url[0] if _REFERENCE.fullmatch(url["password"]) else f"{url['before']}***@"

    return _IN_URL.sub(masked, text) if "://" in text else text
