"""What a checkpoint says of its model, beside its weights: the types that readers rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gimp_fast.errors import GimpError

_Positive = Field(default=None, gt=0)


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


class _Metrics(_Facts):
    cohort: _Counts = _Counts()
    val: _Part | None = None
    test: _Part | None = None


class _Expression(_Facts):
    column: str | None = None


class _Cohort(_Facts):
    name: str
    classes: list[str] = Field(min_length=1)
    gene_ids: list[str]
    gene_names: list[str]
    gene_sets: dict[str, list[int]] = {}
    expression: _Expression = _Expression()
    expression_transform: str | None = None
    synthetic: bool = False
    fingerprint: str | None = None
    split: str | None = None
    encoder: str | None = None
    mpp: float | None = _Positive
    patch_size: int | None = _Positive
    patch_order: str | None = None


class _Training(_Facts):
    gimp_fast: str | None = None
    precision: str = "fp32"


class _Checkpoint(_Facts):
    method: str
    model: dict[str, Any]
    cohort: _Cohort
    epoch: int | None = None
    metrics: _Metrics = _Metrics()
    training: _Training = _Training()


def check_facts(facts: dict[str, Any], source: Path) -> None:
    """GimpError, which names the key, unless the facts of a checkpoint have the expected types."""
    try:
        checked = _Checkpoint.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = "nothing" if first["type"] == "missing" else ascii(first["input"])[:80]
        raise GimpError(
            f"{source}: found a checkpoint of another version of gimp_fast, or a damaged one: "
            f"found {found} as '{key}' ({first['msg'].lower()})"
        ) from error
    cohort = checked.cohort
    for name in ("classes", "gene_ids"):
        values = getattr(cohort, name)
        if len(set(values)) < len(values):
            raise GimpError(f"{source}: found a name twice in '{name}' of the checkpoint's facts")
    if len(cohort.gene_names) != len(cohort.gene_ids):
        raise GimpError(
            f"{source}: found {len(cohort.gene_names)} names of {len(cohort.gene_ids)} genes in "
            "the facts of the checkpoint; expected one each"
        )
