"""Reads all of a cohort again and compares it with the checksums of ``prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gimp_fast.data.cohort import open_cohort
from gimp_fast.data.cohort_files import TABLES, read_rows_of
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.errors import Fault, Faults
from gimp_fast.files.parallel import parallel_map
from gimp_fast.files.progress import progress as show_progress


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
    cohort = open_cohort(path)
    cohort.expression(case for case in cohort.case_ids if cohort.has_expression(case))
    slides = [
        (slide.slide_id, slide.path)
        for case in cohort.case_ids
        if cohort.has_slides(case)
        for slide in cohort.bag(case).slides
    ]
    rows = read_rows_of(cohort.path / "slides.csv", TABLES["slides.csv"])
    checksums = {row["slide_id"]: row["checksum"] for row in rows}
    checks = parallel_map(partial(_check, cohort.store, checksums), slides, workers)
    checks = show_progress(checks, "verifying", len(slides), "slide", shown=progress)
    Faults([fault for found in checks for fault in found]).stop(path)
    return f"{len(cohort)} patients, {len(slides)} slides, {len(cohort.gene_ids)} genes"


def _check(
    store: FeatureStore | None, checksums: dict[str, str], slide: tuple[str, Path]
) -> list[Fault]:
    slide_id, path = slide
    faults = Faults()
    if store is not None:
        with faults.collect():
            store.verify(slide_id)
        return faults.items
    scan = scan_slide(path)
    faults.items += scan.faults
    if not scan.faults and scan.checksum != checksums[slide_id]:
        expected = "the features that the cohort was prepared with"
        faults.add("changed-file", path, "other features", expected)
    return faults.items
