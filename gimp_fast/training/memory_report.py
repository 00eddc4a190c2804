"""What a run will need: its model's parameters, the memory of its stages, the batch that fits."""

from __future__ import annotations

import torch

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.models import GiMPConfig, build
from gimp_fast.training.config import TrainConfig, model_config_of
from gimp_fast.training.memory import (
    MemoryPrediction,
    MemoryPredictor,
    format_size,
    parameter_table,
    parse_size,
)
from gimp_fast.training.stages import stages_of


def predictor_of(config: TrainConfig, model_config: GiMPConfig, stage: str) -> MemoryPredictor:
    """Of a stage of a run; on the run's device. GimpError for a method it does not know."""
    if config.method != "gimp":
        raise GimpError(f"the memory of a step is predicted for gimp only; found '{config.method}'")
    cuda = config.device.startswith("cuda") or config.device == "auto"
    try:
        return MemoryPredictor(
            model_config,
            stage=stage,
            precision=config.precision,
            device="cuda" if cuda and torch.cuda.is_available() else "cpu",
            mask_ratio=config.pretrain.mask_ratio,
            freeze_genes=config.finetune.freeze_genes,
            backend=config.backend,
        )
    except ValueError as error:
        raise GimpError(f"model: {error}") from error


def predictions_of(config: TrainConfig, cohort: Cohort) -> list[MemoryPrediction]:
    """The largest step of each stage of a run; fine-tuning's is on the cohort's longest bags."""
    model_config = model_config_of(config, cohort)
    bags = [cohort.bag(c).num_patches for c in cohort.case_ids if cohort.has_slides(c)]
    longest = sorted(bags, reverse=True)
    found = []
    for stage in stages_of(config):
        batch = min(getattr(config, stage.name).batch_size, len(cohort.case_ids))
        length: int | list[int] = 0
        if stage.name == "pretrain":
            length = config.pretrain.window
        elif stage.name == "finetune" and config.modalities != "rna":
            length = (longest + [0] * batch)[:batch]
        found.append(predictor_of(config, model_config, stage.name)(batch, length))
    return found


def memory_report(config: TrainConfig, cohort: Cohort) -> list[str]:
    """Lines of text: the parameters of a run's model, and what each of its stages will hold."""
    predictions = predictions_of(config, cohort)  # finds out whether the model can be built
    with torch.random.fork_rng(devices=[]):
        table = parameter_table(build(config.method, model_config_of(config, cohort)))
    width = max(len(row.name) for row in table)
    lines = [f"{'parameters':<{width}}  {'count':>12}  {'size':>9}"]
    lines += [
        f"{row.name:<{width}}  {row.count:>12,}  {format_size(row.bytes):>9}" for row in table
    ]
    columns = ("parameters", "gradients", "optimizer", "inputs", "activations", "workspace")
    head = "".join(f"{name:>12}" for name in (*columns, "overhead", "peak"))
    lines += ["", f"{'predicted memory of a step':<34}{head}"]
    for found in predictions:
        what = f"{found.stage}, batch {found.batch_size}"
        if found.patches:
            what += f", {found.patches:,} patches"
        sizes = [getattr(found, name) for name in (*columns, "overhead", "total")]
        lines.append(f"{what:<34}" + "".join(f"{format_size(size):>12}" for size in sizes))
    return lines


def fitted_batch(config: TrainConfig, cohort: Cohort, budget: str) -> int:
    """Largest pre-training batch whose predicted peak is within a size such as ``"24GB"``.

    Raises:
        GimpError: a size that is none, nothing to pre-train, or not even one patient fits.
    """
    size = parse_size(budget)
    if "pretrain" not in [stage.name for stage in stages_of(config)]:
        raise GimpError(
            f"--fit: finds the batch of pre-training, which this run has not (modalities "
            f"'{config.modalities}', pretrain.epochs {config.pretrain.epochs})"
        )
    predictor = predictor_of(config, model_config_of(config, cohort), "pretrain")
    found = predictor.largest_batch(size, config.pretrain.window)
    if not found:
        needed = format_size(predictor(1, config.pretrain.window).total)
        raise GimpError(
            f"--fit: found {budget}; a batch of one window of {config.pretrain.window} patches "
            f"needs {needed}. A shorter pretrain.window or model.checkpoint_layers=true needs less."
        )
    return found
