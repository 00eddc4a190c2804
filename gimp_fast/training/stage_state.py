"""The contents of a stage's checkpoints: its progress, and the state of everything that changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gimp_fast.runs.checkpoint import (
    pack_optimizer,
    under_prefix,
    unpack_optimizer,
    with_prefix,
)
from gimp_fast.targets.classification import Scores
from gimp_fast.training.stage import Stage

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        rows: rows of metrics of the whole run.
        best: the best epoch so far and its validation scores.
        epoch: finished epochs.
        step: finished steps of the next epoch.
        totals: sums of the scores over the patients of those steps.
        counted: number of these patients.
        skipped: steps of the epoch that were left out.
    """

    rows: int
    best: dict[str, Any] | None = None
    epoch: int = 0
    step: int = 0
    totals: Scores = field(default_factory=dict)
    counted: int = 0
    skipped: int = 0

    def begin_epoch(self) -> None:
        self.totals, self.counted, self.skipped = {}, 0, 0

    def count(self, scores: Scores, patients: int) -> None:
        """Add the mean scores of a step with this many patients."""
        for name, value in scores.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * patients
        self.counted += patients

    def scores(self) -> Scores:
        """Means over the patients of the epoch so far."""
        return {name: total / max(self.counted, 1) for name, total in self.totals.items()}


class StageState:
    """Packs the state of a stage into checkpoints, and unpacks it.

    Args:
        stage: holds the model.
        optimizer, scaler: of its steps.
        provenance: facts that every checkpoint stores.
    """

    def __init__(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        provenance: dict[str, Any],
    ):
        self.stage, self.optimizer, self.scaler = stage, optimizer, scaler
        self.provenance, self.device = provenance, stage.context.device

    def weights(self, progress: Progress) -> Checkpoint:
        """The model, and everything needed to use it."""
        tensors = with_prefix("model", self.stage.context.model.state_dict())
        scaler = self.stage.context.reader.scaler
        if scaler is not None:
            tensors["scaler.mean"] = torch.from_numpy(scaler.mean)
            tensors["scaler.std"] = torch.from_numpy(scaler.std)
        state = {
            "stage": self.stage.name,
            "epoch": progress.epoch,
            "rows": progress.rows,
            "best": progress.best,
        }
        return tensors, self.provenance | state

    def recent(self, progress: Progress) -> Checkpoint:
        """Everything needed to continue training."""
        tensors, state = self.weights(progress)
        packed, state["optimizer_groups"] = pack_optimizer(self.optimizer)
        tensors |= with_prefix("optimizer", packed)
        if self.stage.extra is not None:
            tensors |= with_prefix("extra", self.stage.extra.state_dict())
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        state |= {
            "step": progress.step,
            "totals": progress.totals,
            "counted": progress.counted,
            "skipped": progress.skipped,
            "loss_scale": self.scaler.state_dict(),
        }
        return tensors, state

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> Progress:
        """Restore what :meth:`recent` packed."""
        self.stage.context.model.load_state_dict(under_prefix("model", tensors))
        if self.stage.extra is not None:
            self.stage.extra.load_state_dict(under_prefix("extra", tensors))
        packed = under_prefix("optimizer", tensors)
        unpack_optimizer(self.optimizer, packed, state["optimizer_groups"])
        self.scaler.load_state_dict(state["loss_scale"])
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        return Progress(
            rows=state["rows"],
            best=state["best"],
            epoch=state["epoch"],
            step=state["step"],
            totals=dict(state["totals"]),
            counted=state["counted"],
            skipped=state["skipped"],
        )
