"""Which patients of a cohort are predicted or drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path

from gimp_fast.data import Cohort
from gimp_fast.data.cohort import PARTS
from gimp_fast.data.names import PATIENT_COLUMNS
from gimp_fast.errors import GimpError, did_you_mean, one_of
from gimp_fast.files.table import open_table
from gimp_fast.inference.model import TrainedModel

_SHOWN = 30


def chosen_cases(
    cohort: Cohort,
    cases: Sequence[str] = (),
    split: str | None = None,
    part: str | None = None,
) -> list[str]:
    """Patients to predict, in the order asked for; all unless something is asked for.

    Args:
        cohort: whose patients they are.
        cases: ids, and files of ids.
        split: name of a split; None for the only one, if a part is asked for.
        part: ``"train"``, ``"val"`` or ``"test"``; None for all parts of the split.

    Raises:
        GimpError: ids or a split that the cohort does not have, or a choice by both.
    """
    if cases and (split or part):
        raise GimpError("choose patients by --cases or by --split and --part, not by both")
    if cases:
        files = [read_case_list(Path(name)) if Path(name).is_file() else [name] for name in cases]
        return known_cases(cohort, chain.from_iterable(files))
    if not (split or part):
        return list(cohort.case_ids)
    if part not in (None, *PARTS):
        raise GimpError(f"part: found '{part}'; expected {one_of(part, PARTS)}")
    parts = cohort.split(cohort.only_split(split))
    return [case for name in PARTS if part in (None, name) for case in parts[name]]


def select_patients(
    trained: TrainedModel,
    cohort: Cohort,
    *,
    cases: Sequence[str] | None = None,
    slides: Sequence[str] | None = None,
    part: str | None = None,
    split: str | None = None,
) -> list[str]:
    """Patients to draw: by id, by slide, or by part of a split.

    Args:
        trained: the model; a part is without the patients who have nothing that it reads.
        cohort: whose patients they are.
        cases, slides: these patients, or those of these slides.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None is the test part of the cohort
            that the model was trained on, and all of another.
        split: that ``part`` is of; None is that of the model, or the cohort's only one.

    Raises:
        GimpError: unknown names, or nobody to draw.
    """
    if cases is not None:
        return known_cases(cohort, cases)
    if slides is not None:
        with_slides = filter(cohort.has_slides, cohort.case_ids)
        owners = {slide: case for case in with_slides for slide in cohort.bag(case).slide_ids}
        _check_known(cohort, slides, owners, "slide")
        return list(dict.fromkeys(owners[slide] for slide in slides))
    same = cohort.fingerprint == trained.trained_on.get("fingerprint")
    part, chosen = part or ("test" if same else "all"), cohort.case_ids
    if same and split is None and trained.trained_on.get("split") in cohort.split_names:
        split = trained.trained_on["split"]
    if part != "all":
        chosen = cohort.split(cohort.only_split(split))[part]
    usable = [case for case in chosen if cohort.usable(case, trained.modalities)]
    if not usable:
        raise GimpError(
            f"{cohort.path}: found no patient of the part '{part}' with what the model reads"
        )
    return usable


def known_cases(cohort: Cohort, ids: Iterable[str]) -> list[str]:
    """Each id once, in order; GimpError if the cohort lacks one, or if there is none."""
    ids = list(dict.fromkeys(ids))
    _check_known(cohort, ids, cohort.case_ids, "patient")
    if not ids:
        raise GimpError(f"{cohort.path}: no patient was asked for; expected one or more")
    return ids


def _check_known(cohort: Cohort, asked: Sequence[str], names: Collection[str], what: str) -> None:
    existing = frozenset(names)
    unknown = [name for name in asked if name not in existing]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise GimpError(
            f"{cohort.path}: found no {what} {', '.join(unknown[:_SHOWN])}{more} ({len(unknown)} "
            f"of {len(asked)} asked for); expected names such as {', '.join(list(names)[:3])}"
            f"{did_you_mean(unknown[0], names)}"
        )


def read_case_list(file: Path) -> list[str]:
    """Ids from a table with a column ``case_id`` (or ``PATIENT``), or from a list, one a line.

    Raises:
        FaultError: unreadable, or a table without such a column.
    """
    table = open_table(file)
    is_list = len(table.header) == 1 and table.header[0] not in PATIENT_COLUMNS
    column = table.header[0] if is_list else table.one_of(*PATIENT_COLUMNS)
    ids = [case for _, case in table.rows(column) if case]
    return [column, *ids] if is_list else ids
