"""A linear map of its own for each gene fragment."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FragmentProjection(nn.Module):
    """y_j = W_j x_j for each fragment j; (B, slots, fragment size) -> (B, slots, d).

    The paper projects all fragments by one matrix, as a language model does with its tokens. But
    the first gene of one fragment has nothing to do with the first gene of another. In a small
    panel, maps of their own cost few parameters: G · d, as many as one linear map of all genes.

    Args:
        slots: fragments.
        size: genes of a fragment.
        dim: d.
    """

    def __init__(self, slots: int, size: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, size, dim))
        nn.init.uniform_(self.weight, -1 / math.sqrt(size), 1 / math.sqrt(size))

    def forward(self, fragments: Tensor) -> Tensor:
        return torch.bmm(fragments.transpose(0, 1), self.weight).transpose(0, 1)
