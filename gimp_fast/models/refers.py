"""REFERS: several windows of a slide are fused, contrasted with the genes, and predict them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.alignment import AlignedModel, AlignedSettings, Gather
from gimp_fast.models.gimp import GiMPConfig
from gimp_fast.nn.fragment_decoder import FragmentDecoder, fragment_l1
from gimp_fast.nn.pooling import AttentionScores


class REFERSSettings(AlignedSettings):
    """Architecture of GiMP's encoders and head, and constants of REFERS.

    Attributes:
        slide_to_genes: λ, weight of the contrast from slide to genes; the reverse has 1 − λ.
        generation_weight: λ_g, weight of the error of the generated genes.
    """

    temperature: float = Field(0.1, gt=0)
    slide_to_genes: float = Field(0.75, ge=0, le=1)
    generation_weight: float = Field(1.0, ge=0)


class REFERS(AlignedModel):
    """Cross-supervision by reports (Zhou et al., Nature Machine Intelligence 2022).

    https://www.nature.com/articles/s42256-021-00425-9, here by genes. Three windows of a slide are
    the views of a patient. With v, t the projections of z and CLS_ge, and x_j the expression of
    fragment j:

        z = Σ_i softmax_i(w · tanh(V CLS_i)) CLS_i,   x̂_j = Decoder(z + e_j)
        L = InfoNCE(v, t) + λ_g mean_j |x_j − x̂_j|,   InfoNCE = λ (v → t) + (1 − λ) (t → v)

    In the paper a Transformer generates a report word by word. A profile has no order, so a small
    decoder predicts all fragments at once, with a learned query e_j for the j-th. Mean absolute
    error replaces cross-entropy.
    """

    title = "REFERS"
    settings_class = REFERSSettings
    views = 3

    def __init__(self, config: GiMPConfig, backend: str = "auto"):
        super().__init__(config, backend)
        self.view_scores = AttentionScores(config.dim, config.dim, gated=False)
        size = self.gene_encoder.fragment_size
        self.generator = GeneGenerator(config.dim, len(self.words), size)

    def aligned_modules(self) -> Iterator[nn.Module]:
        yield from super().aligned_modules()
        yield from (self.view_scores, self.generator)

    def alignment_terms(self, windows: Tensor, genes: Tensor, gather: Gather) -> dict[str, Tensor]:
        config = self.config
        fused = self.view_scores.pool(self.encode_windows(windows))  # (b, d)
        cls_ge = self.gene_encoder(genes)
        target = self.gene_encoder.cut(genes)[:, self.words]
        error = fragment_l1(self.generator(fused), target, self.word_genes[None])
        return {
            "contrast": self.contrast(fused, cls_ge, gather, config.slide_to_genes),
            "generation": config.generation_weight * error,
        }


class GeneGenerator(nn.Module):
    """Decoder from one representation to the expression of all fragments."""

    def __init__(self, dim: int, num_fragments: int, fragment_size: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_fragments, dim) * 0.02)
        self.decoder = FragmentDecoder(dim, fragment_size)

    def forward(self, representation: Tensor) -> Tensor:
        """(b, d) -> (b, W, fragment size)."""
        return self.decoder(representation[:, None] + self.queries)
