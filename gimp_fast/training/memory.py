"""Will it fit? Parameters of a model, and the memory that training it will hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from gimp_fast.errors import GimpError
from gimp_fast.models import GiMPConfig
from gimp_fast.training.memory_probe import ProbeSetting, StepProbe

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
LARGEST_BATCH = 2**20
# Resident memory of steps on the CPU exceeds their tensors by this, and small ones by less.
OVERHEAD_CPU = 80 * 2**20


@dataclass(frozen=True)
class ParameterRow:
    """A part of a model.

    Attributes:
        name: of the module, or of the parameter that belongs to none of them.
        count: numbers.
        bytes: of them.
    """

    name: str
    count: int
    bytes: int


def parameter_table(model: nn.Module) -> list[ParameterRow]:
    """The parts of a model and their sizes; the last row is the sum.

    Parts are the children of the model, and the children of the patch aggregator.
    """
    rows: dict[str, list[int]] = {}
    for name, p in model.named_parameters():
        parts = name.split(".")
        depth = 2 if parts[0] == "aggregator" else 1
        if depth == 2 and parts[1] in ("layers", "norms"):
            parts = [*parts[:2], parts[2]]
            depth = 3
        row = rows.setdefault(".".join(parts[:depth]), [0, 0])
        row[0] += p.numel()
        row[1] += p.nbytes
    table = [ParameterRow(name, *sizes) for name, sizes in rows.items()]
    total = ParameterRow("all", sum(r.count for r in table), sum(r.bytes for r in table))
    return [*table, total]


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes that a training step holds at its peak.

    Attributes:
        stage, batch_size, patches: the step; patches of all patients together.
        parameters: of the whole model.
        gradients: of the parameters that the stage trains.
        optimizer: two moments of each of them.
        inputs: the batch, as float32.
        activations: held from the forward pass for the backward pass.
        workspace: what the peak adds to them.
        overhead: on the CPU, what its allocator and libraries hold besides, as was measured.
    """

    stage: str
    batch_size: int
    patches: int
    parameters: int
    gradients: int
    optimizer: int
    inputs: int
    activations: int
    workspace: int
    overhead: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.inputs + self.step

    @property
    def step(self) -> int:
        """Of a step alone, above what is held between steps and the batch."""
        return self.activations + self.workspace + self.overhead


class MemoryPredictor:
    """Predicts the steps of one stage; what it measures for one prediction serves the next.

    Small steps are made on the device and extended: what a step holds grows in straight lines with
    patches and bags. On a GPU torch's allocator is asked, and its context (about half a GB) and the
    gaps between its blocks come on top. On the CPU tensors are counted, and a constant is added.

    Args:
        model_config: sizes of the model.
        stage: ``"genes"``, ``"pretrain"`` or ``"finetune"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        optimizer: count the moments of AdamW.
        checkpoint_layers: instead of that of ``model_config``.
        device: where the steps are measured.
        mask_ratio, freeze_genes, backend: as in the configuration.
    """

    def __init__(
        self,
        model_config: GiMPConfig,
        *,
        stage: str,
        precision: str = "fp32",
        optimizer: bool = True,
        checkpoint_layers: bool | None = None,
        device: str = "cpu",
        mask_ratio: float = 0.5,
        freeze_genes: bool = True,
        backend: str = "auto",
    ):
        if checkpoint_layers is not None:
            update = {"checkpoint_layers": checkpoint_layers}
            model_config = model_config.model_copy(update=update)
        self.optimizer = optimizer
        self.probe = StepProbe(
            ProbeSetting(model_config, stage, precision, device, mask_ratio, freeze_genes, backend)
        )

    def __call__(self, batch_size: int, length: int | Sequence[int] = 0) -> MemoryPrediction:
        """Of a batch.

        Args:
            batch_size: patients.
            length: patches of each, or of every one. Not read for the genes stage.
        """
        lengths = [length] * batch_size if isinstance(length, int) else list(length)
        if batch_size < 1 or len(lengths) != batch_size or min(lengths) < 0:
            raise ValueError(
                f"batch_size {batch_size} with lengths {lengths}: expected one of each"
            )
        probe, patches = self.probe, sum(lengths)
        if probe.setting.stage == "genes":
            patches = 0
        mean = patches // batch_size
        held, peak = probe.held(batch_size, mean)
        trained = sum(p.nbytes for p in probe.trained)
        return MemoryPrediction(
            stage=probe.setting.stage,
            batch_size=batch_size,
            patches=patches,
            parameters=probe.parameter_bytes,
            gradients=trained,
            optimizer=2 * trained if self.optimizer else 0,
            inputs=probe.input_bytes(batch_size, mean),
            activations=held,
            workspace=peak - held,
            overhead=min(OVERHEAD_CPU, peak // 2) if probe.device.type == "cpu" else 0,
        )

    def largest_batch(self, budget_bytes: int, length: int) -> int:
        """Largest batch of patients with ``length`` patches each that fits; 0 if one does not."""
        fits, too_large = 0, LARGEST_BATCH
        if self(too_large, length).total <= budget_bytes:
            return too_large
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            if self(middle, length).total <= budget_bytes:
                fits = middle
            else:
                too_large = middle
        return fits


def predict_peak_memory(
    model_config: GiMPConfig,
    *,
    stage: str,
    batch_size: int,
    length: int | Sequence[int] = 0,
    precision: str = "fp32",
    **options,
) -> MemoryPrediction:
    """Memory that a training step will hold; see :class:`MemoryPredictor`, which takes the options.

    Args:
        model_config: sizes of the model.
        stage: ``"genes"``, ``"pretrain"`` or ``"finetune"``.
        batch_size: patients.
        length: patches of each, or of every one.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """
    return MemoryPredictor(model_config, stage=stage, precision=precision, **options)(
        batch_size, length
    )


def largest_batch(
    budget_bytes: int, model_config: GiMPConfig, *, stage: str = "pretrain", length: int, **options
) -> int:
    """Largest batch whose predicted peak is within the budget; 0 if a batch of one is not."""
    return MemoryPredictor(model_config, stage=stage, **options).largest_batch(budget_bytes, length)


def parse_size(text: str) -> int:
    """``"24GB"``, ``"8 GiB"``, ``"1.5GiB"`` -> bytes.

    Raises:
        GimpError: no such size, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    size = float(match[1]) * units.get(match[2].lower(), 0) if match else 0
    if size < 1:
        raise GimpError(f"--fit: found '{text}'; expected a size with its unit, as 24GB or 8GiB")
    return int(size)


def format_size(size: int) -> str:
    """In a decimal unit."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= UNITS[unit]:
            value = size / UNITS[unit]
            return f"{value:.{1 if value < 100 else 0}f} {unit}"
    return f"{size} B"
