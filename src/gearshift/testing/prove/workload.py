"""Messages to prove handlers with: examples, a file of them, or made from the handlers' types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gearshift.errors import UsageError
from gearshift.message import Key
from gearshift.worker.app import App, Handler

__all__ = ["MOST_MESSAGES", "Example", "Workload", "read_examples", "workload_of"]

#: Stories need two or three messages, and a fault that needs more than five is rare.
MOST_MESSAGES = 5


@dataclass(frozen=True, slots=True)
class Example:
    """A message as it is sent: ``channel`` None is the app's only one."""

    value: Any
    channel: str | None = None
    key: Key | None = None
    headers: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Messages to draw from, and as many of the given ones as are sent in a case, if any are."""

    drawn: SearchStrategy[list[Example]]
    given: Sequence[Example] = ()


class _Line(msgspec.Struct, kw_only=True):
    """A line of a file; what ``gearshift tail -o jsonl`` writes has more fields, which are left."""

    value: Any
    channel: str | None = None
    key: str | None = None
    headers: dict[str, Any] | None = None


def read_examples(file: Path) -> list[Example]:
    """Examples from JSON lines with ``value`` and, if any, ``channel``, ``key`` and ``headers``.

    Raises UsageError with the line that is not one.
    """
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            hint = 'write {"channel": "orders", "key": "ada", "value": {...}}'
            raise UsageError(f"{file}:{number}: {error}", hint=hint) from error
        found.append(Example(one.value, one.channel, one.key, one.headers))
    return found


def workload_of(
    app: App, examples: Iterable[Any] | None, key: Callable[[Any], Key | None] | None
) -> Workload:
    """Some of the examples, in their order; without examples, values of the handlers' types.

    Raises UsageError if there is nothing to draw from.
    """
    if examples is None:
        return Workload(st.lists(_typed(app, key), min_size=1, max_size=MOST_MESSAGES))
    given = [_placed(app, one, key) for one in examples]
    if not given:
        raise UsageError("there are no examples", hint="return one message at least")
    numbers = st.lists(
        st.integers(0, len(given) - 1), min_size=1, max_size=MOST_MESSAGES, unique=True
    )
    drawn = numbers.map(lambda chosen: [given[number] for number in sorted(chosen)])
    return Workload(drawn, given[:MOST_MESSAGES])


def _placed(app: App, one: Any, key: Callable[[Any], Key | None] | None) -> Example:
    example = one if isinstance(one, Example) else Example(one)
    channel = example.channel or _only_channel(app)
    chosen = key(example.value) if key is not None and example.key is None else example.key
    return Example(example.value, channel, chosen, example.headers)


def _only_channel(app: App) -> str:
    channels = sorted({handler.channel for handler in app.handlers})
    if len(channels) != 1:
        raise UsageError(
            f"an example names no channel, and there are several: {', '.join(channels)}",
            hint='say which: Example(value, channel="orders")',
        )
    return channels[0]


def _typed(app: App, key: Callable[[Any], Key | None] | None) -> SearchStrategy[Example]:
    seen: dict[str, Handler] = {}
    for handler in app.handlers:
        seen.setdefault(handler.channel, handler)
    drawn: Sequence[SearchStrategy[Example]] = [
        st.builds(
            lambda value, channel=channel: Example(value, channel, key(value) if key else None),
            _values(handler),
        )
        for channel, handler in seen.items()
    ]
    return st.one_of(drawn)


def _values(handler: Handler) -> SearchStrategy[Any]:
    wanted = handler.call.value_type
    if wanted is Any or wanted in (dict, list, object):
        raise UsageError(
            f"{handler.name}: its messages are of no type that could be made up",
            hint="write examples() beside the handler, give --messages FILE.jsonl, "
            "or annotate its parameter",
        )
    return st.from_type(wanted)
