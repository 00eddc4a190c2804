"""Pathomic Fusion: products of small representations of slide and RNA, gated by each other."""

from __future__ import annotations

from pydantic import Field

from gimp_fast.models.base import Sizes
from gimp_fast.models.kronecker import KroneckerModel, KroneckerSettings, Width
from gimp_fast.nn.bilinear_fusion import Gate


class PathomicFusionSettings(KroneckerSettings):
    """Architecture of Pathomic Fusion: :class:`KroneckerSettings` with the sizes of the paper."""

    attention_dim: int = Field(128, ge=1)
    slide_dim: int = Field(32, ge=1)
    gene_widths: tuple[Width, ...] = Field((64, 48, 32, 32), min_length=1)
    fusion_dim: int = Field(64, ge=1)
    gate: Gate = "bilinear"
    skip: bool = False


class PathomicFusionConfig(PathomicFusionSettings, Sizes):
    """Architecture, and the sizes that the cohort decides."""


class PathomicFusion(KroneckerModel):
    """Slides and RNA -> class (Chen et al., IEEE TMI 2020, https://arxiv.org/abs/1912.08937).

        h_p = ReLU(W Σ a_i h_i) ∈ ℝ³²,   h_g = SNN(X_G) ∈ ℝ³², blocks of 64, 48, 32 and 32
        o_p, o_g ∈ ℝ³²: h_p and h_g, each gated by h_pᵀ U h_g
        z = ReLU(W′ ReLU(W″ ([o_p; 1] ⊗ [o_g; 1]))) ∈ ℝ⁶⁴,   P̂ = softmax(W‴ z)

    The formulas are in :class:`gimp_fast.nn.bilinear_fusion.BilinearFusion`. Gated attention
    pooling of all patches (ABMIL) replaces the paper's VGG-19 of one chosen region and its graph of
    cells. Branches, fusion and classifier are trained together, without its L1 penalty.
    """

    title = "Pathomic Fusion"
    settings_class, config_class = PathomicFusionSettings, PathomicFusionConfig
