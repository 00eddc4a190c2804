"""MGCA: slides and genes aligned as patients, as tokens, and by shared prototypes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.losses import info_nce_loss, swapped_prediction_loss, unit_rows
from gimp_fast.models.alignment import AlignedModel, AlignedSettings, Gather, projection
from gimp_fast.models.gimp import GiMPConfig
from gimp_fast.nn.linear import Linear


class MGCASettings(AlignedSettings):
    """Architecture of GiMP's encoders and head, and constants of MGCA.

    Attributes:
        token_weight: λ₁, weight of the contrast of tokens.
        token_temperature: temperature of that contrast.
        max_tokens: at most so many patches of a window, evenly spaced, enter it.
        prototype_weight: λ₂, weight of the swapped prediction of prototypes.
        prototypes: K, at most; a step uses no more prototypes than it has patients.
        prototype_temperature: τ of the prediction.
        sinkhorn_epsilon, sinkhorn_steps: of the assignment of patients to prototypes.
    """

    token_weight: float = Field(0.7, ge=0)
    token_temperature: float = Field(0.1, gt=0)
    max_tokens: int = Field(128, ge=1)
    prototype_weight: float = Field(0.5, ge=0)
    prototypes: int = Field(500, ge=1)
    prototype_temperature: float = Field(0.2, gt=0)
    sinkhorn_epsilon: float = Field(0.05, gt=0)
    sinkhorn_steps: int = Field(3, ge=0)


class MGCA(AlignedModel):
    """Multi-granularity cross-modal alignment (Wang et al., NeurIPS 2022).

    https://arxiv.org/abs/2210.06044, here for slides and genes. With v, t ∈ ℝ¹²⁸ the projections of
    CLS_img and CLS_ge, v_j those of patch tokens, t_k those of gene fragments, and cross-attention
    within a patient, o_j = Attention(v_j; t), u_k = Attention(t_k; v):

        L = 2 InfoNCE(v, t) + λ₁ [InfoNCE({v_j}, {o_j}) + InfoNCE({t_k}, {u_k})]
            + λ₂ Swap(C v, C t)

    with the sums and means of the public code: InfoNCE is the mean over both directions, of which
    the first term takes the sum. That term contrasts patients. The second contrasts tokens of one
    patient; all have the same weight, because there is no exact attention to weight them by, and
    only a subset of the patches of a window enters. The third predicts the prototypes C of one
    modality from the other. All prototypes should be used equally often, so a step uses only as
    many as it has patients.
    """

    title = "MGCA"
    settings_class = MGCASettings

    def __init__(self, config: GiMPConfig, backend: str = "auto"):
        super().__init__(config, backend)
        width = config.projection_dim
        self.project_patches = projection(config.dim, width)
        self.project_fragments = projection(config.dim, width)
        self.patches_to_fragments = nn.MultiheadAttention(width, 1, batch_first=True)
        self.fragments_to_patches = nn.MultiheadAttention(width, 1, batch_first=True)
        self.prototypes = Linear(width, config.prototypes, bias=False)

    def aligned_modules(self) -> Iterator[nn.Module]:
        yield from super().aligned_modules()
        yield from (self.project_patches, self.project_fragments, self.prototypes)
        yield from (self.patches_to_fragments, self.fragments_to_patches)

    def alignment_terms(self, windows: Tensor, genes: Tensor, gather: Gather) -> dict[str, Tensor]:
        config = self.config
        cls_img, patches = self.aggregator(windows[:, 0])
        cls_ge, fragments = self.gene_encoder.encode(genes)
        patches = patches[:, evenly_spaced(patches.shape[1], config.max_tokens)]
        return {
            "contrast": 2 * self.contrast(cls_img, cls_ge, gather),
            "tokens": config.token_weight * self._tokens(patches, fragments[:, self.words]),
            "prototypes": config.prototype_weight * self._swap(cls_img, cls_ge, gather),
        }

    def _tokens(self, patches: Tensor, fragments: Tensor) -> Tensor:
        """Contrast of tokens of each patient: (b, P, d) and (b, W, d) -> (b,)."""
        visual = unit_rows(self.project_patches(patches))  # (b, P, projection)
        words = unit_rows(self.project_fragments(fragments))  # (b, W, projection)
        from_words, _ = self.patches_to_fragments(visual, words, words, need_weights=False)
        from_patches, _ = self.fragments_to_patches(words, visual, visual, need_weights=False)
        temperature = self.config.token_temperature
        return info_nce_loss(visual, from_words, temperature) + info_nce_loss(
            words, from_patches, temperature
        )

    def _swap(self, cls_img: Tensor, cls_ge: Tensor, gather: Gather) -> Tensor:
        """Swapped prediction among the patients of all processes, a scalar."""
        slide, rna = self.project_slide(cls_img), self.project_genes(cls_ge)
        with torch.autocast(slide.device.type, enabled=False):
            prototypes = unit_rows(self.prototypes.weight)  # (K, projection)
            first, second = (gather(F.linear(unit_rows(z), prototypes)) for z in (slide, rna))
        count = min(len(first), len(prototypes))
        return swapped_prediction_loss(
            first[:, :count],
            second[:, :count],
            temperature=self.config.prototype_temperature,
            epsilon=self.config.sinkhorn_epsilon,
            steps=self.config.sinkhorn_steps,
        )


def evenly_spaced(total: int, most: int) -> Tensor:
    """Up to `most` evenly spaced numbers of 0 … total − 1, in order."""
    count = min(total, most)
    return torch.arange(count) * total // count
