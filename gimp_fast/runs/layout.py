"""The names of everything in a run folder, an exported model, and a folder of heatmaps.

No other room spells one of these names.
"""

from __future__ import annotations

from pathlib import Path

# A run folder.
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
EPOCHS = "metrics.jsonl"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
EMBEDDINGS = "embeddings.npz"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
PROFILE = "profile"
FIGURES = "figures"
REPORT = "report.html"
HEATMAPS = "heatmaps"

# What an experiment adds to the folder of one of its runs.
RECORD = "run.json"
LOG = "log.txt"
ERROR = "error.txt"

# An exported model.
WEIGHTS = "model.safetensors"
EXPORT_CONFIG = "config.json"
GENES = "genes.csv"
CARD = "README.md"
CHECKSUMS = "checksums.txt"

# A folder of heatmaps.
MAPS = "heatmaps.json"
SLIDE_MAP = "slide.json"
GENE_MAP = "genes.json"
GENE_MAPS = "genes"

# Of a checkpoint's JSON and its checksum, in the header of its safetensors file.
STATE_KEY = "gimp_fast"
CHECKSUM_KEY = "xxh3"


def checkpoint_file(run: Path, name: str) -> Path:
    """A stage's checkpoint, or ``"last"``, in a run folder."""
    return run / CHECKPOINTS / f"{name}.safetensors"


def recent_file(checkpoints: Path, age: int) -> Path:
    """The newest training state (age 0), or an older one that was kept."""
    return checkpoints / f"last{f'-{age}' if age else ''}.safetensors"
