"""The document of a rehearsal: all that happened, with digests in place of contents."""

from __future__ import annotations

from typing import Literal

import msgspec

from gearshift.compare.ledger import Column, TrialRecord
from gearshift.message import Message
from gearshift.rehearsal import Captured, digest

__all__ = ["FIELDS", "Original", "Rehearsal", "Variant", "VariantRun", "digests", "encode"]

FORMAT = 1

#: OLD, OLD again to know what varies by itself, and NEW.
Variant = Literal["old", "again", "new"]

#: What travels with a message.
FIELDS = ("payload", "headers", "key", "id", "content type", "timestamp", "correlation id",
          "reply to", "type", "content encoding")  # fmt: skip


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the live channel. ``key`` is a digest; its place in the list is its ``seq``."""

    id: str
    key: str | None
    bytes: int
    digests: dict[str, str]


class VariantRun(msgspec.Struct, frozen=True, kw_only=True):
    """The copies on one broker: what happened, and what the handler sent and nobody got."""

    variant: Variant
    trial: TrialRecord
    captured: tuple[Captured, ...]


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    format: int = FORMAT
    started_at: str
    duration_s: float
    channel: str
    handler: str
    workers: int
    repeated: int  # messages of the live channel that came twice, and were copied once
    versions: dict[str, str]
    machine: dict[str, str]
    old: Column
    new: Column
    originals: tuple[Original, ...]
    runs: tuple[VariantRun, ...]


def encode(rehearsal: Rehearsal) -> bytes:
    """``rehearsal`` as JSON; the same one gives the same bytes."""
    return msgspec.json.encode(rehearsal, order="deterministic")


def digests(message: Message) -> dict[str, str]:
    """A digest per field; the order of different headers does not count."""
    headers = {name: message.headers.getall(name) for name in sorted(message.headers)}
    values = (message.body, headers, message.key, message.id, message.content_type,
              message.timestamp_ms, message.correlation_id, message.reply_to,
              message.type, message.content_encoding)  # fmt: skip
    return {name: digest(value) for name, value in zip(FIELDS, values, strict=True)}
