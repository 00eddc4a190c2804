"""Writes the folder of a run: its records, and TensorBoard events. ``records`` reads them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from gimp_fast.errors import GimpError
from gimp_fast.files.atomic import append_line, atomic_file, write_text
from gimp_fast.runs import layout
from gimp_fast.runs.events import Events
from gimp_fast.runs.records import CasePredictions, Embeddings, Epoch, Metrics, RunRecord


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder.
        wandb: project of Weights & Biases to log to as well; None logs to none.
    """

    def __init__(self, path: Path, wandb: str | None = None):
        self.path = Path(path)
        self._wandb_project, self._wandb_run = wandb, None
        self.config_file = self.path / layout.CONFIG
        self.metrics_file = self.path / layout.EPOCHS
        self.checkpoints = self.path / layout.CHECKPOINTS
        self._events: Events | None = None

    def checkpoint(self, name: str) -> Path:
        return layout.checkpoint_file(self.path, name)

    def begin_wandb(self, config: dict[str, Any]) -> None:
        """Start or continue the run on Weights & Biases; GimpError if wandb is not installed."""
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

    def write_config(self, text: str) -> None:
        """Write the resolved settings, as YAML."""
        write_text(self.config_file, text)

    def write_environment(self, facts: dict[str, Any]) -> None:
        write_text(self.path / layout.ENVIRONMENT, json.dumps(facts, indent=2) + "\n")

    def write_predictions(self, predictions: CasePredictions) -> None:
        write_text(self.path / layout.PREDICTIONS, predictions.to_csv())

    def write_embeddings(self, embeddings: Embeddings) -> None:
        with atomic_file(self.path / layout.EMBEDDINGS) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **embeddings.arrays())

    def write_metrics(self, metrics: Metrics) -> None:
        """Write the metrics, which come last: a folder that has them is finished."""
        write_text(self.path / layout.METRICS, metrics.to_json(indent=2) + "\n")

    def write_record(self, record: RunRecord) -> None:
        """Mark the run as a finished run of an experiment."""
        write_text(self.path / layout.RECORD, record.to_json(indent=2) + "\n")

    def keep_metrics(self, rows: int) -> None:
        """Keep the first `rows` epochs; the checkpoint was written before the others."""
        file = self.metrics_file
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = text.splitlines(keepends=True)
        if len(lines) < rows:
            raise GimpError(
                f"{file}: found {len(lines)} rows; expected at least {rows}, as many "
                "as there were when the checkpoint was written"
            )
        if lines[rows:]:
            write_text(file, "".join(lines[:rows]))

    def append_metrics(self, row: dict[str, Any], step: int) -> None:
        """Record an epoch, the `step`-th of the run; on disk before a checkpoint relies on it."""
        epoch = Epoch.model_validate(row)
        append_line(self.metrics_file, epoch.to_json())
        if self._events is None:
            self._events = Events(self.path / layout.TENSORBOARD, step)
        values = {
            f"{epoch.stage}/{name}/{part}": value
            for part, scores in (("train", epoch.train), ("val", epoch.val))
            for name, value in scores.items()
        }
        values[f"{epoch.stage}/lr"] = epoch.lr
        for name, value in values.items():
            self._events.add(name, value, step)
        if self._wandb_run is not None:
            self._wandb_run.log(values, step=step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()
