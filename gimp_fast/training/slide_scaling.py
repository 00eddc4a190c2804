"""Patch embeddings in which hospitals differ less, fitted on training patients only.

Scanner, stain and laboratory move the embeddings of all slides of a hospital together. A model can
learn these shifts instead of the disease, and is then lost at the next hospital.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gimp_fast.errors import GimpError

PREFIX = "slide_scaler."  # of the tensors in a checkpoint


@dataclass(frozen=True)
class SlideScaler:
    """x′ = (x − mean) W, of every patch.

    With z the mean patch of a patient, standardised over the training patients, and S the scatter
    of the hospitals' means of z around those of their class:

        W = c diag(1 / sd) (I + λ S)^(−1/2)

    Directions in which hospitals of one class differ shrink, others stay. c gives the mean patches
    a mean standard deviation of one. λ is the strength; at 0 the embeddings are standardised.

    Attributes:
        mean: (C,) float32.
        matrix: (C, C) float32, W.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(
        cls, means: np.ndarray, labels: np.ndarray, sites: Sequence[str | None], strength: float
    ) -> SlideScaler:
        """Fit on training patients.

        Args:
            means: (patients, C), the mean patch of each.
            labels: (patients,) int.
            sites: their hospitals; patients whose hospital is not known only count for mean and sd.
            strength: λ.

        Raises:
            GimpError: no class has two known hospitals, so that none can be compared.
        """
        mean, sd = means.mean(0, dtype=np.float64), means.std(0, dtype=np.float64)
        sd[sd < 1e-6] = 1.0
        z = (means - mean) / sd
        values, vectors = np.linalg.eigh(_scatter_of_sites(z, labels, np.array(sites, object)))
        shrunk = (vectors / np.sqrt(1 + strength * values.clip(min=0))) @ vectors.T
        shrunk /= max((z @ shrunk).std(0).mean(), 1e-6)
        arrays = (mean, shrunk / sd[:, None])
        return cls(*(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in arrays))

    def __call__(self, patches: Tensor) -> Tensor:
        """(N, C) -> (N, C) float32."""
        return (patches.float() - self.mean) @ self.matrix

    def tensors(self) -> dict[str, Tensor]:
        """What checkpoints and exports hold."""
        return {f"{PREFIX}mean": self.mean, f"{PREFIX}matrix": self.matrix}


def _scatter_of_sites(z: np.ndarray, labels: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """(C, C): the mean over patients of (m_site − m_class)(m_site − m_class)ᵀ."""
    known = np.array([site is not None for site in sites])
    scatter, counted, comparable = np.zeros((z.shape[1],) * 2), 0, False
    for label in np.unique(labels):
        of_class = known & (labels == label)
        names = sorted(set(sites[of_class]))
        comparable |= len(names) > 1
        for site in names:
            here = of_class & (sites == site)
            shift = z[here].mean(0) - z[of_class].mean(0)
            scatter += here.sum() * np.outer(shift, shift)
            counted += int(here.sum())
    if not comparable:
        raise GimpError(
            "site_shrinkage: found no class whose training patients come from two known hospitals; "
            "expected TCGA barcodes, or a cohort prepared with --site-column. Set "
            "site_shrinkage=null to train without"
        )
    return scatter / counted
