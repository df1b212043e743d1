"""A behaviour: one sentence that a backend must live up to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias, TypedDict, Unpack

from gearshift.conformance.kit import Kit
from gearshift.conformance.recording import RecordingConsumer

__all__ = ["Area", "Behaviour", "Needs", "Refusal", "behaviour", "on_channel"]

#: A call that must raise NotSupported where the capability is not declared.
Refusal: TypeAlias = Callable[[Kit, str, RecordingConsumer], Any]


class Area(StrEnum):
    """The subject of a behaviour: a row group of the matrix."""

    PUBLISH = "publish"
    SETTLE = "settle"
    ORDER = "order"
    GROUPS = "groups"
    BATCHES = "batches"
    BACKPRESSURE = "backpressure"
    TOPOLOGY = "topology"
    CLOSE = "close"
    FIDELITY = "fidelity"
    REPLAY = "replay"
    STRESS = "stress"
    FAULTS = "faults"


class Needs(StrEnum):
    """The part of ``Faults`` that a behaviour breaks."""

    BROKER = "broker"
    CABLE = "cable"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """``run`` proves it; ``deliveries``, ``retries`` and ``faults`` are the least that it must have
    seen, or it is vacuous. Where ``capability`` is an operation that is not declared, ``refused``
    is what must raise instead."""

    name: str
    area: Area
    sentence: str
    run: Callable[[Kit], None]
    capability: str | None = None
    refused: Refusal | None = None
    deliveries: int = 1
    retries: int = 0
    needs: Needs | None = None


class Options(TypedDict, total=False):
    """The fields of Behaviour that have a default."""

    capability: str | None
    refused: Refusal | None
    deliveries: int
    retries: int
    needs: Needs | None


def behaviour(
    area: Area, **options: Unpack[Options]
) -> Callable[[Callable[[Kit], None]], Behaviour]:
    """Make a function a behaviour. Its name and docstring are the claim."""

    def make(run: Callable[[Kit], None]) -> Behaviour:
        sentence = " ".join((run.__doc__ or "").split())
        return Behaviour(name=run.__name__, area=area, sentence=sentence, run=run, **options)

    return make


def on_channel(
    area: Area, *, settings: Mapping[str, Any] = MappingProxyType({}), **options: Unpack[Options]
) -> Callable[[Callable[[Kit, str], None]], Behaviour]:
    """As ``behaviour``, for a function that is given a fresh channel, which is verified afterwards.

    ``settings`` are arguments of ``Kit.channel``, ``options`` those of ``behaviour``.
    """

    def make(run: Callable[[Kit, str], None]) -> Behaviour:
        @functools.wraps(run)
        def verified(kit: Kit) -> None:
            channel = kit.channel(**settings)
            run(kit, channel)
            kit.verify(channel)

        return behaviour(area, **options)(verified)

    return make
