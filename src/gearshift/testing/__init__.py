"""Tests of handlers without a broker and without sleeps.

::

    from gearshift import testing

    with testing.open() as harness:  # the channels of gearshift.toml, in memory
        harness.send("orders", {"order_id": 1, "cents": 250})
        harness.run(app)
        assert harness.sent("invoices") == [{"order_id": 1, "total": 250}]

Everything but the broker is what runs in production: core, codecs, dispatcher, retries, dead
letters; the broker is the ``memory`` backend, with a clock that the harness moves. For pytest:
``from gearshift.testing.fixtures import harness``.
"""

from gearshift.testing.clock import Clock
from gearshift.testing.harness import Harness, open_harness
from gearshift.testing.records import DeadLetter, Retried, Settled

__all__ = ["Clock", "DeadLetter", "Harness", "Retried", "Settled", "open"]

open = open_harness  # as gearshift.open
