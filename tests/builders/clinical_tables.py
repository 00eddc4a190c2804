"""Outcomes of a table that a test writes."""

from __future__ import annotations

from pathlib import Path

from gimp_fast.data.tables.clinical import open_clinical
from gimp_fast.data.tables.outcomes import TargetSpec, TargetValues, read_outcomes
from gimp_fast.errors import Fault

OS = "os=survival:os_days,os_event"


def outcomes_of(
    folder: Path, text: str, *specs: str
) -> tuple[tuple[TargetValues, ...], list[Fault]]:
    """Targets and faults of a table with this text."""
    (folder / "c.csv").write_text(text, encoding="utf-8")
    outcomes = read_outcomes(open_clinical(folder / "c.csv"), [*map(TargetSpec.parse, specs)])
    return outcomes.value, list(outcomes.faults)


def survival_of(
    folder: Path, rows: list[tuple[object, ...]], spec: str = OS
) -> tuple[TargetValues, list[Fault]]:
    """Target and faults of one survival target; rows are (case, time, event)."""
    time, event = TargetSpec.parse(spec).columns
    lines = [",".join(map(str, row)) for row in [("case_id", time, event), *rows]]
    (target,), faults = outcomes_of(folder, "\n".join(lines) + "\n", spec)
    return target, faults
