"""Writes a cohort folder, completely or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gimp_fast import __version__
from gimp_fast.data.class_checks import Counts, count_classes, split_cautions
from gimp_fast.data.cohort_covariates import COVARIATES, CohortCovariate, covariate_rows
from gimp_fast.data.cohort_files import (
    DROPPED_COLUMNS,
    DROPPED_GENE_COLUMNS,
    EXPRESSION,
    FORMAT_VERSION,
    MANIFEST,
    ORDER,
    PATCH_FACTS,
    SLIDE_MEANS,
    SPLIT_COLUMNS,
    STORE,
    TABLES,
    Rows,
    checksum,
    fingerprint,
)
from gimp_fast.data.cohort_targets import TARGETS, CohortTarget, target_rows
from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.order import patch_order
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.data.store.writer import PackedSlide, store_bytes, write_store
from gimp_fast.errors import FaultError
from gimp_fast.files.atomic import new_folder, open_new, write_json
from gimp_fast.files.table import write_table


@dataclass(frozen=True)
class CohortContents:
    """Everything that goes into a cohort folder; see ``Cohort`` for most of the names.

    Attributes:
        pack: type of the packed store, or None to leave the features where they are.
        expression_info: source, column, transform … of the expression.
        missing_genes: ids of the columns that are all NaN.
        patients, slides, genes, dropped, dropped_genes: tables as rows of text, see ``TABLES``.
        splits: split name -> rows of case_id, split.
        cautions: sentences on what the cohort as a whole can mislead to.
        targets: besides the labels.
        covariates: clinical ones.
        target_notes: sentences on what was left out of targets and covariates.
        expression: (patients with RNA, G) float32, in the order of ``patients``.
        slide_means: (slides, C) float32, mean features, in the order of ``slides``.
    """

    name: str
    synthetic: bool
    classes: tuple[str, ...]
    feature_dim: int
    encoder: str | None
    mpp: float | None
    patch_size: int | None
    patch_order: str
    pack: str | None
    expression_info: dict[str, object]
    gene_sets: dict[str, tuple[int, ...]]
    missing_genes: tuple[str, ...]
    patients: Rows
    slides: Rows
    genes: Rows
    dropped: Rows
    dropped_genes: Rows
    splits: dict[str, Rows]
    split_notes: dict[str, str] = field(default_factory=dict)
    cautions: list[str] = field(default_factory=list)
    targets: tuple[CohortTarget, ...] = ()
    covariates: tuple[CohortCovariate, ...] = ()
    target_notes: list[str] = field(default_factory=list)
    expression: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    slide_means: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def class_counts(self, split: str) -> Counts:
        """Part -> class -> how many patients of a split, of those with a label."""
        label_of = {row["case_id"]: row["label"] for row in self.patients if row["label"]}
        parts = {row["case_id"]: row["split"] for row in self.splits[split]}
        return count_classes(label_of, {c: p for c, p in parts.items() if c in label_of})

    def all_cautions(self) -> list[str]:
        """Sentences on the cohort, then on each of its splits."""
        of_splits = (
            f"split '{name}': {text}"
            for name in self.splits
            if self.classes
            for text in split_cautions(self.class_counts(name))
        )
        return [*self.cautions, *of_splits]


def check_free(out: Path) -> None:
    """FaultError unless ``out`` is absent or an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        found = "a folder with files in it" if out.is_dir() else "a file"
        raise FaultError.of("output-exists", str(out), found, "a new or empty folder")


def write_cohort(out: Path, contents: CohortContents, progress: bool = False) -> None:
    """Write a cohort folder to a temporary sibling and rename it into place.

    Args:
        out: the folder; absent or empty.
        contents: checked contents.
        progress: show a bar while features are packed.

    Raises:
        GimpError: the folder cannot be written; nothing is left behind.
    """
    check_free(out)
    with new_folder(out) as folder:
        values = np.ascontiguousarray(contents.expression, np.float32)
        with open_new(folder / EXPRESSION, "wb") as file:
            np.save(file, values)
        manifest = _manifest(contents, checksum(values))
        with open_new(folder / SLIDE_MEANS, "wb") as file:
            np.save(file, contents.slide_means)
        manifest["slide_means_checksum"] = checksum(contents.slide_means)
        manifest |= _write_features(folder, contents, progress)
        slides = [{**row, "path": _stored_path(row["path"], out)} for row in contents.slides]
        tables = {
            "patients.csv": contents.patients,
            "slides.csv": slides,
            "genes.csv": contents.genes,
        }
        if contents.targets:
            cases = [row["case_id"] for row in contents.patients]
            tables[TARGETS] = target_rows(contents.targets, cases)
        if contents.covariates:
            cases = [row["case_id"] for row in contents.patients]
            tables[COVARIATES] = covariate_rows(contents.covariates, cases)
        for name, rows in tables.items():
            write_table(folder / name, rows, tuple(rows[0]) if rows else TABLES[name])
        (folder / "splits").mkdir()
        for name, rows in contents.splits.items():
            write_table(folder / "splits" / f"{name}.csv", rows, SPLIT_COLUMNS)
        write_table(folder / "dropped.csv", contents.dropped, DROPPED_COLUMNS)
        write_table(folder / "dropped_genes.csv", contents.dropped_genes, DROPPED_GENE_COLUMNS)
        manifest["fingerprint"] = fingerprint(tables, contents.splits, manifest)
        # Last: a folder without it is not a cohort.
        write_json(folder / MANIFEST, manifest)


def _write_features(folder: Path, contents: CohortContents, progress: bool) -> dict[str, object]:
    """Write the store, or the order of the rows in the files, or nothing; adds to the manifest."""
    pack, order = contents.pack, contents.patch_order
    if pack:
        slides = [
            PackedSlide(
                row["slide_id"],
                Path(row["path"]),
                int(row["num_patches"]),
                row["coords_dtype"],
                row["checksum"],
                row["coords_checksum"],
            )
            for row in contents.slides
        ]
        dim, store = contents.feature_dim, folder / STORE
        need, free = store_bytes(slides, pack, dim), shutil.disk_usage(folder.parent).free
        if free < need:
            found, expected = f"{free / 1e9:.1f} GB free", f"{need / 1e9:.1f} GB for the store"
            raise FaultError.of("disk-space", folder.parent, found, expected)
        write_store(store, slides, dtype=pack, feature_dim=dim, order=order, progress=progress)
        return {"store": {"dtype": pack, "index_checksum": FeatureStore(store).index_checksum}}
    if order == "file":
        return {}
    rows = [np.empty(0, np.uint32)]
    for row in contents.slides:
        with open_slide(row["path"]) as slide:
            rows.append(patch_order(slide.coords(), order))
    with open_new(folder / ORDER, "wb") as file:
        np.save(file, np.concatenate(rows))
    return {"patch_order_checksum": checksum(np.concatenate(rows))}


def _manifest(contents: CohortContents, expression_checksum: str) -> dict:
    facts = ("name", "synthetic", "classes", *PATCH_FACTS)
    return {
        "format_version": FORMAT_VERSION,
        **{fact: getattr(contents, fact) for fact in facts},
        "store": None,
        "expression": {
            **contents.expression_info,
            "gene_sets": contents.gene_sets,
            "missing_genes": contents.missing_genes,
            "checksum": expression_checksum,
        },
        **({"targets": {t.name: t.facts() for t in contents.targets}} if contents.targets else {}),
        **(
            {"covariates": {c.name: c.facts() for c in contents.covariates}}
            if contents.covariates
            else {}
        ),
        "target_notes": contents.target_notes,
        "split_notes": contents.split_notes,
        "cautions": contents.cautions,
        "counts": {
            "patients": len(contents.patients),
            "slides": len(contents.slides),
            "patches": sum(int(row["num_patches"]) for row in contents.slides),
            "genes": len(contents.genes),
            "dropped": len(contents.dropped),
            "dropped_genes": len(contents.dropped_genes),
        },
        "created_by": f"gimp_fast {__version__}",
    }


def _stored_path(path: str, out: Path) -> str:
    """A full path without links in its folders, or one relative to the cohort.

    A link to the file itself is kept: in the caches of some tools its target has another name.
    """
    file, folder = Path(path), out.resolve()
    full = file.parent.resolve() / file.name
    return str(full.relative_to(folder) if full.is_relative_to(folder) else full)
