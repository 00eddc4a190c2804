"""Writes a cohort folder whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast import __version__
from gimp_fast.data.cohort import FORMAT_VERSION, Rows, fingerprint
from gimp_fast.errors import Fault, FaultError, GimpError

DROPPED_COLUMNS = ("item", "id", "case_id", "reason", "source")


@dataclass(frozen=True)
class CohortContents:
    """What goes into a cohort folder; tables are rows of text, see ``cohort.TABLES``.

    Attributes:
        name: name of the cohort.
        synthetic: True for generated patients.
        classes: class names, sorted.
        feature_dim: channels C.
        encoder: patch encoder, where known.
        expression_info: source, column and transform of the expression.
        patients, slides, genes, dropped: table rows.
        splits: split name -> rows of case_id, split.
        expression: (patients with RNA, G) float32, in the order of ``patients``.
    """

    name: str
    synthetic: bool
    classes: tuple[str, ...]
    feature_dim: int
    encoder: str | None
    expression_info: dict[str, object]
    patients: Rows
    slides: Rows
    genes: Rows
    dropped: Rows
    splits: dict[str, Rows]
    expression: np.ndarray


def check_free(out: Path) -> None:
    """FaultError unless ``out`` is absent or an empty folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        found = "a folder with files in it" if out.is_dir() else "a file"
        raise FaultError([Fault("output-exists", str(out), found, "a new or empty folder")])


def write_cohort(out: Path, contents: CohortContents) -> None:
    """Write a cohort folder to a temporary sibling and rename it into place.

    Args:
        out: the folder; absent or empty.
        contents: checked contents.

    Raises:
        GimpError: the folder cannot be written; nothing is left behind.
    """
    check_free(out)
    with _new_folder(out) as folder:
        np.save(folder / "expression.npy", np.ascontiguousarray(contents.expression, np.float32))
        slides = [{**row, "path": _stored_path(row["path"], out)} for row in contents.slides]
        tables = {
            "patients.csv": contents.patients,
            "slides.csv": slides,
            "genes.csv": contents.genes,
        }
        for name, rows in tables.items():
            write_table(folder / name, rows)
        (folder / "splits").mkdir()
        for name, rows in contents.splits.items():
            write_table(folder / "splits" / f"{name}.csv", rows, ("case_id", "split"))
        write_table(folder / "dropped.csv", contents.dropped, DROPPED_COLUMNS)
        manifest = _manifest(contents, _sha256(folder / "expression.npy"))
        manifest["fingerprint"] = fingerprint(tables, contents.splits, manifest)
        # last, so that a folder without it is never taken for a cohort
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / "cohort.json").write_text(text, encoding="utf-8")


def write_table(file: Path, rows: Rows, columns: tuple[str, ...] | None = None) -> None:
    """Write rows of text as csv; the columns of the first row unless given."""
    columns = columns or tuple(rows[0])
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _manifest(contents: CohortContents, expression_sha256: str) -> dict:
    return {
        "format_version": FORMAT_VERSION,
        "name": contents.name,
        "synthetic": contents.synthetic,
        "classes": list(contents.classes),
        "feature_dim": contents.feature_dim,
        "encoder": contents.encoder,
        "patch_order": "file",
        "expression": {**contents.expression_info, "sha256": expression_sha256},
        "counts": {
            "patients": len(contents.patients),
            "slides": len(contents.slides),
            "patches": sum(int(row["num_patches"]) for row in contents.slides),
            "genes": len(contents.genes),
            "dropped": len(contents.dropped),
        },
        "created_by": f"gimp_fast {__version__}",
    }


def _stored_path(path: str, out: Path) -> str:
    full, folder = Path(path).resolve(), out.resolve()
    return str(full.relative_to(folder) if full.is_relative_to(folder) else full)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling of ``out`` that takes its place on success and vanishes otherwise."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise GimpError(f"{out}: cannot be written ({error})") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private
        os.replace(folder, out)
    except OSError as error:
        raise GimpError(f"{out}: cannot be written ({error}); nothing was left there") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
