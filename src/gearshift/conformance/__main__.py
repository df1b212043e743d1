"""``python -m gearshift.conformance REPORT.json``: the matrix of a report as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

from gearshift.conformance.matrix import Matrix
from gearshift.conformance.suite import SUITE

_INTRODUCTION = """\
# What each backend does, as measured

Written by a run of the conformance kit against real servers, not by hand.

- `verified`: the test showed it.
- `verified-unsupported`: not declared, and the test showed that it is refused, or is no more than
  the lowest level.
- `not-applicable`: what the test breaks does not exist there; an embedded backend has no server.
- `known-failure`: it fails, for the reason given; if it passed, the run would fail.

The kit kills and freezes processes and cuts connections. It cannot show what a power loss does, as
a killed process leaves the page cache intact. A server is one node, or a cluster of three that is
killed or cut off as a whole; [another page](clusters.md) has faults of single nodes. `async` is the
same through `gearshift.aio`, and `under chaos` while [chaos](../guides/chaos.md) does to a profile
everything that its backend allows.
"""


def main() -> None:
    """Print the matrix of the file named on the command line."""
    matrix = Matrix.load(Path(sys.argv[1]))
    print(_INTRODUCTION)  # noqa: T201
    print(matrix.markdown(SUITE))  # noqa: T201


if __name__ == "__main__":
    main()
