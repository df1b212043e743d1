"""Ports are reserved for one broker alone, across the processes of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from native_brokers.ports import hold_ports, release_ports, reserve_ports

COMPOSE = Path(__file__).parents[2] / "compose"
RESERVE = """
import sys
from native_brokers.ports import reserve_ports
print(*[port for _ in range(100) for port in reserve_ports(3)], flush=True)
sys.stdin.read()
"""
PROCESSES = 3


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Each reserves 300 ports at the same time as the others, and prints and keeps them."""
    with ExitStack() as stack:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", RESERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(COMPOSE)},
            )
            for _ in range(PROCESSES)
        ]
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
        yield started


def reserved(process: subprocess.Popen[str]) -> list[int]:
    """The ports that it printed."""
    assert process.stdout is not None
    return list(map(int, process.stdout.readline().split()))


def test_processes_that_pick_at_once_get_different_ports(
    processes: list[subprocess.Popen[str]],
) -> None:
    """Although nobody listens on any of them: without reservations a dozen would be given twice."""
    picked = [port for process in processes for port in reserved(process)]
    assert len(picked) == PROCESSES * 300
    assert len(set(picked)) == len(picked)


def test_a_reservation_ends_with_its_process(processes: list[subprocess.Popen[str]]) -> None:
    """Also with SIGKILL."""
    ports = reserved(processes[0])
    assert not hold_ports(ports[:3])
    processes[0].kill()
    processes[0].wait()
    assert hold_ports(ports[:3])
    release_ports(ports[:3])


def test_of_several_ports_all_are_held_or_none() -> None:
    """One that is reserved leaves the others free."""
    (port,) = reserve_ports(1)
    assert not hold_ports([port - 1, port])
    assert hold_ports([port - 1])
    release_ports([port - 1, port])
