"""What ``--tune`` may change of each method: ranges around what its authors published.

Every method gets the same number of trials over its own space. Spaces are small, so that a handful
of trials covers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gimp_fast.experiments.rows import BOTH, LOGISTIC_REGRESSION, RIDGE_COX, RNA, SLIDES, Row
from gimp_fast.training import TrainConfig
from gimp_fast.training.stages import stages_of


@dataclass(frozen=True)
class LogRange:
    """A number between two, as likely between 1 and 2 as between 2 and 4."""

    low: float
    high: float


Space = dict[str, LogRange | tuple[Any, ...]]  # setting -> its range, or its values

_SELECT: Space = {"finetune.select": ("loss", None)}  # None is the first score of the target
_DECAY: Space = {"finetune.weight_decay": LogRange(1e-3, 0.3)}
# Deep models of bags: published learning rates lie between 1e-4 and 5e-4.
_SLIDES: Space = {
    "finetune.lr": LogRange(1e-4, 2e-3),
    "finetune.epochs": (15, 30),
    **_DECAY,
    **_SELECT,
}
_GENES: Space = {
    "finetune.lr": LogRange(1e-4, 5e-3),
    "finetune.epochs": (20, 40),
    "finetune.noise": (0.0, 0.7),
    **_DECAY,
    **_SELECT,
}
# Published from scratch: 2e-4 (PORPOISE, MCAT), 5e-4 (SurvPath) to 2e-3 (Pathomic Fusion), mostly
# for 20 or 30 epochs.
_FUSED: Space = {
    "finetune.lr": LogRange(1e-4, 2e-3),
    "finetune.epochs": (20, 40),
    "finetune.noise": (0.0, 0.7),
    "model.dropout": (0.25, 0.5),
    **_DECAY,
    **_SELECT,
}
_PRETRAINED: Space = {
    "pretrain.lr": LogRange(1e-4, 2e-3),
    "pretrain.epochs": (10, 30),
    "finetune.lr": LogRange(1e-4, 2e-3),
    "finetune.epochs": (15, 30),
    "model.gene_dropout": (0.1, 0.3),
    **_SELECT,
}
SPACES: dict[str, Space] = {
    "mean_pool": _SLIDES | {"finetune.lr": LogRange(1e-3, 3e-2)},
    "abmil": _SLIDES | {"model.dim": (128, 512), "model.dropout": (0.0, 0.25)},
    "dsmil": _SLIDES,
    "clam_sb": _SLIDES | {"model.dim": (128, 512)},
    "clam_mb": _SLIDES | {"model.dim": (128, 512)},
    "transmil": _SLIDES | {"model.dim": (64, 512)},
    "snn": _GENES | {"model.hidden": (64, 256), "model.dropout": (0.25, 0.5)},
    "porpoise": _FUSED,
    "pathomic_fusion": _FUSED | {"genes.lr": LogRange(3e-4, 3e-3)},
    "mcat": _FUSED,
    "survpath": _FUSED | {"model.dropout": (0.1, 0.25)},
    "mgca": _PRETRAINED,
    "biovil": _PRETRAINED,
    "refers": _PRETRAINED,
    "gimp": {
        "genes.lr": LogRange(3e-4, 3e-3),
        "pretrain.lr": LogRange(1e-4, 2e-3),
        "finetune.lr": LogRange(1e-4, 2e-3),
        "finetune.epochs": (15, 30),
        "finetune.modality_dropout": (0.0, 0.3),
        "model.gene_projection": ("shared", "own"),
    },
    LOGISTIC_REGRESSION: {"strength": LogRange(1e-3, 1.0)},
    RIDGE_COX: {"strength": LogRange(0.03, 30.0)},
}
GROUPS: Space = {"gene_groups": ("sets", "consecutive")}  # of GiMP, if the cohort has gene sets
COVARIATES: Space = {"finetune.covariate_lr": LogRange(3e-3, 0.1)}  # of whatever reads some
# Of whatever reads slides, in a cohort that knows its hospitals.
SITES: Space = {"site_shrinkage": (None, 10.0)}


def space_of(
    row: Row, config: TrainConfig | None, *, has_sites: bool, has_gene_sets: bool = False
) -> Space:
    """What can be changed of a row; a method that is not in the table has a model of bags.

    Args:
        row: of a table.
        config: its configuration without changes; None for a plain baseline.
        has_sites: whether hospitals of the cohort can be compared.
        has_gene_sets: whether its genes come in sets.
    """
    space = SPACES.get(row.method, _SLIDES)
    if has_gene_sets and row.method == "gimp" and row.modalities in (RNA, BOTH):
        space = space | GROUPS
    if has_sites and row.modalities in (SLIDES, BOTH):
        space = space | SITES
    if config is None:
        return space
    if row.covariates:
        space = space | COVARIATES
    stages = {stage.name for stage in stages_of(config)}

    def matters(setting: str) -> bool:
        section, _, name = setting.partition(".")
        if section == "model":
            return row.modalities != SLIDES or not name.startswith("gene_")
        if name == "modality_dropout":
            return row.modalities == BOTH or row.covariates
        if name == "noise":  # on genes that this stage trains on
            return not config.model_class.supervised_genes
        return not name or section in stages

    fixed = {override.partition("=")[0] for override in row.overrides}
    return {key: values for key, values in space.items() if key not in fixed and matters(key)}
