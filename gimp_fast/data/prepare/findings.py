"""What checking a cohort finds: faults, and what is left out on purpose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gimp_fast.data.cohort import Rows
from gimp_fast.errors import Fault, FaultError

T = TypeVar("T")


@dataclass
class Findings:
    """Collected while a cohort is checked.

    Attributes:
        faults: what must be mended before there can be a cohort.
        dropped: what is left out, each with its reason; rows of ``dropped.csv``.
        dropped_genes: genes that are left out; rows of ``dropped_genes.csv``.
    """

    faults: list[Fault] = field(default_factory=list)
    dropped: Rows = field(default_factory=list)
    dropped_genes: Rows = field(default_factory=list)

    def add(self, kind: str, where: str | Path, found: str, expected: str) -> None:
        self.faults.append(Fault(kind, str(where), found, expected))

    def drop(self, item: str, id: str, case_id: str, reason: str, source: str | Path) -> None:
        row = {"item": item, "id": id, "case_id": case_id, "reason": reason, "source": str(source)}
        self.dropped.append(row)

    def attempt(self, action: Callable[[], T], default: T) -> T:
        """The action's result; its faults are noted and ``default`` stands in for it."""
        try:
            return action()
        except FaultError as error:
            self.faults += error.faults
            return default

    def reasons(self) -> dict[str, int]:
        """``"item: reason"``, without what differs from row to row -> how many."""
        rows = [*self.dropped, *({"item": "gene", **row} for row in self.dropped_genes)]
        reasons = (f"{row['item']}: {row['reason'].split(':')[0].split(' (')[0]}" for row in rows)
        return dict(sorted(Counter(reasons).items()))

    def as_dict(self) -> dict:
        """For a report that a program reads."""
        kinds = Counter(fault.kind for fault in self.faults)
        return {
            "faults": [fault.as_dict() for fault in self.faults],
            "faults_by_kind": dict(kinds.most_common()),
            "dropped": self.dropped,
            "dropped_genes": self.dropped_genes,
            "dropped_by_reason": self.reasons(),
        }
