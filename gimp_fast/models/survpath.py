"""SurvPath: pathways of genes and patches attend over each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import ModelSettings, PatientModel, Sizes, absent_token
from gimp_fast.models.gene_groups import GeneGroups, groups_of_genes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.layer_norm import LayerNorm
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pathway_attention import PathwayAttention
from gimp_fast.nn.pooling import split_bags


class SurvPathSettings(ModelSettings):
    """Architecture of SurvPath.

    Attributes:
        dim: d, width of patches and pathways; attention and what follows have half of it.
        pathways: number of groups of consecutive genes, at most that of genes; not used with gene
            sets.
        dropout: probability within the feed-forward network.
        gene_dropout: probability of AlphaDropout in the networks of pathways.
    """

    dim: int = Field(256, ge=4, multiple_of=4)
    pathways: int = Field(50, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    gene_dropout: float = Field(0.25, ge=0, lt=1)


class SurvPath(PatientModel):
    """Slides and RNA -> what a target asks (Jaume et al., CVPR 2024).

    https://arxiv.org/abs/2304.06819. With p_k = SNN_k(genes of pathway k) and h = W x,

        p, h ← FF(PathwayAttention(p, h)),   z = [mean p; mean h],   MLP(z)

    with FF(x) = LN(W₂ GELU(W₁ LN(x))). Pathways are the cohort's gene sets (``prepare
    --gene-sets``), or else consecutive genes. The paper has 331 pathways of two collections and
    samples 4,096 patches in training; here all patches are read. Learned tokens replace the
    pathways of a patient without RNA, and another one the mean of h of a patient without slides.

    Raises:
        ValueError: there are no genes.
    """

    title = "SurvPath"
    settings_class, reads = SurvPathSettings, ("both",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        width = config.dim // 2
        gene_sets = groups_of_genes(config, config.pathways)
        self.embed = Linear(config.feature_dim, config.dim)
        self.pathways = GeneGroups(gene_sets, config.dim, config.gene_dropout)
        self.absent_genes = absent_token(len(gene_sets) * config.dim)
        self.absent_slide = absent_token(width)
        self.cross = PathwayAttention(config.dim, width)
        self.feed_forward = nn.Sequential(
            LayerNorm(width),
            Linear(width, width),
            nn.GELU(),
            Dropout(config.dropout),
            Linear(width, width),
            LayerNorm(width),
        )
        hidden = _hidden(config)
        self.head = nn.Sequential(
            Linear(config.dim, hidden), nn.ReLU(), Linear(hidden, config.num_outputs)
        )

    def widths(self) -> Sequence[int]:
        return [self.config.dim, self.config.dim // 2, _hidden(self.config)]

    def product_rows(self, patches: int) -> int:
        return max(super().product_rows(patches), len(self.pathways.lengths))

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, d): the means of the pathways and of the patches."""
        found = [self._means(*attended) for attended in self._attend(inputs)]
        return torch.stack(found)

    def _attend(self, inputs: PatientInputs) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        genes = inputs.present_genes
        encoded = None if genes is None else self.pathways(genes).flatten(1)
        tokens = inputs.rna.fill(encoded, self.absent_genes).unflatten(1, (-1, self.config.dim))
        bags = iter(split_bags(self.embed(inputs.patches), inputs.bags) if inputs.has_bags else ())
        return self.cross(tokens, [next(bags) if has else None for has in inputs.slide.flags])

    def _means(self, pathways: Tensor, patches: Tensor | None, _: Tensor | None) -> Tensor:
        of_pathways = self.feed_forward(pathways).mean(0)
        if patches is None:
            return torch.cat([of_pathways, self.absent_slide.to(of_pathways.dtype)])
        return torch.cat([of_pathways, self.feed_forward(patches).mean(0)])

    def attention(self, inputs: PatientInputs) -> Tensor:
        """(T, 1), how much the pathways attend over each patch; it sums to one over a bag.

        For patients without RNA, the learned tokens attend.
        """
        weights = [weight.mean(0) for *_, weight in self._attend(inputs) if weight is not None]
        return torch.cat([weight / weight.sum() for weight in weights])[:, None]


def _hidden(config: SurvPathSettings) -> int:
    """Width within the head; of very few ReLUs, all may be off."""
    return max(16, config.dim // 4)
