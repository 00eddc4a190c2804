"""The results of one forward pass, in the precision of a run, as arrays."""

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
    """Predictions of a model for B patients.

    Attributes:
        predictions: (B, ·) float32, what the target says: of classes, probabilities (B, K).
        vectors: (B, ·) float32, the vectors that the model's head reads (CLS_pat in GiMP).
        has_slide, has_genes: (B,) bool, the modalities that the model read of each patient.
    """

    predictions: np.ndarray
    vectors: np.ndarray
    has_slide: np.ndarray
    has_genes: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """The outputs of several batches, in order."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def chosen(self, rows: np.ndarray) -> Outputs:
        """The outputs of some of the patients, by their places."""
        return Outputs(*(getattr(self, field.name)[rows] for field in fields(self)))

    def representation(self, device: torch.device) -> Representation:
        """The input of :meth:`gimp_fast.models.PatientModel.classify`."""
        slide = Presence.of(self.has_slide.tolist(), device)
        rna = Presence.of(self.has_genes.tolist(), device)
        return Representation(torch.from_numpy(self.vectors).to(device), slide, rna)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """A context that runs forward passes in mixed precision; weights stay fp32."""
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
        model.target.predictions(logits.float()).cpu().numpy(),
        representation.vectors.float().cpu().numpy(),
        np.array(inputs.slide.flags, bool),
        np.array(inputs.rna.flags, bool),
    )
