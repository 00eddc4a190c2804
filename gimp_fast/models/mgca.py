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


class MGCASettings(AlignedSettings):
    """Architecture of GiMP's encoders and head, and constants of MGCA.

    Attributes:
        token_weight: λ₁ of the contrast of tokens.
        token_temperature: its temperature.
        max_tokens: patches of a window, evenly spaced, that take part in it.
        prototype_weight: λ₂ of the swapped prediction of prototypes.
        prototypes: K at most; a step has no use for more than patients.
        prototype_temperature: τ of the prediction.
        sinkhorn_epsilon, sinkhorn_steps: of the assignments.
    """

    token_weight: float = Field(0.7, ge=0)
    token_temperature: float = Field(0.1, gt=0)
    max_tokens: int = Field(128, ge=1)
    prototype_weight: float = Field(0.5, ge=0)
    prototypes: int = Field(500, ge=1)
    prototype_temperature: float = Field(0.2, gt=0)
    sinkhorn_epsilon: float = Field(0.05, gt=0)
    sinkhorn_steps: int = Field(3, ge=0)


class MGCAConfig(MGCASettings, GiMPConfig):
    """Architecture and the sizes that the cohort gives."""


class MGCA(AlignedModel):
    """Multi-granularity cross-modal alignment (Wang et al., NeurIPS 2022).

    https://arxiv.org/abs/2210.06044, here of slides with genes. With v, t ∈ ℝ¹²⁸ the projections of
    CLS_img and CLS_ge, v_j those of patch tokens, t_k those of gene fragments, and cross-attention
    within a patient, o_j = Attention(v_j; t), u_k = Attention(t_k; v):

        L = InfoNCE(v, t) + λ₁ ½ [InfoNCE({v_j}, {o_j}) + InfoNCE({t_k}, {u_k})]
            + λ₂ Swap(C v, C t)

    The first contrasts patients, the second tokens of one patient (all alike, for want of the
    attention of an exact Transformer to weight them), the third predicts the prototypes C of one
    modality from the other. Of a window's thousands of patches a subset takes part in the second.
    Prototypes are to be used alike, which a batch of fewer patients cannot do: it has the first as
    many of them.
    """

    settings_class, config_class = MGCASettings, MGCAConfig

    def __init__(self, config: MGCAConfig, backend: str = "auto"):
        super().__init__(config, backend)
        width = config.projection_dim
        self.project_patches = projection(config.dim, width)
        self.project_fragments = projection(config.dim, width)
        self.patches_to_fragments = nn.MultiheadAttention(width, 1, batch_first=True)
        self.fragments_to_patches = nn.MultiheadAttention(width, 1, batch_first=True)
        self.prototypes = nn.Linear(width, config.prototypes, bias=False)

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
            "contrast": self.contrast(cls_img, cls_ge, gather),
            "tokens": config.token_weight * self._tokens(patches, fragments[:, self.words]),
            "prototypes": config.prototype_weight * self._swap(cls_img, cls_ge, gather),
        }

    def _tokens(self, patches: Tensor, fragments: Tensor) -> Tensor:
        """(b, P, d) and (b, W, d) -> (b,) of each patient."""
        visual = unit_rows(self.project_patches(patches))  # (b, P, projection)
        words = unit_rows(self.project_fragments(fragments))  # (b, W, projection)
        seen, _ = self.patches_to_fragments(visual, words, words, need_weights=False)
        read, _ = self.fragments_to_patches(words, visual, visual, need_weights=False)
        temperature = self.config.token_temperature
        return 0.5 * (
            info_nce_loss(visual, seen, temperature) + info_nce_loss(words, read, temperature)
        )

    def _swap(self, cls_img: Tensor, cls_ge: Tensor, gather: Gather) -> Tensor:
        """Swapped prediction among all patients, scalar."""
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
    """Up to `most` of 0 … total − 1, in order."""
    count = min(total, most)
    return torch.arange(count) * total // count
