"""BioViL: slides contrasted with genes, and reconstruction of masked gene fragments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.alignment import AlignedModel, AlignedSettings, Gather
from gimp_fast.models.base import absent_token
from gimp_fast.models.gimp import GiMPConfig
from gimp_fast.nn.fragment_decoder import FragmentDecoder, fragment_l1


class BioViLSettings(AlignedSettings):
    """Architecture of GiMP's encoders and head, and constants of BioViL.

    Attributes:
        mask_ratio: fraction of the gene fragments to mask; at least one is masked.
        reconstruction_weight: λ, weight of their reconstruction.
    """

    mask_ratio: float = Field(0.15, gt=0, le=1)
    reconstruction_weight: float = Field(1.0, ge=0)


class BioViL(AlignedModel):
    """Contrast and masked language modelling (Boecking et al., ECCV 2022).

    https://arxiv.org/abs/2204.09817, here for slides and genes. With v, t the projections of
    CLS_img and CLS_ge, x_j the expression of fragment j, and M the masked fragments:

        L = InfoNCE(v, t) + λ mean_{j ∈ M} |x_j − x̂_j|

    Expression replaces words, and mean absolute error their cross-entropy. The contrast reads the
    whole profile, the reconstruction reads the masked one in a second pass. There is no counterpart
    of the language model's own pre-training on text.
    """

    title = "BioViL"
    settings_class = BioViLSettings

    def __init__(self, config: GiMPConfig, backend: str = "auto"):
        super().__init__(config, backend)
        self.masked_genes = MaskedGenes(config.dim, self.gene_encoder.fragment_size)

    def aligned_modules(self) -> Iterator[nn.Module]:
        yield from super().aligned_modules()
        yield self.masked_genes

    def alignment_terms(self, windows: Tensor, genes: Tensor, gather: Gather) -> dict[str, Tensor]:
        cls_img, cls_ge = self.encode_windows(windows)[:, 0], self.gene_encoder(genes)
        words = self._choose(len(genes))
        return {
            "contrast": self.contrast(cls_img, cls_ge, gather),
            "reconstruction": self.config.reconstruction_weight * self._fill_in(genes, words),
        }

    def _choose(self, patients: int) -> Tensor:
        """(b, masked), the words to mask, drawn for each patient."""
        words = len(self.words)
        count = max(1, round(self.config.mask_ratio * words))
        return torch.rand(patients, words, device=self.words.device).argsort(1)[:, :count]

    def _fill_in(self, genes: Tensor, words: Tensor) -> Tensor:
        """Error (b,) of these words (b, masked), which are hidden from the encoder."""
        slots, encoder = self.words[words], self.gene_encoder
        target = encoder.cut(genes)  # (b, slots, fragment size)
        masked = torch.zeros(target.shape[:2], dtype=torch.bool, device=genes.device)
        masked = masked.scatter(1, slots, True)
        mask_token = self.masked_genes.mask_token
        _, fragments = encoder.encode(genes, masked=masked, mask_token=mask_token)
        rows = torch.arange(len(genes), device=genes.device)[:, None]
        prediction = self.masked_genes.decoder(fragments[rows, slots])
        return fragment_l1(prediction, target[rows, slots], self.word_genes[words])


class MaskedGenes(nn.Module):
    """A token for masked fragments, and a decoder of their expression."""

    def __init__(self, dim: int, fragment_size: int):
        super().__init__()
        self.mask_token = absent_token(dim)
        self.decoder = FragmentDecoder(dim, fragment_size)
