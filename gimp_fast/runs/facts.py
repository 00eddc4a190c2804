"""What a checkpoint says of its model, beside its weights: the types that readers rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gimp_fast.errors import GimpError
from gimp_fast.runs.scores import ByModality, Fusion
from gimp_fast.validation import field_faults

# Control characters would reach the user's terminal.
Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class _Facts(BaseModel):
    """Other keys are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Rate(_Facts):
    value: float
    low: float
    high: float
    k: int = 0
    n: int = 0


class _Part(_Facts):
    accuracy: _Rate | None = None
    auc: _Rate | None = None


class _Counts(_Facts):
    n: dict[str, int] = {}


class _Scores(_Facts):
    val: _Part | None = None
    test: _Part | None = None


class _Metrics(_Scores):
    cohort: _Counts = _Counts()
    targets: dict[Text, _Scores] = {}
    fusion: Fusion | None = None
    by_modality: ByModality | None = None
    cautions: list[Text] = []


class _Expression(_Facts):
    column: Text | None = None


class _Cohort(_Facts):
    name: Text
    classes: list[Text]
    gene_ids: list[Text]
    gene_names: list[Text]
    gene_sets: dict[Text, list[int]] = {}
    expression: _Expression
    expression_transform: Text
    synthetic: bool = False
    fingerprint: Text
    split: Text
    encoder: Text | None
    mpp: float | None = Field(gt=0, lt=1e6)
    patch_size: int | None = Field(gt=0, lt=1e6)
    patch_order: Text


class _Training(_Facts):
    gimp_fast: Text | None = None
    precision: Text = "fp32"


class _OneTarget(_Facts):
    name: Text
    kind: Literal["class", "survival", "regression"]
    classes: list[Text] = []
    of_labels: bool = False


class _Target(_Facts):
    name: Text
    kind: Literal["class", "survival", "regression", "several"]
    targets: list[_OneTarget] = []


class _Checkpoint(_Facts):
    method: Text
    target: _Target | None = None
    gene_harmonise: Literal["none", "rank", "quantile"] = "none"
    model: dict[str, Any]
    cohort: _Cohort
    epoch: int | None = Field(default=None, ge=0, lt=1e9)
    metrics: _Metrics = _Metrics()
    training: _Training = _Training()


def check_facts(facts: dict[str, Any], source: Path) -> None:
    """GimpError, which names the key, unless the facts of a checkpoint have the expected types."""
    try:
        checked = _Checkpoint.model_validate(facts)
    except ValidationError as error:
        first = field_faults(error, _Checkpoint, "")[0]
        raise GimpError(
            f"{source}: found a checkpoint of another version of gimp_fast, or a damaged one: "
            f"{first.where.removeprefix(': ')}: found {first.found}; expected {first.expected}"
        ) from error
    cohort = checked.cohort
    if not cohort.classes and (checked.target is None or checked.target.kind == "class"):
        raise GimpError(f"{source}: found no class in the facts of the checkpoint; expected some")
    for name in ("classes", "gene_ids"):
        values = getattr(cohort, name)
        if len(set(values)) < len(values):
            raise GimpError(f"{source}: found a name twice in '{name}' of the checkpoint's facts")
    if len(cohort.gene_names) != len(cohort.gene_ids):
        raise GimpError(
            f"{source}: found {len(cohort.gene_names)} names of {len(cohort.gene_ids)} genes in "
            "the facts of the checkpoint; expected one each"
        )
