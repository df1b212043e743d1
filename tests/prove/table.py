"""The corpus as a table of the docs.

``PYTHONPATH=tests python -m prove.table >docs/guides/prove-corpus.md`` writes it, after
``make stories`` has written down what real brokers show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import prove.faulty
import prove.right  # noqa: F401
from prove.subject import Subject, collected

from gearshift.misfortunes import RULES

__all__ = ["STORIES", "TAKEN_BACK_AFTER_S", "table"]

#: What was seen of each handler's stories on its real broker, by rule.
STORIES = Path(__file__).with_name("stories.json")

#: RabbitMQ takes back there what is held for so long; half an hour by default.
TAKEN_BACK_AFTER_S = 10

_CAPABILITY = {rule.name: rule.capability for rule in RULES}


def table() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    stories = json.loads(STORIES.read_text(encoding="utf-8"))
    told = [text for one in stories.values() for text in one.values()]
    seen = told.count("seen")
    yield "# Handlers that were proved"
    yield ""
    yield "Written from `tests/prove`. Its tests show that `gearshift prove` finds each fault,"
    yield "with the misfortune and the capability named here, and none in the right handlers."
    yield ""
    yield "## Faults"
    yield ""
    yield "On the broker: what `make stories` saw when it played the story of that misfortune on"
    yield f"RabbitMQ 3.10 or Kafka 4.4, with `consumer_timeout_s = {TAKEN_BACK_AFTER_S}`. Of all"
    yield f"{len(told)} stories {seen} were seen, {len(told) - seen} not tried."
    yield ""
    yield "| handler | what is wrong | profile | misfortune | capability | on the broker |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in collected():
        if one.rule is not None:
            on_broker = stories.get(one.name, {}).get(one.rule, "")
            yield f"{_begin(one)} {one.rule} | `{_CAPABILITY[one.rule]}` | {on_broker} |"
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
