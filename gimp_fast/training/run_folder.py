"""The run folder: configuration, environment, metrics of every epoch, TensorBoard events."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from gimp_fast import __version__
from gimp_fast.errors import GimpError
from gimp_fast.training.checkpoint import write_atomically
from gimp_fast.training.config import TrainConfig, first_difference, read_yaml, validate_config
from gimp_fast.training.distributed import ALONE, Ranks

_RECORDED_PACKAGES = ("torch", "triton", "numpy", "h5py", "scikit-learn", "safetensors")


class RunFolder:
    """A folder of one run; see the attributes for what is where.

    Attributes:
        path: the folder.
        config_file, metrics_file, checkpoints: paths in it.
    """

    def __init__(self, path: Path, wandb: str | None = None):
        self.path = Path(path)
        self._wandb_project, self._wandb_run = wandb, None
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self._events = None

    def checkpoint(self, name: str) -> Path:
        return self.checkpoints / f"{name}.safetensors"

    def check(self, config: TrainConfig, *, resume: bool) -> None:
        """Refuse a folder that cannot take a run of `config`; writes nothing.

        Raises:
            GimpError: it holds a run and `resume` is off, or a run of another configuration.
        """
        if not self.config_file.exists():
            return
        if not resume:
            raise GimpError(
                f"{self.path}: holds a run already; choose another --out, or --resume it"
            )
        difference = first_difference(self.saved_config(), config)
        if difference:
            raise GimpError(
                f"{self.config_file}: the run to resume has another configuration: "
                f"{difference} (saved, asked for)"
            )

    def begin(self, config: TrainConfig, *, resume: bool, ranks: Ranks = ALONE) -> None:
        """Claim the folder for a run of `config`; errors as :meth:`check`."""
        self.check(config, resume=resume)
        self._begin_wandb(config)
        if self.config_file.exists():
            return
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        self.write_text("environment.json", json.dumps(environment(config, ranks), indent=2) + "\n")
        self.write_text("config.yaml", text)

    def _begin_wandb(self, config: TrainConfig) -> None:
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
            config=config.model_dump(mode="json"),
            resume="allow",
            id=hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:12],
        )

    def saved_config(self) -> TrainConfig:
        return validate_config(read_yaml(self.config_file), str(self.config_file))

    def write_text(self, name: str, text: str) -> None:
        write_atomically(self.path / name, lambda file: file.write_text(text, encoding="utf-8"))

    def write_table(self, name: str, header: list[str], rows: list[list]) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self.write_text(name, buffer.getvalue())

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)

        write_atomically(self.path / name, write)

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
            self.write_text("metrics.jsonl", "".join(lines[:rows]))

    def append_metrics(self, row: dict[str, Any], step: int) -> None:
        """Record an epoch, the `step`-th of the run; on disk before a checkpoint counts on it."""
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GimpError(f"{self.metrics_file}: cannot be written ({error})") from error
        # Imported here: TensorBoard takes a second that no `--help` should wait for.
        from torch.utils.tensorboard import SummaryWriter

        if self._events is None:
            self._events = SummaryWriter(self.path / "tensorboard", purge_step=step)
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


def memory_text(device: torch.device) -> str:
    """Memory held now, for a progress line."""
    if device.type == "cuda":
        return f"{torch.cuda.memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def config_hash(config: TrainConfig) -> str:
    """sha256 of the resolved configuration, without where its cohort lies."""
    values = config.model_dump(mode="json", exclude={"data"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()


def git_revision() -> str | None:
    """Revision of the sources this package runs from, where it runs from a checkout of them."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def environment(config: TrainConfig, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Versions, hardware and configuration of this process."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "gimp_fast": __version__,
        "git_revision": git_revision(),
        "config_sha256": config_hash(config),
        "command": sys.argv,
        "ranks": ranks.size,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda,
    }
