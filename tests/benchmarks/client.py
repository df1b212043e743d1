"""One client's one round, in a process of its own, so that nothing of it is left for the next.

python -m benchmarks.client CLIENT WORK URL NAME TOTAL SIZE THREADS
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from benchmarks.matrix import PACE, module_of
from benchmarks.work import Load, Place


def main() -> None:
    """Print what the client did as a line of JSON."""
    client, work, url, name, total, size, threads = sys.argv[1:]
    load = Load(int(total), int(size), int(threads), PACE)
    print(json.dumps(asdict(getattr(module_of(client), work)(Place(url, name), load))))


if __name__ == "__main__":
    main()
