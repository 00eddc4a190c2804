"""MCAT: groups of genes attend over the patches, and Transformers pool both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import (
    ModelSettings,
    PatientModel,
    Sizes,
    absent_token,
    dense,
)
from gimp_fast.models.gene_groups import GeneGroups, groups_of_genes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.co_attention import CoAttention
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import AttentionScores
from gimp_fast.nn.transformer import Transformer


class MCATSettings(ModelSettings):
    """Architecture of MCAT.

    Attributes:
        dim: d, width of patches and groups of genes.
        groups: number of groups of consecutive genes, at most that of genes; not used with gene
            sets.
        heads: attention heads of the Transformers.
        num_layers: layers of each Transformer.
        ffn_dim: hidden width of their feed-forward networks.
        attention_dim: width of the gated attention that pools them.
        dropout: probability, the same everywhere.
    """

    dim: int = Field(256, ge=1)
    groups: int = Field(6, ge=1)
    heads: int = Field(8, ge=1)
    num_layers: int = Field(2, ge=1)
    ffn_dim: int = Field(512, ge=1)
    attention_dim: int = Field(256, ge=1)
    dropout: float = Field(0.25, ge=0, lt=1)


class SequencePooling(nn.Module):
    """ReLU(W Σ a_k x_k), with x the output of a Transformer and a its gated attention."""

    def __init__(self, config: Sizes):
        super().__init__()
        self.transformer = Transformer(
            config.num_layers, config.dim, config.heads, config.ffn_dim, config.dropout
        )
        self.scores = AttentionScores(config.dim, config.attention_dim, dropout=config.dropout)
        self.project = dense(config.dim, config.dim, config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, d) -> (B, d)."""
        tokens = self.transformer(tokens)
        return self.project(self.scores.pool(tokens))


class MCAT(PatientModel):
    """Slides and RNA -> class (Chen et al., ICCV 2021, Multimodal Co-Attention Transformer).

    https://openaccess.thecvf.com/content/ICCV2021/html/Chen_Multimodal_Co-Attention_Transformer_for_Survival_Prediction_in_Gigapixel_Whole_Slide_ICCV_2021_paper.html

        h = ReLU(W x),   g_k = SNN_k(genes of group k),   ĥ_k = CoAttention(g_k; h)
        z = MLP([Pool(Transformer(ĥ)); Pool(Transformer(g))]),   P̂ = softmax(W′ z)

    Groups are the cohort's gene sets, or else consecutive genes; the paper has six functional
    signatures, and learns survival. Learned tokens replace g of a
    patient without RNA, and then attend over the slide; others replace ĥ of a patient without
    slides.

    Raises:
        ValueError: the heads do not divide the width, or there are no genes.
    """

    title = "MCAT"
    settings_class, reads = MCATSettings, ("both",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        if config.dim % config.heads:
            raise ValueError(f"heads ({config.heads}) must divide dim ({config.dim})")
        self.embed = dense(config.feature_dim, config.dim, config.dropout)
        gene_sets = groups_of_genes(config, config.groups)
        self.gene_groups = GeneGroups(gene_sets, config.dim, config.dropout)
        self.absent_genes = absent_token(len(gene_sets) * config.dim)
        self.absent_slide = absent_token(len(gene_sets) * config.dim)
        self.co_attention = CoAttention(config.dim)
        self.pool_slide = SequencePooling(config)
        self.pool_genes = SequencePooling(config)
        self.fusion = nn.Sequential(
            Linear(2 * config.dim, config.dim),
            nn.ReLU(),
            Linear(config.dim, config.dim),
            nn.ReLU(),
        )
        self.head = Linear(config.dim, config.num_outputs)

    def widths(self) -> Sequence[int]:
        return [self.config.dim, self.config.ffn_dim, self.config.attention_dim]

    def product_rows(self, patches: int) -> int:
        return max(super().product_rows(patches), len(self.gene_groups.lengths))

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, d): both modalities, fused."""
        groups = self._groups(inputs)  # (B, K, d)
        attended = None
        if inputs.has_bags:
            attended = self._co_attend(groups, inputs)[0].flatten(1)
        attended = self._in_groups(inputs.slide.fill(attended, self.absent_slide))
        pooled = [self.pool_slide(attended), self.pool_genes(groups)]
        return self.fusion(torch.cat(pooled, 1))

    def _groups(self, inputs: PatientInputs) -> Tensor:
        """Groups of genes (B, K, d), with learned tokens for patients without RNA."""
        genes = inputs.present_genes
        encoded = None if genes is None else self.gene_groups(genes).flatten(1)
        return self._in_groups(inputs.rna.fill(encoded, self.absent_genes))

    def _in_groups(self, rows: Tensor) -> Tensor:
        """(B, K · d) -> (B, K, d)."""
        return rows.unflatten(1, (-1, self.config.dim))

    def _co_attend(self, groups: Tensor, inputs: PatientInputs) -> tuple[Tensor, Tensor]:
        queries = inputs.slide.rows_of(groups)
        return self.co_attention(queries, self.embed(inputs.patches), inputs.bags)

    def co_attend(self, inputs: PatientInputs) -> Tensor:
        """(T, K), the attention of each group of genes over the patches; it sums to one over a bag.

        For patients without RNA, the learned tokens attend.
        """
        return self._co_attend(self._groups(inputs), inputs)[1]

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, 1), the attention of each patch: the mean of :meth:`co_attend` over the groups."""
        return self.co_attend(inputs).mean(1, keepdim=True)
