"""Runs the epochs of one stage: steps, checkpoints, stop requests, and steps that diverge."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gimp_fast.errors import GimpError, StoppedError
from gimp_fast.files.progress import Progress as ProgressBar
from gimp_fast.runs import layout
from gimp_fast.runs.checkpoint import RecentCheckpoints, save_checkpoint
from gimp_fast.runs.folder import RunFolder
from gimp_fast.targets.base import Scores
from gimp_fast.training.distributed import Share, parallel
from gimp_fast.training.divergence import patients_of_step
from gimp_fast.training.graphs import recorded_steps
from gimp_fast.training.loader import (
    BatchLoader,
    StepPlan,
    ahead_on_device,
    num_batches,
    plan_epoch,
)
from gimp_fast.training.stage import Stage, StageModule
from gimp_fast.training.stage_state import Checkpoint, Progress, StageState
from gimp_fast.training.steps import StepTimes, adamw, learning_rate, set_rate
from gimp_fast.training.stops import INTERRUPT, StopRequests

Log = Callable[[str], None]


class StageRun:
    """Trains one stage, the ``number``-th of its run.

    ``provenance`` are facts that every checkpoint stores, ``rows`` the rows of metrics written so
    far, ``workers`` the reading processes.
    """

    def __init__(
        self,
        stage: Stage,
        number: int,
        folder: RunFolder,
        provenance: dict[str, Any],
        rows: int,
        stops: StopRequests,
        workers: int,
        log: Log,
    ):
        self.stage, self.number, self.folder = stage, number + stage.number_shift, folder
        self.stops, self.log = stops, log
        self.context, self.settings = stage.context, stage.settings
        context = stage.context
        self.config, self.ranks, self.device = context.config, context.ranks, context.device
        if not stage.train_cases or not stage.val_cases:
            raise GimpError(
                f"stage '{stage.name}': found {len(stage.train_cases)} training and "
                f"{len(stage.val_cases)} validation patients that it can use; expected some"
            )
        stage.train_mode()
        self.optimizer = adamw(stage)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.config.precision == "fp16"
        )
        module = parallel(
            StageModule(stage), self.ranks, self.device, some_unused=stage.leaves_unused
        )
        self.losses = torch.compile(module) if self.config.compile else module
        self.recorded = recorded_steps(stage, self._losses_and_gradients, log)
        self.loader = BatchLoader(stage.fetcher(), workers, self.device.type == "cuda")
        self.recent = RecentCheckpoints(folder.checkpoints, self.config.keep_checkpoints)
        self.steps = num_batches(len(stage.train_cases), self.settings.batch_size)
        self.state = StageState(stage, self.optimizer, self.scaler, provenance)
        self.progress = Progress(rows)
        self._stop_asked, self._save_due = False, False
        self._saved_at = time.perf_counter()

    def run(self, resumed: Checkpoint | None) -> dict[str, Any]:
        """Train the remaining epochs; returns the state of the last checkpoint.

        Raises:
            StoppedError: a signal asked to stop; the state is saved.
            KeyboardInterrupt: Ctrl-C; the state is saved, unless it came twice.
            GimpError: the loss is not finite, a slide cannot be read, or the disk is full.
        """
        if resumed is not None:
            self.progress = self.state.restore(*resumed)
        stage, epochs, first = self.stage, self.settings.epochs, self.progress.epoch
        began, row = time.perf_counter(), None
        done = first * self.steps + self.progress.step
        shown = self.ranks.writes and first < epochs
        bar = ProgressBar(stage.name, epochs * self.steps, "step", done=done, shown=shown)
        with bar, self._profiler() as profiler, self.stops.on_interrupt():
            for epoch in range(first + 1, epochs + 1):
                row = self._epoch(epoch, bar, profiler)
                self._end_epoch(epoch, row)
        if row is not None:
            kept = f"keeps epoch {self.progress.best['epoch']}, " if stage.keeps_best else ""
            scores = self.progress.best["val"] if stage.keeps_best else row["val"]
            self.log(
                f"{stage.name}: {epochs} epoch{'' if epochs == 1 else 's'} on "
                f"{len(stage.train_cases)} patients, "
                f"{kept}validation {scores_text(scores)}  [{time.perf_counter() - began:.0f} s]"
            )
        return {"stage": stage.name, "epoch": epochs, "rows": self.progress.rows}

    def _epoch(self, epoch: int, bar: ProgressBar, profiler: Any) -> dict[str, Any]:
        stage, settings = self.stage, self.settings
        seeds = [self.config.seed, self.number, epoch]
        if self.progress.step == 0:
            # All randomness of an epoch starts here, so that a resumed run repeats it.
            torch.manual_seed(int(np.random.default_rng([*seeds, 1]).integers(2**62)))
            self.progress.begin_epoch()
        stage.train_mode()
        plans = plan_epoch(
            stage.train_cases,
            settings.batch_size,
            seeds,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
            first_step=self.progress.step,
        )
        began = time.perf_counter()
        times = StepTimes(self.device)
        times.begin()
        lr = 0.0
        for plan, batch in zip(
            plans, ahead_on_device(self.loader(plans), self.device), strict=True
        ):
            times.mark("data")
            lr = learning_rate(settings, (epoch - 1) * self.steps + plan.step, self.steps)
            self._step(plan, batch, lr, times)
            self.progress.step = plan.step + 1
            profiler.step()
            bar.update(note=self._progress_text(epoch))
            if self.progress.step < self.steps and (self._stop_asked or self._save_due):
                self._save_recent()
                if self._stop_asked:
                    self._stop(epoch)
            times.begin()
        val_scores = stage.validate()
        self._check_validation(val_scores)
        row = {
            "stage": stage.name,
            "epoch": epoch,
            "train": self.progress.scores(),
            "val": val_scores,
            "lr": lr,
            "seconds": round(time.perf_counter() - began, 3),
            "times": times.seconds(),
        }
        return row | ({"skipped_steps": self.progress.skipped} if self.progress.skipped else {})

    def _end_epoch(self, epoch: int, row: dict[str, Any]) -> None:
        stage, progress = self.stage, self.progress
        scores, best = row["val"], progress.best
        improved = best is None or stage.rank(scores) > stage.rank(best["val"])
        if improved:
            progress.best = {"epoch": epoch, "val": scores}
        progress.rows += 1
        progress.epoch, progress.step = epoch, 0
        if self.ranks.writes:
            self.folder.append_metrics(row, progress.rows)
            if improved if stage.keeps_best else epoch == self.settings.epochs:
                save_checkpoint(self.folder.checkpoint(stage.name), *self.state.weights(progress))
        self._save_recent()
        self._sum_over_ranks({})
        if self._stop_asked:
            self._stop(epoch)

    def _step(self, plan: StepPlan, batch: Any, lr: float, times: StepTimes) -> None:
        set_rate(self.optimizer, lr)
        share = Share(self.ranks, plan.total)
        if self.recorded is not None:
            losses = self.recorded(batch, share)  # both passes count as "backward"
        else:
            losses = self.losses(batch, share)
            times.mark("forward")
            self._backward(losses["loss"])
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.stage.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]).to(self.device)
        # Everything is read at once: the only time that a step waits for a GPU.
        numbers = [*(loss.detach() for loss in losses.values()), norm]
        *shares, length = torch.stack([number.double() for number in numbers]).tolist()
        values = self._sum_over_ranks(dict(zip(losses, shares, strict=True)))
        times.mark("backward")
        if not math.isfinite(values["loss"]):
            self.scaler.update()
            self._diverged(plan, f"a loss of {values['loss']}")
            return
        if math.isfinite(length):
            if self.settings.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        elif not self.scaler.is_enabled():
            self._diverged(plan, f"a gradient of norm {length}")
            return
        else:
            self.progress.skipped += 1  # fp16 overflow: the scaler reduces its scale
        self.scaler.step(self.optimizer)
        self.scaler.update()
        times.mark("optimizer")
        self.progress.count(values, plan.total)

    def _backward(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel averages over ranks; the gradients must be summed.
        self.scaler.scale(loss * self.ranks.size).backward()

    def _losses_and_gradients(self, batch: Any, share: Share) -> dict[str, Tensor]:
        losses = self.losses(batch, share)
        self._backward(losses["loss"])
        return {name: loss.detach() for name, loss in losses.items()}

    def _sum_over_ranks(self, shares: Scores) -> Scores:
        """Sums of the shares of all ranks.

        The same all-gather carries two flags: a rank was asked to stop, and rank 0's clock says
        that a checkpoint is due. So all ranks stop and save at the same step.
        """
        minutes = (time.perf_counter() - self._saved_at) / 60
        due = self.ranks.writes and 0 < self.config.save_minutes < minutes
        flags = [float(self.stops.requested is not None), float(due)]
        *values, asked, due = self.ranks.sum([*shares.values(), *flags])
        self._stop_asked, self._save_due = asked > 0, due > 0
        return dict(zip(shares, values, strict=True))

    def _diverged(self, plan: StepPlan, what: str) -> None:
        """Stop the run or leave the step out, as configured; the same on every rank."""
        message = (
            f"stage '{self.stage.name}', step {plan.step}: found {what} where a finite one was "
            f"expected, on {patients_of_step(self.context, plan.case_ids)}"
        )
        self.stage.train_mode()
        if self.config.on_nonfinite == "stop":
            raise GimpError(
                f"{message}. A lower lr or clip_norm may help, or --set on_nonfinite=skip."
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.skipped += 1
        self.log(f"warning: {message}; the step was left out")

    def _check_validation(self, scores: Scores) -> None:
        if not math.isfinite(scores["loss"]):
            cases = self.stage.val_cases
            more = f" and {len(cases) - 5} more" if len(cases) > 5 else ""
            raise GimpError(
                f"stage '{self.stage.name}': found a validation loss of {scores['loss']} on "
                f"patients {', '.join(cases[:5])}{more}; expected a finite one. A lower lr or "
                "clip_norm may help."
            )

    def _stop(self, epoch: int) -> None:
        reason = next(filter(None, self.ranks.gather(self.stops.requested)), "a signal")
        kind = KeyboardInterrupt if reason == INTERRUPT else StoppedError
        raise kind(
            f"stopped by {reason} in {self.stage.name} epoch {epoch}; the state is saved. Continue "
            "with --resume."
        )

    def _save_recent(self) -> None:
        self._saved_at = time.perf_counter()
        if self.ranks.writes:
            self.recent.save(*self.state.recent(self.progress))

    def _progress_text(self, epoch: int) -> str:
        loss = self.progress.scores().get("loss", math.nan)
        best = self.progress.best
        best = f", best epoch {best['epoch']}" if best else ""
        return f"epoch {epoch}, loss {loss:.3f}{best}, {memory_text(self.device)}"

    @contextlib.contextmanager
    def _profiler(self):
        """The profiler of the first steps if configured; otherwise one that does nothing."""
        if not self.config.profile or not self.ranks.writes:
            yield SimpleNamespace(step=lambda: None)
            return
        from torch.profiler import profile, schedule, tensorboard_trace_handler

        target = str(self.folder.path / layout.PROFILE / self.stage.name)
        plan = schedule(wait=1, warmup=1, active=self.config.profile, repeat=1)
        with profile(
            schedule=plan, on_trace_ready=tensorboard_trace_handler(target), profile_memory=True
        ) as profiler:
            yield profiler


def scores_text(scores: Scores) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def memory_text(device: torch.device) -> str:
    """Memory in use, for the progress line."""
    if device.type == "cuda":
        return f"{torch.cuda.memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
