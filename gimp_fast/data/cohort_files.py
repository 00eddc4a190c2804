"""The files of a cohort folder, their checksums, and the fingerprint over their contents.

A cohort folder holds ``cohort.json``, ``patients.csv``, ``slides.csv``, ``genes.csv``,
``expression.npy``, ``splits/<name>.csv``, ``dropped.csv`` and ``dropped_genes.csv``. Slide features
stay in their own files, or are packed into ``store.safetensors``; ``patch_order.npy`` holds the
order of their rows if it is neither that of the files nor that of the store. ``slide_means.npy``
holds the mean features of each slide, by which a slide is recognised.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.data.names import PATCH_ORDERS
from gimp_fast.errors import ARRAY_ERRORS, GimpError
from gimp_fast.files.json_file import read_json
from gimp_fast.files.safe_text import unguarded
from gimp_fast.files.table import open_table

FORMAT_VERSION = 2
MANIFEST, EXPRESSION = "cohort.json", "expression.npy"
STORE, ORDER = "store.safetensors", "patch_order.npy"
SLIDE_MEANS = "slide_means.npy"
TABLES = {
    "patients.csv": ("case_id", "label", "has_rna", "num_slides", "num_patches"),
    "slides.csv": ("case_id", "slide_id", "path", "num_patches", "checksum"),
    "genes.csv": ("gene_id", "gene_name", "gene_type"),
}
SITE = "site"  # column of patients.csv, which earlier versions did not write; empty if not known
# Columns of slides.csv about the file, not about what is in it.
_OF_THE_FILE = ("path", "file_state")
PATCH_FACTS = ("feature_dim", "encoder", "mpp", "patch_size", "patch_order")  # in the manifest
SPLIT_COLUMNS = ("case_id", "split")
DROPPED_COLUMNS = ("item", "id", "case_id", "reason", "source")
DROPPED_GENE_COLUMNS = ("gene_id", "gene_name", "reason", "source")
Rows = list[dict[str, str]]


def dropped_row(item: str, id: str, case_id: str, reason: str, source: object) -> dict[str, str]:
    """One row of ``dropped.csv``: what was left out on purpose, and why."""
    return dict(zip(DROPPED_COLUMNS, (item, id, case_id, reason, str(source)), strict=True))


def reasons(dropped: Rows, dropped_genes: Rows) -> dict[str, int]:
    """``"item: reason"`` without the details of single rows -> how many were left out for it."""
    rows = [*dropped, *({"item": "gene", **row} for row in dropped_genes)]
    texts = (f"{row['item']}: {row['reason'].split(':')[0].split(' (')[0]}" for row in rows)
    return dict(sorted(Counter(texts).items()))


def fingerprint(tables: dict[str, Rows], splits: dict[str, Rows], manifest: dict) -> str:
    """sha256 over tables, splits, checksums and provenance; not over where slide files lie."""
    facts = manifest["expression"]
    content = {
        "classes": list(manifest["classes"]),
        "made": [manifest[key] for key in ("encoder", "mpp", "patch_size", "patch_order")],
        "feature_dim": manifest["feature_dim"],
        "expression": [facts[k] for k in ("transform", "checksum", "gene_sets", "missing_genes")],
        "store": manifest["store"] and manifest["store"]["dtype"],
        "tables": {
            name: [[value for key, value in row.items() if key not in _OF_THE_FILE] for row in rows]
            for name, rows in sorted(tables.items())
        },
        "splits": {name: [list(row.values()) for row in rows] for name, rows in splits.items()},
    }
    for name in ("targets", "covariates"):
        if manifest.get(name):  # cohorts without any keep their fingerprints
            content[name] = manifest[name]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def checksum(array: np.ndarray) -> str:
    """xxh3 of the values, which finds accidental changes, not malicious ones."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array))


def read_manifest(folder: Path) -> dict:
    """The content of ``cohort.json``; GimpError if there is none of this format version."""
    file = folder / MANIFEST
    try:
        manifest = read_json(file)
    except FileNotFoundError as error:
        raise GimpError(
            f"{folder}: not a cohort folder (no {MANIFEST}); make one with `gimp-fast prepare`"
        ) from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise GimpError(
            f"{file}: found cohort format version {version}; expected {FORMAT_VERSION}. "
            "Run `prepare` again."
        )
    _check_facts(file, manifest)
    return manifest


def _check_facts(file: Path, manifest: dict) -> None:
    """GimpError for a fact that is missing or not of its kind; ``cohort.json`` can be edited."""
    expression = manifest.get("expression")
    inner = expression if isinstance(expression, dict) else {}
    facts = {"targets": {}, "covariates": {}} | manifest
    facts |= {f"expression.{name}": value for name, value in inner.items()}
    for name, (is_right, expected) in _FACTS.items():
        if name not in facts:
            raise GimpError(f"{file}: not a valid cohort (found no '{name}')")
        if not is_right(facts[name]):
            found = f"{facts[name]!r:.60}"
            raise GimpError(
                f"{file}: not a valid cohort (found '{name}' = {found}; expected {expected})"
            )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _is_size(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 < value < math.inf)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_store(value: object) -> bool:
    names = ("dtype", "index_checksum")
    return value is None or (isinstance(value, dict) and all(_is_text(value.get(n)) for n in names))


def _are_notes(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_targets(value: object) -> bool:
    names = {"kind", "unit", "classes"}
    return isinstance(value, dict) and all(
        isinstance(facts, dict) and names <= facts.keys() and _are_texts(facts["classes"])
        for facts in value.values()
    )


def _are_covariates(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(facts, dict)
        and {"kind", "levels"} <= facts.keys()
        and _are_texts(facts["levels"])
        for facts in value.values()
    )


def _are_columns(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(columns, list) and all(map(_is_whole, columns)) for columns in value.values()
    )


_TEXT, _SIZE = (_is_text, "text"), (_is_size, "a number above 0, or null")
_FACTS = {
    "name": _TEXT,
    "synthetic": (lambda value: isinstance(value, bool), "true or false"),
    "classes": (_are_texts, "a list of texts"),
    "feature_dim": (_is_whole, "a whole number"),
    "encoder": (lambda value: value is None or _is_text(value), "text, or null"),
    "mpp": _SIZE,
    "patch_size": _SIZE,
    "patch_order": (lambda value: value in PATCH_ORDERS, f"one of {', '.join(PATCH_ORDERS)}"),
    "store": (_is_store, "its dtype and index_checksum, or null"),
    "expression": (lambda value: isinstance(value, dict), "the facts of the expression"),
    "expression.transform": _TEXT,
    "expression.gene_sets": (_are_columns, "gene sets with the numbers of their genes"),
    "expression.missing_genes": (_are_texts, "a list of texts"),
    "expression.checksum": _TEXT,
    "targets": (_are_targets, "kind, unit and classes of each target"),
    "covariates": (_are_covariates, "kind and levels of each covariate"),
    "split_notes": (_are_notes, "a text for each split"),
    "fingerprint": _TEXT,
}


def read_rows_of(file: Path, columns: Sequence[str]) -> Rows:
    """Rows of one table of a cohort; FaultError if it cannot be read or lacks a column."""
    table = open_table(file, ",", exact=True, expected="a table of a cohort")
    table.require(*columns)
    return [{key: unguarded(cell) for key, cell in row.items()} for row in table.records()]


def load_array(file: Path) -> np.ndarray:
    """A memory-mapped ``.npy``; numpy cannot map an array without elements."""
    try:
        with file.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
        return np.load(file, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except ARRAY_ERRORS as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error


def slide_means(folder: Path) -> np.ndarray | None:
    """Mean features of each slide, (slides, C) float32, in the order of ``slides.csv``.

    None if an earlier version prepared the cohort.

    Raises:
        GimpError: they were changed since.
    """
    expected = read_manifest(folder).get("slide_means_checksum")
    if expected is None:
        return None
    means = load_array(folder / SLIDE_MEANS)
    if means.ndim != 2 or means.dtype != np.float32 or checksum(means) != expected:
        raise GimpError(
            f"{folder / SLIDE_MEANS}: does not match its checksum in {MANIFEST}; it was changed "
            "since `prepare`. Run it again."
        )
    return means
