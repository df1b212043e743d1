"""Break a broker again and again under load, then count: nothing may be lost.

``python -m soak.soak [--seconds 300] [--copies 10] [--seed 1] [--cancel] [SERVER-SEMANTICS ...]``.
Each run is one server and semantics. First the whole conformance kit, ``--copies`` times at once.
Then a steady load, a fault drawn every few seconds (SIGKILL and restart, SIGSTOP, reset
connections, held-back answers, a killed member), and at the end a drain by fresh clients and every
checker of the kit. With ``--cancel`` the clients are coroutines, whose calls are
cancelled at random moments.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

from conformance.conftest import SERVERS, breakable
from soak.cancelling import CancellingHarness, Interrupter

from gearshift import plugins
from gearshift.conformance import execute_together
from gearshift.conformance.harness import Faults
from gearshift.conformance.history import Phase
from gearshift.conformance.kit import Broken, Kit
from gearshift.conformance.load import Load
from gearshift.conformance.suite import SUITE
from gearshift.message import Semantics

CHANNEL_SETTLES_S = 3.0


def killed(kit: Kit, faults: Faults, channel: str) -> None:
    assert faults.broker is not None
    kit.fault("SIGKILL of the broker")
    faults.broker.kill()
    faults.broker.start()


def frozen(kit: Kit, faults: Faults, channel: str) -> None:
    assert faults.broker is not None
    kit.fault("SIGSTOP of the broker")
    faults.broker.pause()
    time.sleep(2.0 * faults.heartbeat_s)
    faults.broker.resume()


def cut(kit: Kit, faults: Faults, channel: str) -> None:
    assert faults.cable is not None
    kit.fault("every connection is reset")
    faults.cable.cut()


def answers_held(kit: Kit, faults: Faults, channel: str) -> None:
    assert faults.cable is not None
    kit.fault("answers are held back, then reset")
    faults.cable.hold(answers_only=True)
    time.sleep(3.0)
    faults.cable.cut()
    faults.cable.release()


def member_killed(kit: Kit, faults: Faults, channel: str) -> None:
    worker = kit.worker(channel, work_s=0.01)
    time.sleep(3.0)
    kit.fault("SIGKILL of a member")
    worker.signal(SIGKILL)
    worker.wait(10.0)
    kit.adopt(worker)


FAULTS: tuple[Callable[[Kit, Faults, str], None], ...] = (
    killed, frozen, cut, answers_held, member_killed,
)  # fmt: skip


def together(name: str, semantics: Semantics, copies: int) -> bool:
    """The kit, ``copies`` times at once on one broker; True if nothing failed."""
    patient = SERVERS[name]._replace(settings="", lease_s=30.0)
    with (
        tempfile.TemporaryDirectory() as folder,
        breakable(patient, semantics, Path(folder)) as usual,
    ):
        harness = replace(usual, pace=0.1, patience_s=120.0)
        results = list(execute_together(SUITE, harness, copies))
    failures = [result for result in results if result.status.is_failure]
    print(f"{name} {semantics}: {copies} kits at once, {len(results)} behaviours, ", end="")
    print(f"{len(failures)} failures")
    for result in failures:
        print(f"  {result.behaviour}: {result.text}")
    return not failures


def soak(
    name: str, semantics: Semantics, seconds: float, chance: random.Random, *, cancels: bool
) -> bool:
    """One run; True if nothing was lost."""
    interrupter = Interrupter(chance)
    with (
        tempfile.TemporaryDirectory() as folder,
        breakable(SERVERS[name], semantics, Path(folder)) as harness,
    ):
        kit = Kit(CancellingHarness.of(harness, interrupter) if cancels else harness)
        assert harness.faults is not None
        try:
            channel = kit.channel(max_attempts=500)
            done: Counter[str] = Counter()
            with Load(kit, channel, batch=20 if cancels else 0) as load:
                load.advance(300)
                time.sleep(CHANNEL_SETTLES_S)
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    fault = chance.choice(FAULTS)
                    done[fault.__name__] += 1
                    fault(kit, harness.faults, channel)
                    load.advance(50)
            violations = _violations(kit, channel)
            _report(kit, channel, f"{name} {semantics}", done, violations)
            for what, count in sorted(interrupter.counts.items()):
                print(f"  {what}: {count}")
            return not violations
        finally:
            kit.close()


def _violations(kit: Kit, channel: str) -> list[str]:
    try:
        kit.verify(channel)
    except Broken as broken:
        return [str(violation) for violation in broken.violations]
    return []


def _report(kit: Kit, channel: str, label: str, done: Counter[str], violations: list[str]) -> None:
    published = kit.history.published(channel)
    phases = Counter(event.phase for event in published.values())
    deliveries = kit.history.delivered(channel, "g")
    copies = len(deliveries) - len({event.id for event in deliveries})
    faults = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    print(f"{label}: {faults}")
    ends = f"{phases[Phase.OK]} stored, {phases[Phase.INFO]} unknown, {phases[Phase.FAIL]} refused"
    print(f"  {len(published)} sent: {ends}; {copies} copies; {len(violations)} violations")
    for violation in violations[:20]:
        print(f"  {violation}")


def main() -> int:
    """Run what is asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    offered = [
        f"{name}-{semantics}"
        for name, server in SERVERS.items()
        for semantics in plugins.load(server.backend).capabilities
    ]
    parser.add_argument("targets", nargs="*", metavar="SERVER-SEMANTICS", default=offered)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--copies", type=int, default=10, help="0: only the soak")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cancel", action="store_true", help="cancel calls of the clients")
    arguments = parser.parse_args()
    clean = True
    for target in arguments.targets:
        name, _, semantics = target.partition("-")
        clean &= not arguments.copies or together(name, Semantics(semantics), arguments.copies)
        chance = random.Random(f"{arguments.seed} {target}")
        clean &= soak(
            name, Semantics(semantics), arguments.seconds, chance, cancels=arguments.cancel
        )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
