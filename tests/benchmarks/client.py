"""One client's one round, in a process of its own, so that nothing of it is left for the next.

python -m benchmarks.client CLIENT WORK URL NAME SIZE TOTAL
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict

from benchmarks.matrix import module_of
from benchmarks.work import Place


def main() -> None:
    """Print what the client did as a line of JSON."""
    client, work, url, name, size, total = sys.argv[1:]
    run = getattr(module_of(client), work)
    before = _cpu_s()
    sample = run(Place(url, name, int(size)), int(total))
    cpu_us = (_cpu_s() - before) / max(1, sample.done) * 1e6
    print(json.dumps(asdict(sample) | {"cpu_us": cpu_us}))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
