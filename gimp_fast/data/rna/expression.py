"""Readers of RNA-seq expression: GDC downloads, and tables of many samples in their many layouts.

``open_expression`` lists the samples without reading their values; ``ExpressionSource.read`` reads
the samples that are asked for, so that unused aliquots cost nothing.

- a folder with ``gdc_sample_sheet*.tsv``: GDC's augmented STAR counts, or its older two columns
- text tables with tabs, commas or semicolons (also compressed) and ``.parquet``: genes in rows
  (Xena, cBioPortal, featureCounts) or samples in rows (MCAT, plain tables)
- ``.h5ad``: AnnData
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gimp_fast.data.names import (
    DUPLICATE_GENES,
    ORIENTATIONS,
    PRIMARY,
    RNA_COLUMNS,
    SAMPLES_IN_ROWS,
)
from gimp_fast.data.rna.gdc import open_gdc
from gimp_fast.data.rna.join import join_sources
from gimp_fast.data.rna.source import ExpressionSource
from gimp_fast.data.rna.tables import open_matrix
from gimp_fast.errors import FaultError, Faults, GimpError


def open_expression(
    path: str | Path,
    sample_sheet: str | Path | None = None,
    column: str = "fpkm_unstranded",
    *,
    orientation: str = "auto",
    known_cases: Collection[str] = frozenset(),
    sample_types: Sequence[str] = PRIMARY,
    layer: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    duplicate_genes: str = DUPLICATE_GENES[0],
) -> ExpressionSource:
    """List the samples of a GDC download folder, a table, or an AnnData file.

    Args:
        path: the folder or file.
        sample_sheet: GDC's ``gdc_sample_sheet*.tsv``; looked for in the folder by default.
        column: unit to read from GDC files, a key of ``RNA_COLUMNS``.
        orientation: of tables, one of ``ORIENTATIONS``; for ``auto`` see
            ``tables.find_orientation``.
        known_cases: patients of the cohort, by which samples are recognised.
        sample_types: TCGA's codes of the samples to keep: ``01`` primary tumour, ``03`` blood
            cancer, ``06`` metastasis, … Samples of unknown type are kept.
        layer: of an AnnData file; by default its X.
        workers: processes that read GDC files; None for one per core.
        scheduler: of a cluster of dask that reads them instead: its address or its file.
        duplicate_genes: what to do with a gene on several rows, see ``repairs.merge_duplicates``.

    Raises:
        FaultError: nothing readable there, or a faulty sheet or table.
        GimpError: an orientation or column that does not exist.
    """
    path, types = Path(path), tuple(sample_types)
    if orientation not in ORIENTATIONS:
        raise GimpError(f"no orientation '{orientation}'; there are {', '.join(ORIENTATIONS)}")
    if column not in RNA_COLUMNS:
        raise GimpError(f"no RNA column '{column}'; there are {', '.join(RNA_COLUMNS)}")
    is_h5ad = path.suffix.lower() == ".h5ad"
    if layer and not is_h5ad:
        raise FaultError.of("no-layer", path, f"layer '{layer}' asked for", "an .h5ad file")
    if path.is_dir():
        sheet = sample_sheet and Path(sample_sheet)
        source = open_gdc(path, sheet, column, types, workers, scheduler)
    elif not path.is_file():
        expected = "a folder of GDC files or a table"
        raise FaultError.of("missing-file", path, "no such file", expected)
    elif not is_h5ad:
        source = open_matrix(path, orientation, known_cases, types)
    elif orientation not in ("auto", SAMPLES_IN_ROWS):
        expected = "samples in obs; transpose the file"
        raise FaultError.of("orientation", path, f"'{orientation}' asked for", expected)
    else:
        from gimp_fast.data.rna.h5ad import open_h5ad

        source = open_h5ad(path, layer, types)
    return replace(source, duplicate_genes=duplicate_genes)


def open_expressions(paths: Sequence[str | Path], *args: Any, **options: Any) -> ExpressionSource:
    """Open several sources as one: all samples, and the genes that all sources have.

    Args:
        paths: folders or files, the preferred one first; the first also sets the order of genes.
        *args: as in ``open_expression``; one sample sheet may list the files of several folders.
        **options: as in ``open_expression``.

    Raises:
        FaultError: as ``open_expression``, for all sources together; or their units differ.
        GimpError: no paths.
    """
    if not paths:
        raise GimpError("no RNA given: name a folder of GDC files or a table")
    sources, faults = [], Faults()
    for path in paths:
        with faults.collect():
            sources.append(open_expression(path, *args, **options))
    faults.stop("expression")
    return join_sources(sources)
