"""The corpus as a table of the docs.

``PYTHONPATH=tests python -m prove.table >docs/guides/prove-corpus.md`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import prove.faulty
import prove.right  # noqa: F401
from prove.subject import Subject, collected

from gearshift.misfortunes import RULES

__all__ = ["table"]

_CAPABILITY = {rule.name: rule.capability for rule in RULES}


def table() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Handlers that were proved"
    yield ""
    yield "Written from `tests/prove`. Its tests show that `gearshift prove` finds each fault,"
    yield "with the misfortune and the capability named here, and none in the right handlers."
    yield ""
    yield "## Faults"
    yield ""
    yield "| handler | what is wrong | profile | misfortune | capability |"
    yield "| --- | --- | --- | --- | --- |"
    for one in collected():
        if one.rule is not None:
            yield f"{_begin(one)} {one.rule} | `{_CAPABILITY[one.rule]}` |"
    yield ""
    yield "## Right ones"
    yield ""
    yield "| handler | what makes it safe | profile |"
    yield "| --- | --- | --- |"
    yield from (_begin(one) for one in collected() if one.rule is None)


def _begin(one: Subject) -> str:
    processes = "" if one.processes == 2 else ", one process"
    return f"| {one.name} | {one.build.__doc__} | {one.profile}, {one.semantics}{processes} |"


if __name__ == "__main__":
    print(table(), end="")
