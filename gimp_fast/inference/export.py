"""Writes a trained model as a folder of its own, which needs neither its run nor its cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gimp_fast import __version__
from gimp_fast.data.prepare.cohort_writer import write_table
from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import new_folder
from gimp_fast.inference.card import model_card
from gimp_fast.inference.load import CHECKSUMS, EXPORT_VERSION, WEIGHTS, sha256
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs.checkpoint import save_checkpoint, with_prefix

CONFIG, GENES, CARD = "config.json", "genes.csv", "README.md"
FILES = (WEIGHTS, CONFIG, GENES, CARD, CHECKSUMS)
_KEPT = ("method", "model", "cohort", "epoch", "metrics", "training")
_GENE_COLUMNS = ("gene_id", "gene_name", "mean", "std")


def export_model(trained: TrainedModel, out: str | Path, *, overwrite: bool = False) -> None:
    """Write weights, configuration, genes and a model card; whole or not at all.

    ``model.safetensors`` holds all that is needed to load the model, in its tensors and in the JSON
    of its header; ``config.json`` and ``genes.csv`` say the same for people and other programs. The
    card may be edited: the checksums are of the three others.

    Args:
        trained: the model.
        out: folder to write; new or empty.
        overwrite: replace an export that is there.

    Raises:
        GimpError: something is there, or the folder cannot be written.
    """
    out = Path(out)
    _check_place(out, overwrite)
    facts = exported_facts(trained)
    with new_folder(out, replace=overwrite) as folder:
        save_checkpoint(folder / WEIGHTS, _tensors(trained), facts)
        _write_text(folder / CONFIG, json.dumps(_config(trained, facts), indent=2) + "\n")
        write_table(folder / GENES, _gene_rows(trained), _GENE_COLUMNS)
        _write_text(folder / CARD, model_card(trained, facts))
        lines = [f"{sha256(folder / name)}  {name}\n" for name in (WEIGHTS, CONFIG, GENES)]
        _write_text(folder / CHECKSUMS, "".join(lines))


def exported_facts(trained: TrainedModel) -> dict[str, Any]:
    """What the export says of the model; without places on the machine that trained it."""
    facts = {name: trained.facts[name] for name in _KEPT if name in trained.facts}
    cohort = dict(facts["cohort"])
    hidden = ("paths", "aligned_to")
    cohort["expression"] = {k: v for k, v in cohort["expression"].items() if k not in hidden}
    versions = {"gimp_fast": __version__, "torch": str(torch.__version__)}
    return facts | {
        "cohort": cohort,
        "export_version": EXPORT_VERSION,
        "exported_with": versions,
    }


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise GimpError(f"{out}: found a file; expected a new or empty folder")
    if not overwrite:
        raise GimpError(
            f"{out}: found a folder with files in it; expected a new or empty one, or --overwrite "
            "to replace an export"
        )
    # What is replaced is deleted: of a folder that is no export, that would be an accident.
    others = sorted(path.name for path in out.iterdir() if path.name not in FILES)
    if others or not (out / WEIGHTS).is_file():
        what = ", ".join(others[:5]) if others else f"no {WEIGHTS}"
        raise GimpError(f"{out}: found {what}; --overwrite only replaces an export")


def _tensors(trained: TrainedModel) -> dict[str, Tensor]:
    """All weights of the model, and the gene scaling; no optimiser, no state of a stage."""
    tensors = with_prefix("model", trained.model.state_dict())
    if trained.scaler is not None:
        tensors["scaler.mean"] = torch.from_numpy(trained.scaler.mean)
        tensors["scaler.std"] = torch.from_numpy(trained.scaler.std)
    return tensors


def _config(trained: TrainedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without the gene list, which has a table of its own."""
    in_table = ("gene_ids", "gene_names")
    cohort = {k: v for k, v in facts["cohort"].items() if k not in in_table}
    named = {"modalities": trained.modalities, "classes": list(trained.classes)}
    return facts | named | {"cohort": cohort, "num_genes": len(trained.gene_ids)}


def _gene_rows(trained: TrainedModel) -> list[dict[str, str]]:
    if trained.scaler is None:
        return []
    columns = (trained.gene_ids, trained.gene_names, trained.scaler.mean, trained.scaler.std)
    return [
        dict(zip(_GENE_COLUMNS, map(str, row), strict=True)) for row in zip(*columns, strict=True)
    ]


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
