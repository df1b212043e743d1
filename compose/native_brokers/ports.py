"""Loopback TCP ports: reserving free ones, checking them, waiting for a listener."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from native_brokers.errors import BrokerUnavailable

LOOPBACK = "127.0.0.1"
_LOWEST = 10_000
_ATTEMPTS = 1_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

#: File descriptors of the sockets that hold this process's reservations, by port.
_held: dict[int, int] = {}


def reserve_ports(count: int) -> tuple[int, ...]:
    """Reserve `count` ports in a row that nobody listens on, until `release_ports`; any thread.

    No other call returns them meanwhile, in this process or another of this machine, also while
    nothing listens there. The reservation ends with the process, however it ends. Raises
    `BrokerUnavailable` if none are found.
    """
    # Never from the ephemeral range: while a broker is down, a client that keeps reconnecting
    # may be given the broker's own port as its source port, and then holds it.
    last = _first_ephemeral_port() - count
    for _ in range(_ATTEMPTS):
        first = random.SystemRandom().randint(_LOWEST, last)
        ports = tuple(range(first, first + count))
        if hold_ports(ports):
            if all(map(is_free, ports)):
                return ports
            release_ports(ports)
    raise BrokerUnavailable(f"found no {count} free ports in a row on {LOOPBACK}")


def hold_ports(ports: Iterable[int]) -> bool:
    """Reserve these very ports; False, and none of them, if one is reserved. Does not block."""
    taken: dict[int, int] = {}
    for port in ports:
        # An abstract name of a Unix socket, which no two sockets of this machine's network can
        # have, stands for the port: the port itself must stay free for the server to bind.
        with socket.socket(socket.AF_UNIX) as holder:
            try:
                holder.bind(f"\0gearshift-port-{port}")
            except OSError:
                for descriptor in taken.values():
                    os.close(descriptor)
                return False
            taken[port] = holder.detach()
    _held.update(taken)
    return True


def release_ports(ports: Iterable[int]) -> None:
    """End the reservation of `ports`; those that this process does not hold are left alone."""
    for port in ports:
        if port in _held:
            os.close(_held.pop(port))


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now; does not block."""
    with socket.socket() as probe:
        # Servers set this too; without it a port in TIME_WAIT would look taken after a kill.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def require_free(ports: Iterable[int]) -> None:
    """Raise `BrokerUnavailable` if another process took one of `ports`; does not block."""
    taken = [str(port) for port in ports if not is_free(port)]
    if taken:
        raise BrokerUnavailable(
            f"another process listens on port {', '.join(taken)} of {LOOPBACK}, which this broker "
            "keeps for its restarts; end that process or make a new broker"
        )


def accepts(port: int) -> bool:
    """Tell whether something accepts connections on `port`; blocks for at most a second."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int, timeout_s: float) -> None:
    """Block until `port` accepts connections; `BrokerUnavailable` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not accepts(port):
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"nothing listens on {LOOPBACK}:{port} after {timeout_s:g} s")
        time.sleep(0.01)


def _first_ephemeral_port() -> int:
    try:
        return max(int(_EPHEMERAL_RANGE.read_text().split()[0]), _LOWEST + 1_000)
    except OSError:
        return 32_768
