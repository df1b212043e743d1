"""A migration rehearsal: a live channel's messages on the broker of today and on the one to come.

``gearshift rehearse OLD NEW``. One file, one job: ``originals`` (looks at the live channel
and takes nothing), ``rehearsal`` (runs it: copies to channels of its own, on both brokers),
``worker`` (a process that hands them to the handler and keeps back what it sends), ``document``
(what is kept of it), ``differences`` (what it shows).
"""

from gearshift.compare.shadow.differences import Difference, Result, judge
from gearshift.compare.shadow.document import Rehearsal, encode
from gearshift.compare.shadow.rehearsal import Request, rehearse

__all__ = ["Difference", "Rehearsal", "Request", "Result", "encode", "judge", "rehearse"]
