"""Reads all of a cohort again and compares it with the checksums of ``prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gimp_fast.data.cohort import Cohort, open_cohort
from gimp_fast.data.cohort_files import read_checksums
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.data.store import FeatureStore
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.parallel import parallel_map


def verify_cohort(path: str | Path, *, workers: int | None = None, progress: bool = False) -> str:
    """A line on what was verified: tables, expression and every feature of a cohort.

    Args:
        path: the cohort folder.
        workers: processes that read; None for one per core.
        progress: show a bar.

    Raises:
        GimpError: the cohort cannot be opened.
        FaultError: all slides that changed since they were prepared.
    """
    from tqdm import tqdm

    cohort = open_cohort(path)
    cohort.expression(case for case in cohort.case_ids if cohort.has_expression(case))
    slides = [
        (slide.slide_id, slide.path)
        for case in cohort.case_ids
        if cohort.has_slides(case)
        for slide in cohort.bag(case).slides
    ]
    checks = parallel_map(_check_of(cohort), slides, workers)
    bar = tqdm(checks, "verifying", len(slides), unit="slide", disable=not progress)
    faults = [fault for found in bar for fault in found]
    if faults:
        raise FaultError(faults, str(path))
    return f"{len(cohort)} patients, {len(slides)} slides, {len(cohort.gene_ids)} genes"


def _check_of(cohort: Cohort) -> partial:
    if cohort.store is not None:
        return partial(_check_packed, cohort.store)
    return partial(_check_file, read_checksums(cohort.path))


def _check_packed(store: FeatureStore, slide: tuple[str, Path]) -> tuple[Fault, ...]:
    try:
        store.verify(slide[0])
    except FaultError as error:
        return error.faults
    return ()


def _check_file(checksums: dict[str, str], slide: tuple[str, Path]) -> tuple[Fault, ...]:
    slide_id, path = slide
    scan = scan_slide(path)
    if scan.faults or scan.checksum == checksums[slide_id]:
        return scan.faults
    expected = "the features that the cohort was prepared with"
    return (Fault("changed-file", str(path), "other features", expected),)
