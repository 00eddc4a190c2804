"""Groups of genes, each with a network of its own: MCAT's signatures, SurvPath's pathways."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gimp_fast.models.base import Sizes
from gimp_fast.nn.snn import SNNEncoder


class GeneGroups(nn.Module):
    """A self-normalising network for each group of genes: g_k = SNN_k(X_G[group k]).

    Args:
        gene_sets: columns of the genes of each group.
        dim: d; each network has two blocks of this width.
    """

    def __init__(self, gene_sets: list[Tensor], dim: int, dropout: float):
        super().__init__()
        self.lengths = [len(genes) for genes in gene_sets]
        self.register_buffer("gene_index", torch.cat(gene_sets), persistent=False)
        self.encoders = nn.ModuleList(SNNEncoder(n, (dim, dim), dropout) for n in self.lengths)

    def forward(self, genes: Tensor) -> Tensor:
        """(B, G) scaled expression -> (B, K, d)."""
        groups = genes[:, self.gene_index].split(self.lengths, 1)
        encoded = [encode(group) for encode, group in zip(self.encoders, groups, strict=True)]
        return torch.stack(encoded, 1)


def groups_of_genes(config: Sizes, count: int) -> list[Tensor]:
    """Columns of the genes of each group: the cohort's gene sets, or else consecutive genes.

    Of consecutive genes there are ``count`` groups, at most one for each gene, and their sizes
    differ by at most one.

    Raises:
        ValueError: there are no genes.
    """
    if config.gene_sets is not None:
        return [torch.tensor(genes) for genes in config.gene_sets]
    if config.num_genes < 1:
        raise ValueError("num_genes is 0; expected at least 1")
    return list(torch.arange(config.num_genes).tensor_split(min(count, config.num_genes)))
