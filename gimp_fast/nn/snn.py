"""Self-normalising network, an encoder of expression profiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.linear import Linear
from gimp_fast.ops.packing import PACKED_WIDTH


class _ELU(nn.ELU):
    """``torch.nn.ELU`` that in eval mode rounds a row as if it were alone, whatever its width."""

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        missing = -width % PACKED_WIDTH
        if self.training or not missing:
            return super().forward(x)
        return super().forward(F.pad(x, (0, missing)))[..., :width]


class SNNEncoder(nn.Module):
    """x ← AlphaDropout(ELU(W x + b)), one block per width (Klambauer et al., NeurIPS 2017).

    https://arxiv.org/abs/1706.02515. Weights start as N(0, 1 / fan-in) and biases as zero. Inputs
    of zero mean and unit variance keep both through the blocks, and through AlphaDropout.

    Args:
        num_genes: G.
        widths: widths of the blocks; the last is that of the result.
        dropout: probability of AlphaDropout.

    Raises:
        ValueError: there are no genes or no blocks.
    """

    def __init__(self, num_genes: int, widths: Sequence[int], dropout: float = 0.25):
        super().__init__()
        if num_genes < 1 or not widths:
            raise ValueError(
                f"SNNEncoder: found {num_genes} genes and widths {list(widths)}; expected at least "
                "one of each"
            )
        fan_ins = [num_genes, *widths[:-1]]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(Linear(fan_in, width), _ELU(), nn.AlphaDropout(dropout))
                for fan_in, width in zip(fan_ins, widths, strict=True)
            )
        )
        for linear, _, _ in self.blocks:
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, genes: Tensor) -> Tensor:
        """(B, G) scaled expression -> (B, last width)."""
        return self.blocks(genes)
