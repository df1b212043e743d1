"""A migration rehearsal: a live channel's messages on the broker of today and on the one to come.

``gearshift rehearse OLD NEW``. One file, one job: ``originals`` (looks at the live channel and
takes nothing), ``running`` (runs it: copies to channels of its own, on both brokers), ``worker`` (a
process that hands them to the handler and keeps back what it sends), ``document`` (what is kept of
it), ``sides`` (what each run shows), ``differences`` (what differs).
"""

from gearshift.compare.rehearsal.differences import Difference, Result, judge
from gearshift.compare.rehearsal.document import Rehearsal, encode
from gearshift.compare.rehearsal.running import Request, rehearse

__all__ = ["Difference", "Rehearsal", "Request", "Result", "encode", "judge", "rehearse"]
