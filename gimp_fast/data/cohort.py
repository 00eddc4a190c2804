"""A prepared cohort: patients, their slides, their expression, and splits; opened lazily.

A cohort folder holds ``cohort.json``, ``patients.csv``, ``slides.csv``, ``genes.csv``,
``expression.npy``, ``splits/<name>.csv`` and ``dropped.csv``. Slide features stay in the files
they came in.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast.data.slides import check_range, open_slide
from gimp_fast.errors import GimpError

FORMAT_VERSION = 1
PARTS = ("train", "val", "test")
TABLES = {
    "patients.csv": ("case_id", "label", "has_rna", "num_slides", "num_patches"),
    "slides.csv": ("case_id", "slide_id", "path", "format", "dataset", "num_patches", "dtype"),
    "genes.csv": ("gene_id", "gene_name", "gene_type"),
}
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class SlideEntry:
    """One row of ``slides.csv``, its path resolved."""

    slide_id: str
    path: Path
    num_patches: int


@dataclass(frozen=True)
class Bag:
    """All patches of a patient: slides in slide_id order, each in its file's own order."""

    case_id: str
    slides: tuple[SlideEntry, ...]
    feature_dim: int

    @property
    def slide_ids(self) -> tuple[str, ...]:
        return tuple(slide.slide_id for slide in self.slides)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each slide."""
        return tuple(slide.num_patches for slide in self.slides)

    @property
    def num_patches(self) -> int:
        return sum(self.lengths)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read contiguous rows of the concatenated slides; opens only the files it needs.

        Args:
            start: first row.
            stop: one past the last row; None for the end.

        Returns:
            (stop - start, C) float32.

        Raises:
            GimpError: a slide file is gone, unreadable, or not the one that was prepared.
            ValueError: the range is not inside 0 … num_patches.
        """
        start, stop = check_range(start, stop, self.num_patches)
        out = np.empty((stop - start, self.feature_dim), np.float32)  # (rows, C)
        offset = 0
        for slide in self.slides:
            first, last = max(start, offset), min(stop, offset + slide.num_patches)
            if first < last:
                rows = self._read_slide(slide, first - offset, last - offset)
                out[first - start : last - start] = rows
            offset += slide.num_patches
        return out

    def _read_slide(self, slide: SlideEntry, start: int, stop: int) -> np.ndarray:
        with open_slide(slide.path) as file:
            found = (file.info.num_patches, file.info.feature_dim)
            expected = (slide.num_patches, self.feature_dim)
            if found != expected:
                raise GimpError(
                    f"{slide.path}: found features of shape {found}; expected {expected} as when "
                    "the cohort was prepared. Run `prepare` again."
                )
            return file.read(start, stop)


class Cohort:
    """A cohort folder; see ``open_cohort``.

    Attributes:
        path: the folder.
        name: its name.
        synthetic: True for generated patients.
        classes: class names, sorted; ``label`` indexes them.
        feature_dim: channels C of a patch.
        gene_ids: the ordered gene list of ``expression``.
        expression_transform: ``log2(x+1)`` or ``as given``.
        encoder: the patch encoder, where the files record it.
        patch_order: ``file``: patches are in the order of their file.
        fingerprint: sha256 over tables, splits and expression; not over where files lie.
        case_ids: all patients, sorted.
        split_names: names for ``split``.
    """

    def __init__(self, path: Path, manifest: dict, tables: dict[str, Rows], splits: dict):
        self.path = path
        self.name: str = manifest["name"]
        self.synthetic: bool = manifest["synthetic"]
        self.classes: tuple[str, ...] = tuple(manifest["classes"])
        self.feature_dim: int = manifest["feature_dim"]
        self.encoder: str | None = manifest["encoder"]
        self.patch_order: str = manifest["patch_order"]
        self.expression_transform: str = manifest["expression"]["transform"]
        self.fingerprint: str = manifest["fingerprint"]
        self.gene_ids: tuple[str, ...] = tuple(row["gene_id"] for row in tables["genes.csv"])
        patients = tables["patients.csv"]
        self.case_ids: tuple[str, ...] = tuple(row["case_id"] for row in patients)
        self._labels = {row["case_id"]: self.classes.index(row["label"]) for row in patients}
        with_rna = [row["case_id"] for row in patients if row["has_rna"] == "1"]
        self._expression_row = {case: row for row, case in enumerate(with_rna)}
        self._slides = _slides_by_case(path, tables["slides.csv"])
        self._splits: dict[str, dict[str, list[str]]] = splits
        self._expression = _open_expression(path, (len(with_rna), len(self.gene_ids)))

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def split(self, name: str) -> dict[str, list[str]]:
        """Case ids of ``train``, ``val`` and ``test``; GimpError for an unknown name."""
        if name not in self._splits:
            raise GimpError(
                f"{self.path}: no split '{name}'; the cohort has {', '.join(self._splits)}"
            )
        return {part: list(cases) for part, cases in self._splits[name].items()}

    def label(self, case_id: str) -> int:
        """Index into ``classes``."""
        self._check_case(case_id)
        return self._labels[case_id]

    def has_slides(self, case_id: str) -> bool:
        self._check_case(case_id)
        return case_id in self._slides

    def has_expression(self, case_id: str) -> bool:
        self._check_case(case_id)
        return case_id in self._expression_row

    def expression(self, case_ids: Iterable[str]) -> np.ndarray:
        """Transformed expression (n, G) float32, rows as asked; GimpError if one has none."""
        rows = []
        for case in case_ids:
            if not self.has_expression(case):
                raise GimpError(f"{self.path}: patient '{case}' has no RNA expression")
            rows.append(self._expression_row[case])
        return np.array(self._expression[rows], np.float32).reshape(len(rows), len(self.gene_ids))

    def bag(self, case_id: str) -> Bag:
        """All patches of a patient; GimpError if they have no slide."""
        if not self.has_slides(case_id):
            raise GimpError(f"{self.path}: patient '{case_id}' has no slide features")
        return Bag(case_id, self._slides[case_id], self.feature_dim)

    def _check_case(self, case_id: str) -> None:
        if case_id not in self._labels:
            raise GimpError(f"{self.path}: no patient '{case_id}'")

    def __len__(self) -> int:
        return len(self.case_ids)

    def __repr__(self) -> str:
        kind = "synthetic cohort" if self.synthetic else "cohort"
        return f"<{kind} '{self.name}': {len(self)} patients, {len(self.gene_ids)} genes>"


def open_cohort(path: str | Path) -> Cohort:
    """Open a folder that ``prepare`` wrote, and check that it is whole.

    Slide files are checked when they are read.

    Args:
        path: the cohort folder.

    Returns:
        The cohort; expression is memory-mapped.

    Raises:
        GimpError: no cohort there, another format version, or files changed since ``prepare``.
    """
    path = Path(path)
    manifest = _read_manifest(path / "cohort.json")
    tables = {name: _read_table(path / name, columns) for name, columns in TABLES.items()}
    split_rows = {
        file.stem: _read_table(file, ("case_id", "split"))
        for file in sorted((path / "splits").glob("*.csv"))
    }
    try:
        found = fingerprint(tables, split_rows, manifest)
        if found != manifest["fingerprint"]:
            raise GimpError(
                f"{path}: the tables do not match the fingerprint in cohort.json; they were "
                "changed since `prepare`. Run it again."
            )
        return Cohort(path, manifest, tables, _parts_of(split_rows))
    except (KeyError, TypeError, ValueError) as error:
        raise GimpError(f"{path}: not a valid cohort ({type(error).__name__}: {error})") from error


def fingerprint(tables: dict[str, Rows], splits: dict[str, Rows], manifest: dict) -> str:
    """sha256 over tables, splits and the digest of ``expression.npy``; ignores slide paths."""
    content = {
        "classes": list(manifest["classes"]),
        "feature_dim": manifest["feature_dim"],
        "transform": manifest["expression"]["transform"],
        "expression": manifest["expression"]["sha256"],
        "tables": {
            name: [[value for key, value in row.items() if key != "path"] for row in rows]
            for name, rows in sorted(tables.items())
        },
        "splits": {name: [list(row.values()) for row in rows] for name, rows in splits.items()},
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _read_manifest(file: Path) -> dict:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GimpError(
            f"{file.parent}: not a cohort folder (no cohort.json); "
            "make one with `python -m gimp_fast.prepare`"
        ) from error
    except (OSError, ValueError) as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise GimpError(
            f"{file}: found cohort format version {version}; expected {FORMAT_VERSION}. "
            "Run `prepare` again."
        )
    return manifest


def _read_table(file: Path, columns: Sequence[str]) -> Rows:
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise GimpError(f"{file}: found no column {missing}; expected {list(columns)}")
    if any(None in row or None in row.values() for row in rows):
        raise GimpError(f"{file}: rows of different lengths; the file was changed or cut")
    return rows


def _slides_by_case(folder: Path, rows: Rows) -> dict[str, tuple[SlideEntry, ...]]:
    slides: dict[str, list[SlideEntry]] = {}
    for row in rows:
        # an absolute path replaces the folder
        entry = SlideEntry(row["slide_id"], folder / row["path"], int(row["num_patches"]))
        slides.setdefault(row["case_id"], []).append(entry)
    return {
        case: tuple(sorted(entries, key=lambda entry: entry.slide_id))
        for case, entries in slides.items()
    }


def _parts_of(split_rows: dict[str, Rows]) -> dict[str, dict[str, list[str]]]:
    return {
        name: {part: [r["case_id"] for r in rows if r["split"] == part] for part in PARTS}
        for name, rows in split_rows.items()
    }


def _open_expression(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    file = folder / "expression.npy"
    try:
        # numpy cannot map an array without elements
        matrix = np.load(file, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
    if matrix.shape != shape or matrix.dtype != np.float32:
        raise GimpError(
            f"{file}: found {matrix.dtype} {matrix.shape}; expected float32 {shape} "
            "(patients with RNA × genes)"
        )
    return matrix
