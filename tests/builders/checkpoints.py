"""Facts of checkpoints that no training has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gimp_fast.models import PatientModel


def facts_of(
    method: str,
    model: PatientModel,
    classes: Sequence[str],
    genes: Sequence[str] = (),
    gene_sets: Mapping[str, list[int]] | None = None,
) -> dict[str, Any]:
    """All that a checkpoint says of its model, of a cohort called ``untrained``."""
    cohort = {
        "name": "untrained", "synthetic": True, "fingerprint": "0", "split": "split_0",
        "classes": list(classes), "gene_ids": list(genes), "gene_names": list(genes),
        "gene_sets": dict(gene_sets or {}), "expression": {}, "expression_transform": "none",
        "encoder": None, "mpp": None, "patch_size": None, "patch_order": "file",
    }  # fmt: skip
    return {"method": method, "model": model.config.model_dump(mode="json"), "cohort": cohort}
