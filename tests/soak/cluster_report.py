"""What the soak of clusters found: its rows, as JSON, as a table, and as a page of the docs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from soak.cluster_faults import FAULTS, upgraded

from gearshift.conformance.matrix import markdown_table

#: The longest that the project promises to take until it goes on.
HEALS_WITHIN_S = 30.0
_PAGE = """\
# Clusters of three nodes, as measured

Written by `make soak-clusters`, not by hand. Each row is one fault, repeated for that many seconds
on a cluster of three nodes, while producers and consumers work on a channel; a plain client then
reads what is stored.

{faults}

- **lost**: had a receipt and is not stored.
- **false refusals**: the send said that the message is not stored, and it is.
- **unknown**: the send raised `OutcomeUnknown`, which promises neither.
- **copies**: have the same id as another message.
- **out of order**: counted where order is declared.
- **unheard s**: the longest time without a receipt while a majority of nodes was up.

What is not in the table was not tested, above all a power loss on several nodes at once.

{table}

What broke a promise:

{broken}
"""


@dataclass
class Row:
    """What came of one fault for one semantics; ``unheard_s`` in seconds, the rest in messages.

    ``notes`` say in words what broke a promise, the first cases of each sort.
    """

    cluster: str
    semantics: str
    fault: str
    day: str
    seconds: float
    times: int = 0
    sent: int = 0
    receipts: int = 0
    unknown: int = 0
    refused: int = 0
    copies: int = 0
    lost: int = 0
    false_refusals: int = 0
    out_of_order: int = 0
    unheard_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True if every promise was kept."""
        return not self.notes and self.unheard_s < HEALS_WITHIN_S


def table(rows: list[Row]) -> str:
    """``rows`` in Markdown."""
    names = [name for name in asdict(rows[0]) if name != "notes"]
    heads = [name.replace("_", " ") for name in names]
    return markdown_table([heads, *([str(getattr(row, name)) for name in names] for row in rows)])


def page(rows: list[Row]) -> str:
    """What the documentation shows of ``rows``."""
    faults = "\n".join(f"- `{one.__name__}`: {one.__doc__}" for one in (*FAULTS, upgraded))
    broken = "\n".join(
        f"- {row.cluster} {row.semantics}, {row.fault}: {note}"
        for row in rows
        for note in row.notes
    )
    return _PAGE.format(faults=faults, table=table(rows), broken=broken or "Nothing.")


def kept(report: Path, more: list[Row]) -> None:
    """Put ``more`` into the report, in place of what it says of the same cells."""
    rows = {}
    earlier = json.loads(report.read_text()) if report.exists() else []
    for row in [*(Row(**each) for each in earlier), *more]:
        rows[row.cluster, row.fault, row.semantics] = row
    report.write_text(json.dumps([asdict(row) for row in rows.values()], indent=1) + "\n")
    report.with_suffix(".md").write_text(page(list(rows.values())))
