"""Predicts what a run needs: parameters, the memory of each stage, the largest batch that fits."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError
from gimp_fast.models import Sizes, build
from gimp_fast.ops.backends import choose_device
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.memory_probe import StepProbe
from gimp_fast.training.stage import Stage
from gimp_fast.training.stages import stages_of
from gimp_fast.training.task import model_config_of

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
LARGEST_BATCH = 2**20
# Resident memory of a step on the CPU exceeds its tensors by up to this much.
OVERHEAD_CPU = 80 * 2**20


class ParameterRow(NamedTuple):
    """A part of a model: number of parameters, and their bytes."""

    name: str
    count: int
    bytes: int


def parameter_table(model: nn.Module) -> list[ParameterRow]:
    """Parts of a model and their sizes; the last row is the sum.

    Parts are the children of the model, and the children of the patch aggregator.
    """
    rows: dict[str, list[int]] = {}
    for name, p in model.named_parameters():
        parts = name.split(".")
        depth = 1
        if parts[0] == "aggregator":
            depth = 3 if parts[1] in ("layers", "norms") else 2
        row = rows.setdefault(".".join(parts[:depth]), [0, 0])
        row[0] += p.numel()
        row[1] += p.nbytes
    table = [ParameterRow(name, *sizes) for name, sizes in rows.items()]
    total = ParameterRow("all", sum(r.count for r in table), sum(r.bytes for r in table))
    return [*table, total]


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes that a training step needs at its peak."""

    stage: str
    batch_size: int
    patches: int  # of all patients together
    parameters: int  # of the whole model
    gradients: int  # of the parameters that the stage trains
    optimizer: int  # two moments for each of them
    inputs: int  # the batch, as float32
    activations: int  # kept from the forward pass for the backward pass
    workspace: int  # temporary memory at the peak
    overhead: int = 0  # on the CPU: memory of the allocator and of libraries, as measured

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.inputs + self.step

    @property
    def step(self) -> int:
        """Memory of the step itself, without parameters, optimizer and batch."""
        return self.activations + self.workspace + self.overhead


class MemoryPredictor(StepProbe):
    """Predicts the steps of one stage; what it measures for one prediction serves the next.

    Small steps of the real stage are made on the device and extrapolated: what a step holds grows
    linearly with patches and bags. On a GPU torch's allocator is asked; its context (about half a
    GB) and the gaps between its blocks come on top. On the CPU tensors are counted, and a constant
    is added.
    """

    def __call__(self, batch_size: int, length: int | Sequence[int] = 0) -> MemoryPrediction:
        """The prediction for a batch.

        Args:
            batch_size: patients.
            length: patches of each patient, or a list for all. Not used by the genes stage.
        """
        lengths = [length] * batch_size if isinstance(length, int) else list(length)
        if batch_size < 1 or len(lengths) != batch_size or min(lengths) < 0:
            raise ValueError(
                f"batch_size {batch_size} with lengths {lengths}: expected one of each"
            )
        patches = sum(lengths) if self.reads_slides else 0
        mean = patches // batch_size
        held, peak = self.held(batch_size, mean)
        trained = sum(p.nbytes for p in self.trained)
        return MemoryPrediction(
            stage=self.stage.name,
            batch_size=batch_size,
            patches=patches,
            parameters=self.parameter_bytes,
            gradients=trained,
            optimizer=2 * trained,
            inputs=self.input_bytes(batch_size, mean),
            activations=held,
            workspace=peak - held,
            overhead=min(OVERHEAD_CPU, peak // 2) if self.device.type == "cpu" else 0,
        )

    def largest_batch(self, budget_bytes: int, length: int) -> int:
        """Largest batch of patients with ``length`` patches each that fits; 0 if none does."""
        sizes = range(1, LARGEST_BATCH + 1)
        return bisect_right(sizes, budget_bytes, key=lambda size: self(size, length).total)


def parse_size(text: str) -> int:
    """``"24GB"``, ``"8 GiB"``, ``"1.5GiB"`` -> bytes.

    Raises:
        GimpError: not a size, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    size = float(match[1]) * units.get(match[2].lower(), 0) if match else 0
    if size < 1:
        raise GimpError(f"--fit: found '{text}'; expected a size with its unit, as 24GB or 8GiB")
    return int(size)


def format_size(size: int) -> str:
    """A size as text, in a decimal unit."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= UNITS[unit]:
            value = size / UNITS[unit]
            return f"{value:.{1 if value < 100 else 0}f} {unit}"
    return f"{size} B"


def predictor_of(config: TrainConfig, sizes: Sizes, stage: str) -> MemoryPredictor:
    """The predictor of a stage, on the run's device; GimpError if sizes do not fit."""
    try:
        return MemoryPredictor(config, sizes, stage, str(choose_device(config.device)))
    except ValueError as error:
        raise GimpError(f"model: {error}") from error


def predictions_of(
    config: TrainConfig, cohort: Cohort, log: Callable[[str], None] = lambda text: None
) -> list[MemoryPrediction]:
    """Predictions for the largest step of each stage; fine-tuning's has the longest bags.

    ``log`` is called with a line before each stage is measured.
    """
    model_config = model_config_of(config, cohort)
    bags = [cohort.bag(c).num_patches for c in cohort.case_ids if cohort.has_slides(c)]
    longest = sorted(bags, reverse=True)
    found = []
    for stage in stages_of(config):
        batch = min(getattr(config, stage.section).batch_size, len(cohort.case_ids))
        length: int | list[int] = 0
        if stage.name == "pretrain":
            length = config.pretrain.window
        elif stage.section == "finetune" and config.modalities != "rna":
            length = (longest + [0] * batch)[:batch]
        log(f"measuring small steps of stage '{stage.name}'")
        found.append(predictor_of(config, model_config, stage.name)(batch, length))
    return found


def memory_report(
    config: TrainConfig, cohort: Cohort, log: Callable[[str], None] = lambda text: None
) -> list[str]:
    """Lines of text: parameters of the run's model, and memory of each of its stages."""
    predictions = predictions_of(config, cohort, log)  # finds out whether the model can be built
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


class FittedBatch(NamedTuple):
    """The largest pre-training batch that fits into a size of memory.

    ``size`` is at most ``patients``, those whom pre-training has; ``fits`` is what memory allows.
    """

    size: int
    fits: int
    patients: int

    def __str__(self) -> str:
        if self.size == self.fits:
            return f"pretrain.batch_size is {self.size}, the largest that fits"
        return (
            f"pretrain.batch_size is {self.size}, all patients of pre-training in one step: memory "
            f"would allow {self.fits:,}"
        )


def fitted_batch(config: TrainConfig, cohort: Cohort, budget: str) -> FittedBatch:
    """Largest pre-training batch whose predicted peak is within a size such as ``"24GB"``.

    Raises:
        GimpError: not a size, no pre-training in this run, or not even one patient fits.
    """
    size = parse_size(budget)
    kinds = {stage.name: stage for stage in stages_of(config)}
    if "pretrain" not in kinds:
        raise GimpError(
            f"--fit: sets the batch of pre-training, which this run does not have (modalities "
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
    patients = _patients_of(kinds["pretrain"], config, cohort)
    return FittedBatch(min(found, patients), found, patients)


def _patients_of(kind: type[Stage], config: TrainConfig, cohort: Cohort) -> int:
    """How many training patients a stage can use."""
    train = cohort.split(cohort.only_split(config.split))["train"]
    return sum(kind.can_use(cohort, config, case) for case in train)
