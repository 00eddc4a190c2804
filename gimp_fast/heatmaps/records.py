"""What records of explanations say of the model that they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xxhash

from gimp_fast import __version__
from gimp_fast.data import Cohort
from gimp_fast.heatmaps.one_target import OneTarget
from gimp_fast.heatmaps.protocols import ExplainedModel


def facts_of(trained: ExplainedModel, cohort: Cohort) -> dict[str, Any]:
    """The model and the target, for people."""
    return {
        "method": trained.method,
        "source": str(trained.source),
        "trained_on": trained.trained_on.get("name"),
        "synthetic": trained.synthetic or cohort.synthetic,
        "classes": list(trained.classes),
        **_target(trained),
    }


def made_by(trained: ExplainedModel, attribution: str) -> dict[str, str]:
    """What weights depend on: records that agree in it are of the same weights."""
    return {
        "gimp_fast": __version__,
        "weights": _digest(trained.model),
        "attribution": attribution,
        **_target(trained),
    }


def _target(trained: ExplainedModel) -> dict[str, str]:
    """Which of several targets is explained."""
    return {"target": trained.name} if isinstance(trained, OneTarget) else {}


def _digest(model: torch.nn.Module) -> str:
    digest = xxhash.xxh3_64()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()))
    return digest.hexdigest()
