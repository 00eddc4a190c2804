"""The options of ``prepare``, declared once: for Python and for the command line.

Imports nothing heavy, so that ``--help`` does not wait for numpy and pandas.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from gimp_fast.data.names import (
    DUPLICATE_GENES,
    MISSING_VALUES,
    ORIENTATIONS,
    PATCH_ORDERS,
    PRIMARY,
    RNA_COLUMNS,
    SAMPLE_TYPES,
    STORE_DTYPES,
    TRANSFORMS,
)
from gimp_fast.errors import nearest
from gimp_fast.options import option
from gimp_fast.tasks.cluster import HELP, METAVAR

_TABLES, _SLIDES = "labels and splits", "slides"


def _sample_type(text: str) -> str:
    """A code of TCGA; ArgumentTypeError with the code that was perhaps meant."""
    if len(text) == 2 and text.isdecimal():
        return text
    words = {word: code for code, name in SAMPLE_TYPES.items() for word in (name, code)}
    near = nearest(text, words) or nearest(text.zfill(2), SAMPLE_TYPES)
    code = text.zfill(2) if text.zfill(2) in SAMPLE_TYPES else words.get(near[0]) if near else None
    hint = f"; did you mean '{code}' ({SAMPLE_TYPES[code]})?" if code else ""
    raise argparse.ArgumentTypeError(f"found '{text}'; expected a code of two digits{hint}")


@dataclass(frozen=True)
class RnaOptions:
    """Which expression to read, and which of its samples and genes."""

    paths: tuple[Path, ...] = option(
        (),
        "folders of GDC files, or tables; of several, the genes that all of them have",
        flag="--rna",
        metavar="FILE_OR_DIR",
    )
    sample_sheet: Path | None = option(None, "default: gdc_sample_sheet*.tsv in the RNA folder")
    column: str | None = option(
        None,
        "unit of GDC files (default: fpkm_unstranded, or that of --genes-of)",
        flag="--rna-column",
        choices=tuple(RNA_COLUMNS),
    )
    transform: str | None = option(
        None,
        "default: log2(x+1) for GDC files; none for tables, which their authors have transformed",
        choices=TRANSFORMS,
    )
    sample_types: tuple[str, ...] = option(
        PRIMARY,
        "TCGA's codes of the samples to use: 01 primary tumour (default), 06 metastasis, "
        "03 leukaemia",
        parse=_sample_type,
        metavar="CODE",
    )
    orientation: str = option("auto", "of tables", choices=ORIENTATIONS)
    layer: str | None = option(None, "of an AnnData file (default: X)")
    gene_types: tuple[str, ...] = option(
        (), "biotypes to keep, e.g. protein_coding", metavar="TYPE"
    )
    genes: Path | None = option(None, "list of genes to keep, in this order", metavar="FILE")
    gene_sets: Path | None = option(
        None,
        "signatures (.gmt, or a csv with one per column; hallmark: the 50 of MSigDB, in the "
        "package): keep their genes, and make each signature a group of the gene encoder",
        metavar="FILE",
    )
    keep_other_genes: bool = option(
        False,
        "with --gene-sets, keep genes of no signature too, for models that read all genes",
    )
    duplicate_genes: str = option(
        DUPLICATE_GENES[0],
        "of a gene on several rows with other values: stop with an error (default), use the first "
        "row, the mean of all rows as they are in the file, or drop the gene",
        choices=DUPLICATE_GENES,
    )
    missing_values: str = option(
        MISSING_VALUES[0],
        "of a gene without a value in some samples: stop with an error (default), drop the gene, "
        "or keep it: training then uses the mean of its training patients for a missing value",
        choices=MISSING_VALUES,
    )
    genes_of: Path | None = option(
        None,
        "align new patients to the ordered gene list, unit and transform of a cohort, a run, an "
        "exported model or a checkpoint; genes that were not measured are reported",
        metavar="COHORT_OR_RUN",
    )


@dataclass(frozen=True)
class PrepareOptions:
    """What to join into a cohort.

    Attributes:
        rna: expression; without paths, a cohort without RNA.
        synthetic: whether the patients are generated.
        progress: show progress bars.
    """

    labels: Path | None = option(None, "table of patients, slides and labels", metavar="FILE")
    cases: Path | None = option(
        None, "for prediction: table of case_id, slide_id and, if known, label", metavar="FILE"
    )
    out: Path | None = option(None, "folder of the cohort; new or empty", metavar="DIR")
    name: str | None = option(None, "name of the cohort (default: that of the folder)")
    allow_missing_modality: bool = option(
        False,
        "keep patients without RNA, and patients with an empty slide_id; needed for a cohort "
        "without --rna or without --slides",
    )
    seed: int = option(0, "for new splits and synthetic patients (default: 0)")
    workers: int | None = option(None, "processes that read files (default: one per core)")
    scheduler: str | None = option(None, HELP, metavar=METAVAR)
    label_column: str = option("label", "column of the labels (default: label)", group=_TABLES)
    target: tuple[str, ...] = option(
        (),
        "what to predict besides the label: os=survival:os_days,os_event (time and event), "
        "subtype=class:COLUMN or tmb=regression:COLUMN. Options are added with colons: the unit of "
        "times (:days, :weeks, :months, :years), what a 1 means (:event, :censorship), times of "
        "zero (:zero=drop, :zero=half)",
        metavar="NAME=KIND:COLUMNS",
        group=_TABLES,
    )
    covariates: tuple[str, ...] = option(
        (),
        "clinical columns that models may read, such as age sex stage; stage:major makes I to IV "
        "of substages",
        metavar="COLUMN",
        group=_TABLES,
    )
    clinical: Path | None = option(
        None,
        "table of targets and covariates (default: that of the labels)",
        metavar="FILE",
        group=_TABLES,
    )
    slide_table: Path | None = option(
        None, "STAMP's slide table, if --labels is its clini table", metavar="FILE", group=_TABLES
    )
    splits: tuple[Path, ...] = option(
        (),
        "default: a new stratified 60/20/20 split of patients",
        metavar="FILE_OR_DIR",
        group=_TABLES,
    )
    folds: int = option(1, "make this many stratified folds instead, 3 or more", group=_TABLES)
    site_splits: bool = option(
        False,
        "make splits with all patients of a hospital in one part; its code is read from TCGA "
        "barcodes, or from --site-column",
        group=_TABLES,
    )
    site_column: str | None = option(
        None, "column of the labels table that names the hospital", group=_TABLES
    )
    slides: tuple[Path, ...] = option(
        (), "folders of feature files, which stay where they are", metavar="DIR", group=_SLIDES
    )
    order: str = option(
        "file",
        "order of a slide's patches, by coordinates; with hilbert a window is a compact piece of "
        "tissue (default: that of the file)",
        choices=PATCH_ORDERS,
        group=_SLIDES,
    )
    pack: str | None = option(
        None,
        "copy all features into one file with checksums, which is read at the speed of memory "
        "(fp16 if no type is given)",
        choices=tuple(STORE_DTYPES),
        const="fp16",
        group=_SLIDES,
    )
    rna: RnaOptions = field(default_factory=RnaOptions)
    synthetic: bool = False
    progress: bool = False
