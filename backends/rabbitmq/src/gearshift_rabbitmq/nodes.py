"""The nodes of a cluster: their addresses, and the order in which connections try them.

The order is drawn once for each bus. Many services are given the nodes in one order, and all would
be connected to the first. The connections of one bus go to the same node: what one has declared,
another node may not know of yet. A node that has just failed comes last.

How long an answer may take is also known here: for all nodes at once, as what makes one of them
slow, another one that stands still for instance, makes all of them slow.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

__all__ = ["Address", "Nodes", "resolve"]

#: How long a node that failed comes after the others. Seconds.
_LAST_FOR_S = 30.0

#: How long a question is waited for at first, and at most. Seconds.
_ANSWER_S = 5.0
_LONGEST_ANSWER_S = 40.0

#: How much of the time a name may take to look up once another is known.
_NAMES_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a node. ``host`` is its name in the settings, which TLS asks for."""

    host: str
    ip: str
    port: int
    #: 0 for the family (IPv6, IPv4) that the system prefers for this name, then 1.
    family: int = 0

    def __str__(self) -> str:
        return f"{self.host} ({self.ip}), port {self.port}"


class Nodes:
    """What the connections of one bus know of the cluster's nodes. Any thread."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._lots: dict[Address, float] = {}
        self._failed_at: dict[Address, float] = {}
        self._patience_s: dict[str, float] = {}

    def in_order(self, addresses: Iterable[Address]) -> list[Address]:
        """As it was drawn, but what has failed lately last, and of that the latest."""
        recently = self._clock() - _LAST_FOR_S

        def place(one: Address) -> tuple[float, int, float]:
            failed_at = max(recently, self._failed_at.get(one, recently))
            return failed_at, one.family, self._lots.setdefault(one, self._draw())

        return sorted(addresses, key=place)

    def failed(self, address: Address) -> None:
        """Try the others before this one, for a while."""
        self._failed_at[address] = self._clock()

    def patience_s(self, question: str) -> float:
        """How long to wait for an answer: twice as long as the last one took or was waited for.

        Whoever gives up too soon, and asks anew, never gets one. RabbitMQ 4.3.6 answers each
        subscription to a stream after 10 s for as long as a node stands still (measured).
        """
        return self._patience_s.get(question, _ANSWER_S)

    def took(self, question: str, seconds: float) -> None:
        """So long the last answer took, or was waited for in vain."""
        if 2 * seconds > _ANSWER_S:
            self._patience_s[question] = min(_LONGEST_ANSWER_S, 2 * seconds)
        else:  # names of queues are without number, so what is as usual is not kept
            self._patience_s.pop(question, None)


def resolve(
    endpoints: Sequence[tuple[str, int]], loop: Any, turn: Callable[[float], None], timeout_s: float
) -> tuple[list[Address], list[Exception]]:
    """All addresses of all nodes, and the errors of names that have none. ``turn`` runs ``loop``.

    All names are looked up at once; those that take long are left out once another is known.
    """
    answers: dict[tuple[str, int], Any] = {}
    wanted = dict.fromkeys(endpoints)
    services = SelectorIOServicesAdapter(loop)
    queries = [
        services.getaddrinfo(*one, partial(answers.__setitem__, one), socktype=socket.SOCK_STREAM)
        for one in wanted
    ]
    begun_at = time.monotonic()
    while len(answers) < len(wanted):
        has_one = any(isinstance(answer, list) for answer in answers.values())
        if time.monotonic() - begun_at > timeout_s * (_NAMES_SHARE if has_one else 1.0):
            break
        turn(0.1)
    for query in queries:
        query.cancel()
    addresses: list[Address] = []
    failures: list[Exception] = []
    for host, port in wanted:
        answer = answers.get((host, port), TimeoutError(f"looking up {host!r} takes too long"))
        if isinstance(answer, Exception):
            failures.append(answer)
        else:
            families = list(dict.fromkeys(family for family, *_ in answer))
            addresses += [
                Address(host, place[0], port, families.index(family))
                for family, _, _, _, place in answer
            ]
    return list(dict.fromkeys(addresses)), failures
