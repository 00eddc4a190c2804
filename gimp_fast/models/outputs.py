"""One forward pass, in the precision of a run, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from gimp_fast.models.base import PatientModel


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for forward passes; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype)


@torch.no_grad()
def outputs_of(
    model: PatientModel, inputs: Mapping[str, Any], device: torch.device, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (B, classes) and representations (B, ·) of one batch, both float32."""
    with autocast(device, precision):
        representation = model.represent(**inputs)
        logits = model.classify(representation)
    probabilities = logits.float().softmax(-1).cpu().numpy()
    return probabilities, representation.float().cpu().numpy()
