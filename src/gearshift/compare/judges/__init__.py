"""One judge per scenario, one file each: from a run's trials to what they show."""

from __future__ import annotations

from collections.abc import Mapping

from gearshift.compare.judges import crash, fan_out, ordering, poison, replay, scaling, slow
from gearshift.compare.judges.judge import Judge
from gearshift.compare.ledger import Scenario

__all__ = ["JUDGES", "Judge"]

JUDGES: Mapping[Scenario, Judge] = {
    "ordering": ordering.JUDGE,
    "crash": crash.JUDGE,
    "fan_out": fan_out.JUDGE,
    "replay": replay.JUDGE,
    "poison": poison.JUDGE,
    "slow": slow.JUDGE,
    "scaling": scaling.JUDGE,
}
