"""Gated bilinear (Kronecker) fusion of two representations."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.linear import Linear

Gate = Literal["linear", "bilinear"]


class GatedReduction(nn.Module):
    """o = ReLU(W_o (σ(gate) ⊙ ReLU(W_h v))): a gated representation.

    Args:
        dim: width of v.
        gate_dim: width of the input of the gate.
        reduced: width of o.
        dropout: probability on o.
    """

    def __init__(self, dim: int, gate_dim: int, reduced: int, dropout: float):
        super().__init__()
        self.hidden = Linear(dim, reduced)
        self.gate = Linear(gate_dim, reduced)
        self.out = Linear(reduced, reduced)
        self.dropout = Dropout(dropout)

    def forward(self, vector: Tensor, gate: Tensor) -> Tensor:
        """(B, dim) and (B, gate_dim) -> (B, reduced)."""
        gated = self.gate(gate).sigmoid() * self.hidden(vector).relu()
        return self.dropout(self.out(gated).relu())


class BilinearFusion(nn.Module):
    """Fusion of two gated representations by all products of their features.

        o_i = ReLU(W_i (σ(g_i) ⊙ ReLU(V_i v_i))),   k = [o_1; 1] ⊗ [o_2; 1]
        z = ReLU(W_k k),   out = ReLU(W [z; v_1; v_2]), or ReLU(W z) without the skip connection

    The gates are g_i = U_i [v_1; v_2] (``"linear"``) or v_1ᵀ U_i v_2 (``"bilinear"``). The formulas
    omit biases. (Chen et al., IEEE TMI 2020, https://arxiv.org/abs/1912.08937, eq. 4 to 6.)

    Args:
        dims: widths of v_1 and v_2.
        reduced: width of o_1 and o_2.
        hidden: width of z and of the result.
        gate: the kind of gate.
        skip: adds the skip connection, v_1 and v_2 beside z.
        dropout: probability on o_1 and o_2, and on their products.
        hidden_dropout: probability on z and on the result.
    """

    def __init__(
        self,
        dims: tuple[int, int],
        reduced: int,
        hidden: int,
        *,
        gate: Gate = "linear",
        skip: bool = False,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
    ):
        super().__init__()
        first, second = dims
        gate_dim = first + second if gate == "linear" else first * second
        self.gate, self.skip = gate, skip
        self.first = GatedReduction(first, gate_dim, reduced, dropout)
        self.second = GatedReduction(second, gate_dim, reduced, dropout)
        self.products = nn.Sequential(
            Dropout(dropout),
            Linear((reduced + 1) ** 2, hidden),
            nn.ReLU(),
            Dropout(hidden_dropout),
        )
        self.out = nn.Sequential(
            Linear(hidden + (first + second if skip else 0), hidden),
            nn.ReLU(),
            Dropout(hidden_dropout),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, dims[0]) and (B, dims[1]) -> (B, hidden)."""
        both = torch.cat([first, second], 1)
        gate = both if self.gate == "linear" else _outer(first, second)
        first, second = self.first(first, gate), self.second(second, gate)
        # The appended ones make the products include the features themselves.
        fused = self.products(_outer(F.pad(first, (0, 1), value=1), F.pad(second, (0, 1), value=1)))
        return self.out(torch.cat([fused, both], 1) if self.skip else fused)


def _outer(first: Tensor, second: Tensor) -> Tensor:
    """(B, m), (B, n) -> (B, m · n)."""
    return (first[:, :, None] * second[:, None, :]).flatten(1)
