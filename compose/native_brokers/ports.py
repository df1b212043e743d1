"""Loopback TCP ports: picking free ones, checking them, waiting for a listener."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from native_brokers.errors import BrokerUnavailable

LOOPBACK = "127.0.0.1"
_LOWEST = 10_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> tuple[int, ...]:
    """Return `count` distinct ports that nobody listens on now; does not block."""
    # Never from the ephemeral range: while a broker is down, a client that keeps reconnecting
    # may be given the broker's own port as its source port, and then holds it.
    candidates = list(range(_LOWEST, _first_ephemeral_port()))
    random.SystemRandom().shuffle(candidates)
    chosen: list[int] = []
    for port in candidates:
        if len(chosen) == count:
            break
        if is_free(port):
            chosen.append(port)
    return tuple(chosen)


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
