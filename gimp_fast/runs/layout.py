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
EXPORT_FILES = (WEIGHTS, EXPORT_CONFIG, GENES, CARD, CHECKSUMS)
ENSEMBLE = "ensemble.json"  # beside the folders of several exported models

# A folder of heatmaps: the summary, and the folder of all patients' genes.
MAPS = "heatmaps.json"
GENE_MAPS = "genes"
# What `heatmap --check` adds to it.
FAITHFULNESS = "faithfulness.json"
FAITHFULNESS_TABLE = "faithfulness.csv"
FAITHFULNESS_PAGE = "faithfulness.html"
# The folder of a slide, and the record that is written when it is complete.
SLIDE_MAP = "slide.json"
PATCH_TABLE = "patches.csv"
TOP_TABLE = "top.csv"
OVERLAY = "overlay.png"
THUMBNAIL = "thumbnail.png"
MONTAGE = "top.png"
GEOJSON = "patches.geojson"
VIEW_PAGE = "view.html"
# The folder of a patient's genes, which holds a table named as that of an export, and its record.
GENE_MAP = "genes.json"
GENE_BARS = "genes.png"

# Of a checkpoint's JSON and its checksum, in the header of its safetensors file.
STATE_KEY = "gimp_fast"
CHECKSUM_KEY = "xxh3"


def faithfulness_figure(kind: str) -> str:
    """The stem of the figure of patches or of genes, beside the page of a check."""
    return f"faithfulness-{kind}"


def member_name(number: int | str) -> str:
    """The folder of a member of an ensemble; of ``"*"``, the pattern of all."""
    return f"member_{number}"


def checkpoint_file(run: Path, name: str) -> Path:
    """A stage's checkpoint, or ``"last"``, in a run folder."""
    return run / CHECKPOINTS / f"{name}.safetensors"


def recent_file(checkpoints: Path, age: int) -> Path:
    """The newest training state (age 0), or an older one that was kept."""
    return checkpoints / f"last{f'-{age}' if age else ''}.safetensors"
