"""Which patients of a cohort are wanted: all, those of a split, or those of a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gimp_fast.data import Cohort
from gimp_fast.data.cohort import PARTS
from gimp_fast.data.tables.labels import PATIENT_COLUMNS
from gimp_fast.errors import GimpError
from gimp_fast.files.table import open_table


def chosen_cases(
    cohort: Cohort,
    cases: Sequence[str] = (),
    split: str | None = None,
    part: str | None = None,
) -> list[str]:
    """Patients in the order asked for.

    Args:
        cohort: where they are.
        cases: ids, and files of ids; none for all.
        split: name of a split; None for the only one, if a part is asked for.
        part: ``"train"``, ``"val"`` or ``"test"``; None for all parts of the split.

    Raises:
        GimpError: ids or a split that the cohort does not have, or a choice by both.
    """
    if cases and (split or part):
        raise GimpError("choose patients by --cases or by --split and --part, not by both")
    if cases:
        ids = [id for given in cases for id in _ids(given)]
        return known_cases(cohort, ids)
    if not (split or part):
        return list(cohort.case_ids)
    if part not in (None, *PARTS):
        raise GimpError(f"part: found '{part}'; expected one of {', '.join(PARTS)}")
    if split is None and len(cohort.split_names) != 1:
        names = ", ".join(cohort.split_names) or "none"
        raise GimpError(f"{cohort.path}: choose a split with --split; the cohort has {names}")
    parts = cohort.split(split or cohort.split_names[0])
    return [case for name in PARTS if part in (None, name) for case in parts[name]]


def known_cases(cohort: Cohort, ids: Sequence[str]) -> list[str]:
    """Each id once, in order; GimpError that lists all that the cohort does not have."""
    ids, known = list(dict.fromkeys(ids)), frozenset(cohort.case_ids)
    unknown = [id for id in ids if id not in known]
    if unknown:
        raise GimpError(
            f"{cohort.path}: found no patient {', '.join(unknown)} ({len(unknown)} of {len(ids)} "
            f"asked for); expected ids such as {', '.join(cohort.case_ids[:3])}"
        )
    if not ids:
        raise GimpError(f"{cohort.path}: found no patient to predict; expected one or more")
    return ids


def _ids(given: str) -> list[str]:
    return read_case_list(Path(given)) if Path(given).is_file() else [given]


def read_case_list(file: Path) -> list[str]:
    """Ids from a table with a column ``case_id`` (or ``PATIENT``), or from a list, one a line.

    Raises:
        FaultError: unreadable, or a table without such a column.
    """
    table = open_table(file)
    listed = len(table.header) == 1 and table.header[0] not in PATIENT_COLUMNS
    column = table.header[0] if listed else table.one_of(*PATIENT_COLUMNS)
    ids = [case for _, case in table.rows(column) if case]
    return [column, *ids] if listed else ids
