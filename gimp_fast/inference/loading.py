"""Opens a trained model: the run that trained it, or the folder that it was exported to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from gimp_fast.errors import GimpError
from gimp_fast.inference.ensemble import Ensemble, members_of
from gimp_fast.inference.export import read_export
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs import layout
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.hub import local_copy
from gimp_fast.runs.records import Run, is_run
from gimp_fast.training.claim import saved_config


def load(
    path: str | Path,
    device: str = "cpu",
    *,
    precision: str | None = None,
    backend: str = "auto",
) -> TrainedModel | Ensemble:
    """The model of a finished run, or an exported one; an :class:`Ensemble` where several were.

    Args:
        path: a run folder, of which the chosen fine-tuned model is taken, what
            ``gimp-fast predict --export`` wrote, or ``hf://ORGANISATION/NAME``, with ``@REVISION``
            after it or not: what ``--push`` put on the Hugging Face hub.
        device: ``"cpu"``, ``"cuda"`` …, or ``"auto"`` for a GPU if there is one.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; None as it was trained.
        backend: of the operators, see :func:`gimp_fast.ops.available_backends`.

    Raises:
        GimpError: none of them, an unfinished run, a damaged export, or a model that this
            version does not know.
    """
    path = local_copy(path)
    options = {"precision": precision, "backend": backend}
    if (path / layout.ENSEMBLE).is_file():
        return Ensemble([load_one(one, device, **options) for one in members_of(path)], path)
    return load_one(path, device, **options)


def load_one(
    path: Path, device: str = "cpu", *, precision: str | None = None, backend: str = "auto"
) -> TrainedModel:
    """As :func:`load`, of what is no ensemble."""
    path = local_copy(path)
    read = read_export if (path / layout.WEIGHTS).is_file() else _read_run
    tensors, facts = read(path)
    return TrainedModel(tensors, facts, path, device=device, precision=precision, backend=backend)


def _read_run(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of the chosen model of a run, and its facts with the run's settings and metrics."""
    if not is_run(path):
        what = f"a folder without {layout.CONFIG}" if path.is_dir() else "no such folder"
        raise GimpError(
            f"{path}: found {what}; expected a run that `gimp-fast train` wrote, or a model that "
            "`gimp-fast predict --export` wrote"
        )
    run = Run(path)
    file = run.checkpoint("finetune")
    if not (file.is_file() and run.is_finished):
        raise GimpError(
            f"{path}: found a run that {_how_far(run)}; expected one that has finished "
            f"fine-tuning. `gimp-fast train --out {path} --resume` continues it"
        )
    tensors, facts = load_checkpoint(file)
    config = saved_config(path)
    facts["metrics"] = run.metrics.as_dict()
    facts["training"] = {
        "gimp_fast": run.environment.get("gimp_fast"),
        "seed": config.seed,
        "precision": config.precision,
        "batch_size": config.finetune.batch_size,
    }
    return tensors, facts


def _how_far(run: Run) -> str:
    """How far an unfinished run has come, in words."""
    try:
        _, state = load_checkpoint(run.checkpoint("last"))
        return f"stopped in the stage '{state['stage']}' after epoch {state['epoch']}"
    except (GimpError, KeyError):
        return "holds no checkpoint yet"
