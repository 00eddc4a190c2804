"""Opens a trained model: the run that trained it, or the folder that it was exported to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from gimp_fast.errors import GimpError
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.folder import RunFolder
from gimp_fast.training.claim import saved_config

EXPORT_VERSION = 1
WEIGHTS, CHECKSUMS = "model.safetensors", "checksums.txt"


def load(
    path: str | Path,
    device: str = "cpu",
    *,
    precision: str | None = None,
    backend: str = "auto",
) -> TrainedModel:
    """The model of a finished run, or an exported one.

    Args:
        path: a run folder, of which the chosen fine-tuned model is taken, or what
            ``gimp-fast predict --export`` wrote.
        device: ``"cpu"``, ``"cuda"`` …, or ``"auto"`` for a GPU if there is one.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None as it was trained.
        backend: of the operators, see :func:`gimp_fast.ops.available_backends`.

    Raises:
        GimpError: neither of them, an unfinished run, a damaged export, or a model that this
            version does not know.
    """
    path = Path(path)
    tensors, facts = read_export(path) if (path / WEIGHTS).is_file() else read_run(path)
    return TrainedModel(tensors, facts, path, device=device, precision=precision, backend=backend)


def read_run(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of the chosen model of a run, and its facts with the run's settings and metrics."""
    folder = RunFolder(path)
    if not folder.config_file.is_file() and not folder.checkpoints.is_dir():
        what = "a folder without config.yaml" if path.is_dir() else "no such folder"
        raise GimpError(
            f"{path}: found {what}; expected a run that `gimp-fast train` wrote, or a model that "
            "`gimp-fast predict --export` wrote"
        )
    file, metrics = folder.checkpoint("finetune"), path / "metrics.json"
    if not (file.is_file() and metrics.is_file()):
        raise GimpError(
            f"{path}: found a run that {_how_far(folder)}; expected one that has finished "
            f"fine-tuning. `gimp-fast train --out {path} --resume` goes on with it"
        )
    tensors, facts = load_checkpoint(file)
    config = saved_config(path)
    facts["metrics"] = _read_json(metrics)
    facts["training"] = {
        "gimp_fast": _read_json(path / "environment.json").get("gimp_fast"),
        "seed": config.seed,
        "precision": config.precision,
        "batch_size": config.finetune.batch_size,
    }
    return tensors, facts


def read_export(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of an export, every file of which is as it was written."""
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
        lines = listing.read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        expected = {name: digest for digest, name in pairs}
    except (OSError, ValueError) as error:
        raise GimpError(f"{listing}: cannot be read as checksums ({error})") from error
    if WEIGHTS not in expected:
        raise GimpError(f"{listing}: found no checksum of {WEIGHTS}; the file was changed or cut")
    for name, digest in expected.items():
        file = folder / Path(name).name
        try:
            found = sha256(file)
        except OSError as error:
            raise GimpError(f"{file}: cannot be read ({error})") from error
        if found != digest:
            raise GimpError(
                f"{file}: found SHA-256 {found[:12]}…; expected {digest[:12]}… as in {CHECKSUMS}: "
                "damaged or changed since the export"
            )


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _how_far(folder: RunFolder) -> str:
    """What there is of a run that has not finished, in words."""
    try:
        _, state = load_checkpoint(folder.checkpoint("last"))
        return f"stopped in the stage '{state['stage']}' after epoch {state['epoch']}"
    except (GimpError, KeyError):
        return "holds no checkpoint yet"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GimpError(f"{file}: cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise GimpError(f"{file}: found {type(values).__name__}; expected a mapping")
    return values
