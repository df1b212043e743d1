"""Partitions: the one of a key, and those of each member of a group."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from gearshift.message import Key, key_bytes

__all__ = ["partition_of", "spread"]

Member = TypeVar("Member")


def partition_of(key: Key, partitions: int) -> int:
    """The partition of ``key``: the same in every process and version (CRC-32, not hash())."""
    return zlib.crc32(key_bytes(key)) % partitions


def spread(
    partitions: Sequence[int], members: Sequence[Member], current: Mapping[int, Member]
) -> dict[int, Member]:
    """Give each partition to one of ``members``, evenly, moving as few as possible.

    ``current`` is who has what now; members that are not in ``members`` are gone. Empty without
    members. The same arguments give the same answer.
    """
    if not members:
        return {}
    hands: dict[Member, list[int]] = {member: [] for member in members}
    orphans: list[int] = []
    for partition in partitions:
        owner = current.get(partition)
        hand = orphans if owner is None else hands.get(owner, orphans)
        hand.append(partition)
    for partition in orphans:
        min(hands.values(), key=len).append(partition)
    while True:
        fullest, emptiest = max(hands.values(), key=len), min(hands.values(), key=len)
        if len(fullest) - len(emptiest) <= 1:
            return {part: member for member, hand in hands.items() for part in hand}
        emptiest.append(fullest.pop())
