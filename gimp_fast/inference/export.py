"""A trained model as a folder of its own, which needs neither its run nor its cohort."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gimp_fast import __version__
from gimp_fast.errors import GimpError, one_line
from gimp_fast.files.atomic import new_folder, write_text
from gimp_fast.files.table import write_table
from gimp_fast.inference.card import model_card
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs.checkpoint import load_checkpoint, save_checkpoint, with_prefix
from gimp_fast.runs.layout import CARD, CHECKSUMS, EXPORT_CONFIG, EXPORT_FILES, GENES, WEIGHTS

EXPORT_VERSION = 1
_KEPT = (
    "method",
    "model",
    "target",
    "cohort",
    "epoch",
    "metrics",
    "training",
    "known_patients",
    "ranges",
    "covariates",
    "gene_harmonise",
)
_GENE_COLUMNS = ("gene_id", "gene_name", "mean", "std")


def export_model(trained: TrainedModel, out: str | Path, *, overwrite: bool = False) -> None:
    """Write weights, configuration, genes and a model card; all of them or nothing.

    ``model.safetensors`` is all that loading needs: tensors, and JSON in its header.
    ``config.json`` and ``genes.csv`` repeat it for people and other programs. The card may be
    edited: the checksums are of the other three files.

    Args:
        trained: the model.
        out: folder to write; new or empty.
        overwrite: replace an export that is there.

    Raises:
        GimpError: the folder holds something else, or cannot be written.
    """
    out = Path(out)
    check_place(out, overwrite, _other_than_export, "an export")
    with new_folder(out, replace=overwrite) as folder:
        write_export(trained, folder)


def write_export(trained: TrainedModel, folder: Path) -> None:
    """Write the files of an export into a folder."""
    facts, genes = exported_facts(trained), []
    if trained.scaler is not None:
        columns = (trained.gene_ids, trained.gene_names, trained.scaler.mean, trained.scaler.std)
        rows = (map(str, row) for row in zip(*columns, strict=True))
        genes = [dict(zip(_GENE_COLUMNS, row, strict=True)) for row in rows]
    save_checkpoint(folder / WEIGHTS, _tensors(trained), facts)
    write_text(folder / EXPORT_CONFIG, json.dumps(_config(trained, facts), indent=2) + "\n")
    write_table(folder / GENES, genes, _GENE_COLUMNS)
    write_text(folder / CARD, model_card(trained, facts))
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in (WEIGHTS, EXPORT_CONFIG, GENES)]
    write_text(folder / CHECKSUMS, "".join(lines))


def exported_facts(trained: TrainedModel) -> dict[str, Any]:
    """What the export says of the model, without paths of the machine that trained it."""
    facts = {name: trained.facts[name] for name in _KEPT if name in trained.facts}
    expression = _without(facts["cohort"]["expression"], "paths", "aligned_to")
    return facts | {
        "cohort": facts["cohort"] | {"expression": expression},
        "export_version": EXPORT_VERSION,
        "exported_with": {"gimp_fast": __version__, "torch": str(torch.__version__)},
    }


def _without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def read_export(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of an export, after its files were compared with their checksums.

    Raises:
        GimpError: a file is missing, damaged or changed, or the export is of another version.
    """
    check_files(path)
    tensors, facts = load_checkpoint(path / WEIGHTS)
    version = facts.get("export_version")
    if version != EXPORT_VERSION:
        raise GimpError(
            f"{path / WEIGHTS}: found export version {version}; expected {EXPORT_VERSION}"
        )
    return tensors, facts


def check_files(folder: Path) -> None:
    """GimpError unless the files are those of ``checksums.txt``, in the format of sha256sum."""
    listing = folder / CHECKSUMS
    try:
        if not listing.is_file():  # a pipe would be waited for
            raise ValueError("no regular file")
        lines = listing.read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        expected = {name: digest for digest, name in pairs}
    except (OSError, ValueError) as error:
        raise GimpError(f"{listing}: cannot be read as checksums ({one_line(error)})") from error
    others = [name for name in expected if name not in EXPORT_FILES]
    if others:
        raise GimpError(
            f"{listing}: found a checksum of {others[0][:80]!a}; expected those of "
            f"{', '.join(EXPORT_FILES[:3])}"
        )
    if WEIGHTS not in expected:
        raise GimpError(f"{listing}: found no checksum of {WEIGHTS}; the file was changed or cut")
    for name, digest in expected.items():
        file = folder / name
        try:
            if not file.is_file():
                raise FileNotFoundError("missing, or no regular file")
            found = _sha256(file)
        except OSError as error:
            raise GimpError(f"{file}: cannot be read ({error})") from error
        if found != digest:
            raise GimpError(
                f"{file}: found SHA-256 {found[:12]}…; expected {digest[:12]}… as in {CHECKSUMS}: "
                "damaged or changed since the export"
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_place(out: Path, overwrite: bool, others: Callable[[Path], str], what: str) -> None:
    """GimpError unless ``out`` is new or empty, or may be overwritten and is ``what``.

    ``others`` names what a folder holds besides, or lacks; an empty text if it is ``what``.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise GimpError(f"{out}: found a file; expected a new or empty folder")
    if not overwrite:
        raise GimpError(
            f"{out}: found a folder with files in it; expected a new or empty one, or --overwrite "
            f"to replace {what}"
        )
    # Replacing deletes what is there.
    if found := others(out):
        raise GimpError(f"{out}: found {found}; --overwrite only replaces {what}")


def _other_than_export(folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if path.name not in EXPORT_FILES)
    if others:
        return ", ".join(others[:5])
    return "" if (folder / WEIGHTS).is_file() else f"no {WEIGHTS}"


def _tensors(trained: TrainedModel) -> dict[str, Tensor]:
    """All weights of the model, and the gene scaling; no optimiser, no state of a stage."""
    tensors = with_prefix("model", trained.model.state_dict())
    if trained.scaler is not None:
        tensors |= trained.scaler.tensors()
    if trained.slide_scaler is not None:
        tensors |= trained.slide_scaler.tensors()
    if trained.covariates is not None:
        tensors |= trained.covariates.tensors()
    return tensors


def _config(trained: TrainedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without digests, and without the gene list, which is in ``genes.csv``."""
    cohort = _without(facts["cohort"], "gene_ids", "gene_names")
    named = {"modalities": trained.modalities, "classes": list(trained.classes)}
    facts = _without(facts, "known_patients")  # digests, which nobody can read
    return facts | named | {"cohort": cohort, "num_genes": len(trained.gene_ids)}
