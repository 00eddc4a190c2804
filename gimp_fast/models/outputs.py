"""One forward pass in the precision of a run, and its results as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch

from gimp_fast.models.base import PatientModel, Representation
from gimp_fast.models.inputs import PatientInputs, Presence


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model makes of B patients.

    Attributes:
        probabilities: (B, classes) float32.
        vectors: (B, ·) float32, what the model classifies (CLS_pat in GiMP).
        has_slide, has_genes: (B,) bool, what the model saw of each.
    """

    probabilities: np.ndarray
    vectors: np.ndarray
    has_slide: np.ndarray
    has_genes: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """Those of several batches, in order."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def representation(self, device: torch.device) -> Representation:
        """What :meth:`gimp_fast.models.PatientModel.classify` takes."""
        vectors = torch.from_numpy(self.vectors).to(device)
        who = (Presence.of(flags.tolist(), device) for flags in (self.has_slide, self.has_genes))
        return Representation(vectors, *who)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for forward passes; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype)


@torch.no_grad()
def outputs_of(
    model: PatientModel, inputs: PatientInputs, device: torch.device, precision: str
) -> Outputs:
    """The outputs of one batch."""
    with autocast(device, precision):
        representation = model.represent(inputs)
        logits = model.classify(representation)
    return Outputs(
        logits.float().softmax(-1).cpu().numpy(),
        representation.vectors.float().cpu().numpy(),
        np.array(inputs.slide.flags, bool),
        np.array(inputs.rna.flags, bool),
    )
