"""What the steps of all stages share: the optimiser, its learning rate, and where time goes."""

from __future__ import annotations

import math
import time

import torch

from gimp_fast.training.stage import Stage
from gimp_fast.training.stage_settings import StageSettings


def learning_rate(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine from the peak to zero over the remaining epochs."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    total = settings.epochs * steps_per_epoch
    progress = (step - warmup) / max(total - warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def adamw(stage: Stage) -> torch.optim.AdamW:
    """Fused AdamW; weight decay applies to matrices only. Covariates have a rate of their own."""
    settings, head = stage.settings, stage.context.model.covariate_head
    of_covariates = set() if head is None else {id(p) for p in head.parameters()}
    groups = []
    for own, rate in ((False, settings.lr), (True, getattr(settings, "covariate_lr", 0.0))):
        parameters = [p for p in stage.parameters() if (id(p) in of_covariates) == own]
        if own and not parameters:
            continue
        shared = {"lr": rate, "times_lr": rate / settings.lr}
        matrices = [p for p in parameters if p.dim() >= 2]
        others = [p for p in parameters if p.dim() < 2]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, **shared})
        groups.append({"params": others, "weight_decay": 0.0, **shared})
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of a step; that of covariates is a multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("times_lr", 1.0)


class StepTimes:
    """Seconds of an epoch by phase, e.g. data, forward, backward, optimizer.

    A GPU works asynchronously: its phases are measured by events in its queue and added up at the
    end of the epoch, so that nothing waits for it. ``data`` is the time the program waits for data.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, float, torch.cuda.Event | None]] = []
        self._seconds: dict[str, float] = {}

    def begin(self) -> None:
        """Start the phase that the next ``mark`` ends."""
        self._marks.append(("", time.perf_counter(), self._event()))

    def mark(self, phase: str) -> None:
        """End a phase and start the next."""
        self._marks.append((phase, time.perf_counter(), self._event()))
        if not self._cuda:
            self._add_up()

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far."""
        if self._cuda:
            torch.cuda.synchronize()
        self._add_up()
        return {phase: round(seconds, 4) for phase, seconds in self._seconds.items()}

    def _event(self) -> torch.cuda.Event | None:
        if not self._cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add_up(self) -> None:
        for (_, start, begun), (phase, end, done) in zip(
            self._marks[:-1], self._marks[1:], strict=True
        ):
            if phase:
                taken = end - start
                if begun is not None and phase != "data":
                    taken = begun.elapsed_time(done) / 1e3
                self._seconds[phase] = self._seconds.get(phase, 0.0) + taken
        del self._marks[:-1]
