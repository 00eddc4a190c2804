"""Writes the folder of a run: metrics of every epoch, TensorBoard events, tables and arrays."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import append_line, atomic_file, write_text
from gimp_fast.runs import layout


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder.
        wandb: project of Weights & Biases to log to as well; None logs to none.

    Attributes:
        path: the folder.
        config_file, metrics_file, checkpoints: paths in it.
    """

    def __init__(self, path: Path, wandb: str | None = None):
        self.path = Path(path)
        self._wandb_project, self._wandb_run = wandb, None
        self.config_file = self.path / layout.CONFIG
        self.metrics_file = self.path / layout.EPOCHS
        self.checkpoints = self.path / layout.CHECKPOINTS
        self._events = None

    def checkpoint(self, name: str) -> Path:
        return layout.checkpoint_file(self.path, name)

    def begin_wandb(self, config: dict[str, Any]) -> None:
        """Start or continue the run's record there; GimpError if wandb is not installed."""
        if self._wandb_project is None:
            return
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise GimpError("wandb: not installed; pip install wandb, or leave it out") from error
        self._wandb_run = wandb.init(
            project=self._wandb_project,
            name=self.path.name,
            dir=str(self.path.parent),
            config=config,
            resume="allow",
            id=hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12],
        )

    def write_text(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def write_table(self, name: str, header: list[str], rows: list[list]) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self.write_text(name, buffer.getvalue())

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        with atomic_file(self.path / name) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def keep_metrics(self, rows: int) -> None:
        """Drop the rows after the first `rows`: epochs that the checkpoint does not hold."""
        lines = []
        if self.metrics_file.exists():
            lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        if len(lines) < rows:
            raise GimpError(
                f"{self.metrics_file}: found {len(lines)} rows; expected the {rows} that the "
                "checkpoint was written after"
            )
        if lines[rows:]:
            self.write_text(layout.EPOCHS, "".join(lines[:rows]))

    def append_metrics(self, row: dict[str, Any], step: int) -> None:
        """Record an epoch, the `step`-th of the run; on disk before a checkpoint counts on it."""
        append_line(self.metrics_file, json.dumps(row))
        # Imported here: TensorBoard takes a second that no `--help` should wait for.
        from torch.utils.tensorboard import SummaryWriter

        if self._events is None:
            self._events = SummaryWriter(self.path / layout.TENSORBOARD, purge_step=step)
        for part in ("train", "val"):
            for name, value in row[part].items():
                self._events.add_scalar(f"{row['stage']}/{name}/{part}", value, step)
        self._events.add_scalar(f"{row['stage']}/lr", row["lr"], step)
        if self._wandb_run is not None:
            values = {
                f"{row['stage']}/{k}/{p}": v for p in ("train", "val") for k, v in row[p].items()
            }
            self._wandb_run.log(values | {f"{row['stage']}/lr": row["lr"]}, step=step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()
