"""How much memory this process has, sampled into the event log."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from gearshift.compare.event_log import Recorder

__all__ = ["watch"]

_STATM = Path("/proc/self/statm")
_EVERY_S = 0.1


def watch(who: str, recorder: Recorder, stop: threading.Event) -> None:
    """Write ``rss_bytes`` until ``stop`` is set. Does nothing where the system does not tell."""
    if not _STATM.exists():
        return
    page = os.sysconf("SC_PAGE_SIZE")
    while not stop.wait(_EVERY_S):
        resident = int(_STATM.read_text().split()[1]) * page
        recorder.sample("rss_bytes", resident, who=who)
