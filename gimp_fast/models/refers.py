"""REFERS: several windows of a slide, fused, contrasted with the genes and made to tell them."""

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
        slide_to_genes: λ, weight of that direction of the contrast; the rest is the other's.
        generation_weight: of the error of the generated genes.
    """

    temperature: float = Field(0.1, gt=0)
    slide_to_genes: float = Field(0.75, ge=0, le=1)
    generation_weight: float = Field(1.0, ge=0)


class REFERSConfig(REFERSSettings, GiMPConfig):
    """Architecture and the sizes that the cohort gives."""


class REFERS(AlignedModel):
    """Cross-supervision by reports (Zhou et al., Nature Machine Intelligence 2022).

    https://www.nature.com/articles/s42256-021-00425-9, here by genes. Three windows of a slide are
    the views of a patient; with v, t the projections of z and CLS_ge and x_j the expression of the
    fragments:

        z = Σ_i softmax_i(w · tanh(V CLS_i)) CLS_i,   x̂_j = Decoder(z + e_j)
        L = InfoNCE(v, t) + λ_g mean_j |x_j − x̂_j|,   InfoNCE = λ (v → t) + (1 − λ) (t → v)

    The report that its Transformer generates word by word is a profile here, which has no order: a
    small decoder tells all fragments at once, e_j asking for the j-th. The cross-entropy of words
    becomes the mean absolute error of expression.
    """

    settings_class, config_class = REFERSSettings, REFERSConfig
    views = 3

    def __init__(self, config: REFERSConfig, backend: str = "auto"):
        super().__init__(config, backend)
        self.view_scores = AttentionScores(config.dim, config.dim, gated=False)
        size = self.gene_encoder.fragment_size
        self.generator = GeneGenerator(config.dim, len(self.words), size)

    def aligned_modules(self) -> Iterator[nn.Module]:
        yield from super().aligned_modules()
        yield from (self.view_scores, self.generator)

    def alignment_terms(self, windows: Tensor, genes: Tensor, gather: Gather) -> dict[str, Tensor]:
        config = self.config
        fused = self.fuse(self.encode_windows(windows))
        cls_ge = self.gene_encoder(genes)
        target = self.gene_encoder.cut(genes)[:, self.words]
        error = fragment_l1(self.generator(fused), target, self.word_genes[None])
        return {
            "contrast": self.contrast(fused, cls_ge, gather, config.slide_to_genes),
            "generation": config.generation_weight * error,
        }

    def fuse(self, cls: Tensor) -> Tensor:
        """CLS_img of the views (b, V, d) -> their weighted mean (b, d)."""
        return self.view_scores.pool(cls)


class GeneGenerator(nn.Module):
    """Expression of all fragments from one representation.

    Args:
        dim: d.
        num_fragments: W.
        fragment_size: genes of a fragment.
    """

    def __init__(self, dim: int, num_fragments: int, fragment_size: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_fragments, dim) * 0.02)
        self.decoder = FragmentDecoder(dim, fragment_size)

    def forward(self, representation: Tensor) -> Tensor:
        """(b, d) -> (b, W, fragment size)."""
        return self.decoder(representation[:, None] + self.queries)
