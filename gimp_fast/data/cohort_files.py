"""The files of a cohort folder, their checksums, and the fingerprint over their contents.

A cohort folder holds ``cohort.json``, ``patients.csv``, ``slides.csv``, ``genes.csv``,
``expression.npy``, ``splits/<name>.csv``, ``dropped.csv`` and ``dropped_genes.csv``. Slide features
stay in their own files, or are packed into ``store.safetensors``; ``patch_order.npy`` holds the
order of their rows if it is neither that of the files nor that of the store.
"""

from __future__ import annotations

import hashlib
import json
import tokenize
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.errors import DAMAGE_ERRORS, GimpError
from gimp_fast.files.table import open_table

FORMAT_VERSION = 2
MANIFEST, EXPRESSION = "cohort.json", "expression.npy"
STORE, ORDER = "store.safetensors", "patch_order.npy"
TABLES = {
    "patients.csv": ("case_id", "label", "has_rna", "num_slides", "num_patches"),
    "slides.csv": ("case_id", "slide_id", "path", "num_patches", "checksum"),
    "genes.csv": ("gene_id", "gene_name", "gene_type"),
}
PATCH_FACTS = ("feature_dim", "encoder", "mpp", "patch_size", "patch_order")  # in the manifest
SPLIT_COLUMNS = ("case_id", "split")
DROPPED_COLUMNS = ("item", "id", "case_id", "reason", "source")
DROPPED_GENE_COLUMNS = ("gene_id", "gene_name", "reason", "source")
Rows = list[dict[str, str]]
# numpy parses the header of an array as Python code.
_NPY_ERRORS = (*DAMAGE_ERRORS, SyntaxError, tokenize.TokenError)


def dropped_row(item: str, id: str, case_id: str, reason: str, source: object) -> dict[str, str]:
    """One row of ``dropped.csv``: what was left out on purpose, and why."""
    return dict(zip(DROPPED_COLUMNS, (item, id, case_id, reason, str(source)), strict=True))


def reasons(dropped: Rows, dropped_genes: Rows) -> dict[str, int]:
    """``"item: reason"`` without the details of single rows -> how many were left out for it."""
    rows = [*dropped, *({"item": "gene", **row} for row in dropped_genes)]
    texts = (f"{row['item']}: {row['reason'].split(':')[0].split(' (')[0]}" for row in rows)
    return dict(sorted(Counter(texts).items()))


def fingerprint(tables: dict[str, Rows], splits: dict[str, Rows], manifest: dict) -> str:
    """sha256 over tables, splits, checksums and provenance; not over the paths of slide files."""
    facts = manifest["expression"]
    content = {
        "classes": list(manifest["classes"]),
        "made": [manifest[key] for key in ("encoder", "mpp", "patch_size", "patch_order")],
        "feature_dim": manifest["feature_dim"],
        "expression": [facts[k] for k in ("transform", "checksum", "gene_sets", "missing_genes")],
        "store": manifest["store"] and manifest["store"]["dtype"],
        "tables": {
            name: [[value for key, value in row.items() if key != "path"] for row in rows]
            for name, rows in sorted(tables.items())
        },
        "splits": {name: [list(row.values()) for row in rows] for name, rows in splits.items()},
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def checksum(array: np.ndarray) -> str:
    """xxh3 of the values, which finds accidental changes, not malicious ones."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array))


def read_manifest(folder: Path) -> dict:
    """The content of ``cohort.json``; GimpError if there is none of this format version."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GimpError(
            f"{folder}: not a cohort folder (no {MANIFEST}); "
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


def read_rows_of(file: Path, columns: Sequence[str]) -> Rows:
    """Rows of one table of a cohort; FaultError if it cannot be read or lacks a column."""
    table = open_table(file, ",", exact=True, expected="a table of a cohort")
    table.require(*columns)
    return table.records()


def load_array(file: Path) -> np.ndarray:
    """A memory-mapped ``.npy``; numpy cannot map an array without elements."""
    try:
        with file.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
        return np.load(file, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except _NPY_ERRORS as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
