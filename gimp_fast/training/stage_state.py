"""The contents of a stage's checkpoints: its progress, and the state of everything that changes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from gimp_fast.runs.checkpoint import (
    pack_optimizer,
    under_prefix,
    unpack_optimizer,
    with_prefix,
)
from gimp_fast.targets.base import Scores
from gimp_fast.training.stage import Stage

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass
class Progress:
    """How far a stage has come."""

    rows: int  # of metrics, of the whole run
    best: dict[str, Any] | None = None  # the best epoch so far and its validation scores
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the next epoch
    totals: Scores = field(default_factory=dict)  # sums over the patients of those steps
    counted: int = 0  # number of these patients
    skipped: int = 0  # steps of the epoch that were left out

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
    """Packs the state of a stage, and ``provenance``, into checkpoints, and unpacks it."""

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
            tensors |= scaler.tensors()
        slide_scaler = self.stage.context.reader.slide_scaler
        if slide_scaler is not None:
            tensors |= slide_scaler.tensors()
        covariates = self.stage.context.reader.covariates
        if covariates is not None:
            tensors |= covariates.tensors()
        kept = {name: getattr(progress, name) for name in ("epoch", "rows", "best")}
        return tensors, self.provenance | {"stage": self.stage.name} | kept

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
        return tensors, state | vars(progress) | {"loss_scale": self.scaler.state_dict()}

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
        return Progress(**{field.name: state[field.name] for field in fields(Progress)})
