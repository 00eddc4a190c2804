"""TransMIL: two Nyström layers, and between them convolutions over patches laid out as a square."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import ModelSettings, PatientModel, Sizes
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.layer_norm import LayerNorm
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.nystrom_attention import NystromAttention
from gimp_fast.nn.pooling import split_bags
from gimp_fast.nn.square_conv import add_square_conv
from gimp_fast.ops.packing import Bags, Rows
from gimp_fast.ops.patch_embedding import take_rows_of_residual


class TransMILSettings(ModelSettings):
    """Architecture of TransMIL.

    Attributes:
        dim: d.
        heads: attention heads, each of d / heads channels.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations of the pseudo-inverse.
        conv_kernel: length in tokens of the depthwise residual convolution, odd.
        dropout: probability after each Nyström layer.
    """

    dim: int = Field(512, ge=1)
    heads: int = Field(8, ge=1)
    num_landmarks: int = Field(256, ge=1)
    pinv_iterations: int = Field(6, ge=0)
    conv_kernel: int = Field(33, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)


class PyramidPositions(nn.Module):
    """PPEG: y = x + conv₇(x) + conv₅(x) + conv₃(x), depthwise, on bags laid out as squares.

    Args:
        dim: d.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor, bags: Bags) -> Tensor:
        """(T′, d), in each bag a CLS token and then the square row by row -> the same."""
        # The sum of convolutions is one convolution with the summed filters, in a single pass.
        weight = sum(F.pad(conv.weight, [3 - conv.padding[0]] * 4) for conv in self.convs)
        bias = sum(conv.bias for conv in self.convs)
        squares = [(start + 1, stop) for start, stop in bags.spans]
        return add_square_conv(tokens, weight, bias, squares)


class TransMIL(PatientModel):
    """Slides -> class (Shao et al., NeurIPS 2021, https://arxiv.org/abs/2106.00908).

        H = ReLU(W x), its first s² − N rows repeated at its end, s = ⌈√N⌉
        H⁰ = [CLS; H],  H¹ = H⁰ + Nyström(LN(H⁰)),  H² = [CLS¹; PPEG(H¹)]
        H³ = H² + Nyström(LN(H²)),  P̂ = softmax(W′ LN(CLS³) + b)

    Unlike the public code, the attention pads nothing, and it is exact for bags of up to M tokens;
    see :class:`gimp_fast.nn.NystromAttention`.

    Raises:
        ValueError: the heads do not divide the width.
    """

    title = "TransMIL"
    settings_class, reads = TransMILSettings, ("slide",)

    def __init__(self, config: Sizes, backend: str = "auto"):
        super().__init__(config)
        if config.dim % config.heads:
            raise ValueError(f"heads ({config.heads}) must divide dim ({config.dim})")
        self.embed = nn.Sequential(Linear(config.feature_dim, config.dim), nn.ReLU())
        self.cls_token = nn.Parameter(torch.randn(config.dim))
        self.norms = nn.ModuleList(LayerNorm(config.dim) for _ in range(2))
        self.layers = nn.ModuleList(
            NystromAttention(
                config.dim,
                dim_head=config.dim // config.heads,
                heads=config.heads,
                num_landmarks=config.num_landmarks,
                pinv_iterations=config.pinv_iterations,
                residual_conv_kernel=config.conv_kernel,
                dropout=config.dropout,
                backend=backend,
            )
            for _ in range(2)
        )
        self.positions = PyramidPositions(config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.head = Linear(config.dim, config.num_outputs)

    def widths(self) -> Sequence[int]:
        return [self.config.dim]

    def product_rows(self, patches: int) -> int:
        return 1 + _side(patches) ** 2

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, d): the CLS token of each bag."""
        embedded = split_bags(self.embed(inputs.patches), inputs.bags)
        squares = [_with_cls(self.cls_token, bag) for bag in embedded]
        bags = Bags.of_lengths(map(len, squares), inputs.device)
        hidden = self._attend(0, torch.cat(squares), bags)  # (T′, d)
        hidden = self.positions(hidden, bags)
        return self.norm(self._attend(1, hidden, bags, Rows.first(bags)))

    def _attend(self, layer: int, hidden: Tensor, bags: Bags, rows: Rows | None = None) -> Tensor:
        """Hˡ + Nyström(LN(Hˡ)), (T′, d) -> the same, or its rows (R, d)."""
        norm, attend = self.norms[layer], self.layers[layer]
        if rows is None:
            return hidden + attend(norm(hidden)[None], cu_seqlens=bags)[0]
        needed, hidden = take_rows_of_residual(hidden, rows.index)
        return needed + attend(norm(hidden)[None], cu_seqlens=bags, rows=rows)


def _with_cls(cls_token: Tensor, rows: Tensor) -> Tensor:
    """CLS, the rows, and the first rows again to fill a square: (N, d) -> (1 + s², d)."""
    missing = _side(len(rows)) ** 2 - len(rows)
    return torch.cat([cls_token.to(rows.dtype)[None], rows, rows[:missing]])


def _side(patches: int) -> int:
    """s = ⌈√N⌉."""
    return math.isqrt(patches - 1) + 1 if patches else 0
