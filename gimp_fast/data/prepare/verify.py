"""Reads all of a cohort again and compares it with the checksums of ``prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gimp_fast.data.cohort import open_cohort
from gimp_fast.data.cohort_files import TABLES, read_rows_of
from gimp_fast.data.cohort_slides import prepared_file
from gimp_fast.data.slides.prepared import PreparedFile
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.errors import Fault, Faults
from gimp_fast.files.progress import progress as show_progress
from gimp_fast.tasks.mapping import parallel_map


def verify_cohort(
    path: str | Path,
    *,
    workers: int | None = None,
    progress: bool = False,
    scheduler: str | None = None,
) -> str:
    """A line on what was verified: tables, expression and every feature of a cohort.

    Args:
        path: the cohort folder.
        workers: processes that read; None for one per core.
        progress: show a bar.
        scheduler: of a cluster of dask that reads instead: its address or its file.

    Raises:
        GimpError: the cohort cannot be opened.
        FaultError: all slides that changed since they were prepared.
    """
    cohort = open_cohort(path if scheduler is None else Path(path).absolute())
    cohort.expression(case for case in cohort.case_ids if cohort.has_expression(case))
    slides = [
        (slide.slide_id, slide.path)
        for case in cohort.case_ids
        if cohort.has_slides(case)
        for slide in cohort.bag(case).slides
    ]
    rows = read_rows_of(cohort.path / "slides.csv", TABLES["slides.csv"])
    table = {row["slide_id"]: row for row in rows}
    files = [prepared_file(cohort.path, table[slide_id], path) for slide_id, path in slides]
    checks = parallel_map(partial(_check, cohort.store), files, workers, scheduler)
    checks = show_progress(checks, "verifying", len(slides), "slide", shown=progress)
    Faults([fault for found in checks for fault in found]).stop(path)
    return f"{len(cohort)} patients, {len(slides)} slides, {len(cohort.gene_ids)} genes"


def _check(store: FeatureStore | None, slide: PreparedFile) -> list[Fault]:
    faults = Faults()
    with faults.collect():
        if store is not None:
            store.verify(slide.slide_id)
        else:
            slide.verify()
    return faults.items
