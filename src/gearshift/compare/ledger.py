"""The ledger: every event of every message, as ``gearshift compare`` writes and reads it.

::

    Ledger
      format          1
      meta            Meta: when, on what, with which settings, seed and workload
        columns[]     Column: id ("rabbit:queue"), profile, semantics, backend, server,
                      capabilities {name: value}, settings [{key, value, origin}] with defaults
      runs[]          RunRecord: one scenario on one column
        scenario      "ordering" | "crash" | "fan_out" | "replay" | "poison" | "slow" | "scaling"
        column        Column.id
        refused       why it was not run at all, or null
        trials[]      TrialRecord: one repetition of one variant, on a channel of its own
          repetition  from 1
          variant     "" or what differs between a repetition's trials, such as "workers=4"
          settings    {name: number or text}: members, prefetch, work_ms ...
          error       why it ended early, or null
          events[]    Event, ordered by at_ms
          samples[]   Sample: a named number at a moment

Times are milliseconds since the trial began, of one monotonic clock that all processes of a machine
share. A message is known by ``seq``, its place in the seeded workload, which it carries in its
body. Fields that have their default are left out of the JSON.

Events
    send        the producer hands ``seq`` over              who: producer
    receipt     the broker has confirmed it; ``ms_taken``    who: producer
    refused     the send failed; ``what`` is the error       who: producer
    deliver     a worker has been given it, and begins       who: worker
    done        the handler has finished it without error    who: worker
    failed      the handler raised; ``what`` is the error    who: worker
    settle      ``what``: ack, retry, reject; stale: too late   who: worker
    seek        ``what``: where to, or why it was refused    who: worker
    assign      ``partitions`` that a worker now owns        who: worker
    start, ready, stop      of a worker                      who: worker
    stuck       hangs in its handler, to be killed there      who: worker
    fault       ``what``: "SIGKILL"                          who: the victim
    dead        found in the dead-letter channel             who: reader

A rehearsal (see ``rehearsal``) keeps no content: there ``deliver`` has ``digests`` of a message's
fields, ``done`` of what the handler returned, and ``key`` is a digest too.

Samples (``name`` and unit)
    ready_messages, in_flight_messages, lag_messages      as the broker tells, ``group``
    held_messages                                          received by ``who`` and not settled
    rss_bytes                                              of the process of ``who``
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

from gearshift.errors import UsageError

__all__ = [
    "FORMAT",
    "SCENARIOS",
    "Column",
    "Event",
    "Kind",
    "Ledger",
    "Meta",
    "RunRecord",
    "Sample",
    "Scenario",
    "Setting",
    "TrialRecord",
    "decode",
    "encode",
    "read",
]

FORMAT = 1

Scenario = Literal["ordering", "crash", "fan_out", "replay", "poison", "slow", "scaling"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

Kind = Literal[
    "send", "receipt", "refused", "deliver", "done", "failed", "settle", "seek", "assign",
    "start", "ready", "stop", "stuck", "fault", "dead",
]  # fmt: skip


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something that happened to a message or a worker; see the module's text."""

    at_ms: float
    kind: Kind
    who: str
    group: str = ""
    seq: int | None = None
    key: str | None = None
    attempt: int | None = None
    redelivered: bool | None = None
    partition: int | None = None
    offset: int | None = None
    partitions: tuple[int, ...] = ()
    ms_taken: float | None = None
    what: str = ""
    digests: dict[str, str] = {}


class Sample(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A number at a moment; see the module's text for the names."""

    at_ms: float
    name: str
    value: float
    who: str = ""
    group: str = ""


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition of one variant, on a channel of its own."""

    repetition: int
    channel: str
    variant: str = ""
    settings: dict[str, int | float | str] = {}
    error: str | None = None
    events: tuple[Event, ...] = ()
    samples: tuple[Sample, ...] = ()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario on one column: every trial, all points kept."""

    scenario: Scenario
    column: str
    refused: str | None = None
    trials: tuple[TrialRecord, ...] = ()


class Setting(msgspec.Struct, frozen=True):
    """One effective setting, defaults included, secrets masked."""

    key: str
    value: str
    origin: str


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the comparison: a profile used with one semantics."""

    id: str
    profile: str
    semantics: Literal["queue", "stream"]
    backend: str
    server: str
    embedded: bool
    capabilities: dict[str, bool | int | str]
    settings: tuple[Setting, ...] = ()


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances: all that is needed to judge the numbers, and to run it again."""

    started_at: str  # ISO 8601, UTC
    duration_s: float
    seed: int
    messages: int
    repetitions: int
    keys: int  # 0: sent without keys
    prefetch: int
    handler: str  # "" or module:function
    workload_sha256: str
    versions: dict[str, str]
    machine: dict[str, str]
    columns: tuple[Column, ...]
    embedded_only: bool
    needs: tuple[str, ...] = ()  # names of ``needs.NEEDS``


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    format: int = FORMAT
    meta: Meta
    runs: tuple[RunRecord, ...] = ()


def encode(ledger: Ledger) -> bytes:
    """``ledger`` as JSON; the same ledger gives the same bytes."""
    return msgspec.json.encode(ledger, order="deterministic")


def decode(data: bytes, source: str = "ledger") -> Ledger:
    """The ledger that ``data`` holds. Raises UsageError if it is none, or of another format."""
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{source} is not a ledger of gearshift compare: {error}",
            hint="write one with: gearshift compare --out ledger.json",
        ) from None
    if ledger.format != FORMAT:
        raise UsageError(f"{source} has format {ledger.format}, this version reads {FORMAT}")
    return ledger


def read(path: Path) -> Ledger:
    """Read a ledger's file. Raises UsageError and OSError."""
    return decode(path.read_bytes(), str(path))
