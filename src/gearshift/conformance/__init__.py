"""The conformance kit: what every backend owes, and whether it keeps to what it declares.

An author writes one fixture, ``gearshift_backend``, that gives a ``Harness`` (see ``plugin``), or
runs ``gearshift conformance PROFILE``. Each ``Behaviour`` is one sentence. It is run against the
real backend through the public interface, everything that happens is recorded in a ``History``, and
pure ``checkers`` find the damage. A capability that is declared is shown to be there; one that is
not is shown to be refused before any effect.

One file, one job: ``behaviour`` (a claim), ``execution`` (how it is run and judged), ``kit`` and
``clients`` (what it works with), ``recording`` and ``history`` (what happened), ``view`` and
``checkers`` (what was wrong with it), ``harness`` (what an author gives), ``suite`` (the claims),
``load`` and ``worker`` (what goes on while something is broken), ``matrix`` (the results),
``plugin`` (pytest).
"""

from gearshift.conformance.behaviour import Area, Behaviour, Needs
from gearshift.conformance.execution import Result, Status, execute, execute_together
from gearshift.conformance.harness import BrokerProcess, Faults, Harness, shared
from gearshift.conformance.matrix import Matrix

__all__ = [
    "Area",
    "Behaviour",
    "BrokerProcess",
    "Faults",
    "Harness",
    "Matrix",
    "Needs",
    "Result",
    "Status",
    "execute",
    "execute_together",
    "shared",
]
