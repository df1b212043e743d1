"""Optional libraries, which ``pip install 'gearshift[EXTRA]'`` brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gearshift.errors import MissingExtra

__all__ = ["importing"]


@contextmanager
def importing(extra: str) -> Iterator[None]:
    """Around the imports that need ``extra``. Raises MissingExtra for a library that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("gearshift."):
            raise
        raise MissingExtra(
            f"{error.name} is not installed", hint=f"pip install 'gearshift[{extra}]'"
        ) from None
