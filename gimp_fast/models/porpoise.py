"""PORPOISE: attention pooling and an SNN, reduced to 32 features each, and all their products."""

from __future__ import annotations

from gimp_fast.models.base import Sizes
from gimp_fast.models.kronecker import KroneckerModel, KroneckerSettings


class PORPOISESettings(KroneckerSettings):
    """Architecture of PORPOISE."""


class PORPOISEConfig(PORPOISESettings, Sizes):
    """Architecture, and the sizes that the cohort decides."""


class PORPOISE(KroneckerModel):
    """Slides and RNA -> class (Chen et al., Cancer Cell 2022, https://arxiv.org/abs/2108.02278).

        h_p = ReLU(W Σ a_i h_i) ∈ ℝ²⁵⁶, a the gated attention;   h_g = SNN(X_G) ∈ ℝ²⁵⁶
        o_p, o_g ∈ ℝ³²: h_p and h_g, each gated by a linear map of both
        z = ReLU(W′ [ReLU(W″ ([o_p; 1] ⊗ [o_g; 1])); h_p; h_g]),   P̂ = softmax(W‴ z)

    The formulas are in :class:`gimp_fast.nn.bilinear_fusion.BilinearFusion`. Cross-entropy replaces
    the paper's survival likelihood.
    """

    title = "PORPOISE"
    settings_class, config_class = PORPOISESettings, PORPOISEConfig
