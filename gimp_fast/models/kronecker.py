"""PORPOISE and Pathomic Fusion: attention pooling, an SNN, and products of both their features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import (
    ModelSettings,
    PatientModel,
    Sizes,
    absent_token,
    dense,
)
from gimp_fast.models.gene_classifier import GeneClassifier
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.bilinear_fusion import BilinearFusion, Gate
from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import AttentionPooling
from gimp_fast.nn.snn import SNNEncoder

Width = Annotated[int, Field(ge=1)]


class PORPOISESettings(ModelSettings):
    """Architecture of PORPOISE.

    Attributes:
        dim: width of the embedded patches.
        attention_dim: width of the gated attention.
        slide_dim: width of the representation of the slide.
        gene_widths: widths of the SNN's blocks; the last is that of the genes' representation.
        reduced_dim: width of both gated representations, before the products.
        fusion_dim: width after the products.
        gate: input of the gates: both representations (linear) or their products (bilinear).
        skip: adds both representations beside the products.
        input_dropout: probability on the patch embeddings.
        dropout: probability in both branches, and in the fusion up to the products.
        fusion_dropout: probability after each of the two layers behind the products.
    """

    dim: int = Field(512, ge=1)
    attention_dim: int = Field(256, ge=1)
    slide_dim: int = Field(256, ge=1)
    gene_widths: tuple[Width, ...] = Field((256, 256), min_length=1)
    reduced_dim: int = Field(32, ge=1)
    fusion_dim: int = Field(256, ge=1)
    gate: Gate = "linear"
    skip: bool = True
    input_dropout: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.25, ge=0, lt=1)
    fusion_dropout: float = Field(0.0, ge=0, lt=1)


class PORPOISE(PatientModel):
    """Slides and RNA -> class (Chen et al., Cancer Cell 2022, https://arxiv.org/abs/2108.02278).

        h_p = ReLU(W Σ a_i h_i) ∈ ℝ²⁵⁶, a the gated attention;   h_g = SNN(X_G) ∈ ℝ²⁵⁶
        o_p, o_g ∈ ℝ³²: h_p and h_g, each gated by a linear map of both
        z = ReLU(W′ [ReLU(W″ ([o_p; 1] ⊗ [o_g; 1])); h_p; h_g]),   P̂ = softmax(W‴ z)

    The formulas are in :class:`gimp_fast.nn.bilinear_fusion.BilinearFusion`. Cross-entropy replaces
    the paper's survival likelihood. A learned token replaces h_p or h_g of a patient who lacks that
    modality.
    """

    title = "PORPOISE"
    settings_class, reads = PORPOISESettings, ("both",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        self.input_dropout = Dropout(config.input_dropout)
        self.embed = dense(config.feature_dim, config.dim, config.dropout)
        self.pool = AttentionPooling(config.dim, config.attention_dim, dropout=config.dropout)
        self.project = dense(config.dim, config.slide_dim, config.dropout)
        self.gene_encoder = SNNEncoder(config.num_genes, config.gene_widths, config.dropout)
        gene_dim = config.gene_widths[-1]
        self.absent_slide = absent_token(config.slide_dim)
        self.absent_genes = absent_token(gene_dim)
        self.fusion = BilinearFusion(
            (config.slide_dim, gene_dim),
            config.reduced_dim,
            config.fusion_dim,
            gate=config.gate,
            skip=config.skip,
            dropout=config.dropout,
            hidden_dropout=config.fusion_dropout,
        )
        self.head = Linear(config.fusion_dim, config.num_outputs)

    def widths(self) -> Sequence[int]:
        config = self.config
        of_slide = [config.dim, config.attention_dim, config.slide_dim]
        return [*of_slide, config.reduced_dim, config.fusion_dim]

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, fusion_dim): both modalities, fused."""
        slide = rna = None
        if inputs.has_bags:
            pooled = self.pool(self._embedded(inputs), inputs.bags)[0]
            slide = self.project(pooled[:, 0])
        if (genes := inputs.present_genes) is not None:
            rna = self.gene_encoder(genes)
        slide = inputs.slide.fill(slide, self.absent_slide)
        return self.fusion(slide, inputs.rna.fill(rna, self.absent_genes))

    def _embedded(self, inputs: PatientInputs) -> Tensor:
        """(T, dim)."""
        return self.embed(self.input_dropout(inputs.patches))

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, 1), the attention of each patch; it sums to one over a bag."""
        return self.pool(self._embedded(inputs), inputs.bags)[1]


class PathomicFusionSettings(PORPOISESettings):
    """Architecture of Pathomic Fusion: :class:`PORPOISESettings` with the sizes of the paper."""

    attention_dim: int = Field(128, ge=1)
    slide_dim: int = Field(32, ge=1)
    gene_widths: tuple[Width, ...] = Field((64, 48, 32, 32), min_length=1)
    fusion_dim: int = Field(64, ge=1)
    gate: Gate = "bilinear"
    skip: bool = False
    input_dropout: float = Field(0.0, ge=0, lt=1)
    fusion_dropout: float = Field(0.25, ge=0, lt=1)


class PathomicFusion(PORPOISE):
    """Slides and RNA -> class (Chen et al., IEEE TMI 2020, https://arxiv.org/abs/1912.08937).

        h_p = ReLU(W Σ a_i h_i) ∈ ℝ³²,   h_g = SNN(X_G) ∈ ℝ³², blocks of 64, 48, 32 and 32
        o_p, o_g ∈ ℝ³²: h_p and h_g, each gated by h_pᵀ U h_g
        z = ReLU(W′ ReLU(W″ ([o_p; 1] ⊗ [o_g; 1]))) ∈ ℝ⁶⁴,   P̂ = softmax(W‴ z)

    The formulas are in :class:`gimp_fast.nn.bilinear_fusion.BilinearFusion`. Gated attention
    pooling of all patches (ABMIL) replaces the paper's VGG-19 of one chosen region and its graph of
    cells. As in the public code the SNN is first trained by labels, and then frozen; the branch of
    the slide, which the public code trains before too, is trained with the fusion. There is no L1
    penalty.
    """

    title = "Pathomic Fusion"
    settings_class = PathomicFusionSettings
    supervised_genes = True

    def gene_classifier(self) -> GeneClassifier:
        config = self.config
        return GeneClassifier(self.gene_encoder, config.gene_widths[-1], config.num_outputs)

    def finetuned_modules(self, freeze_genes: bool) -> Iterator[nn.Module]:
        for module in self.children():
            if not (freeze_genes and module is self.gene_encoder):
                yield module

    def loose_parameters(self) -> list[nn.Parameter]:
        return [self.absent_slide, self.absent_genes]
