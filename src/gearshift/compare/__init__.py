"""The same seeded workload under several brokers and semantics, with a ledger of every message.

::

    from gearshift import compare

    compare.run(["rabbit", "kafka"]).save(Path("report.html"))

One file, one job: ``comparison`` (runs it), ``columns`` (on what), ``scenarios`` (what is done),
``trial`` (a channel with its producer and its ``workers``), ``sending``, ``worker`` (on a thread or
in a process), ``handlers`` (the user's, observed), ``event_log`` and ``sampling`` (how it is
recorded), ``ledger`` (what happened), ``measures`` (counting in it), ``judges`` (what a scenario
shows), ``analysis`` (from a ledger to ``findings``), ``contrast`` and ``words`` (in which words),
``decision`` (what matters, what to take), ``needs`` (a service's, and how far they are met),
``report`` (how it is shown). ``rehearsal`` is the migration rehearsal.
"""

from gearshift.compare.comparison import Comparison, run
from gearshift.compare.scenarios import Options

__all__ = ["Comparison", "Options", "run"]
