"""A Transformer encoder over a few tokens of each patient, with the weights of torch's own."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.ops.products import linear, steady_threads


class TransformerLayer(nn.TransformerEncoderLayer):
    """x ← LN(x + MSA(x)), x ← LN(x + W₂ ReLU(W₁ x)): ``torch.nn.TransformerEncoderLayer``.

    Its products and dropouts are faster for few tokens, and those of a patient do not depend on
    the other patients.

    Args:
        dim: d, channels.
        heads: attention heads; must divide ``dim``.
        hidden: width between W₁ and W₂.
        dropout: probability on the attention, after attention and MLP, and within the MLP.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__(dim, heads, hidden, dropout, batch_first=True)
        self.dropout, self.dropout1, self.dropout2 = (Dropout(dropout) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        x = self.norm1(x + self.dropout1(self._attend(x)))
        hidden = self.dropout(linear(x, self.linear1.weight, self.linear1.bias).relu())
        return self.norm2(x + self.dropout2(linear(hidden, self.linear2.weight, self.linear2.bias)))

    def _attend(self, x: Tensor) -> Tensor:
        attention = self.self_attn
        qkv = linear(x, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = attention.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out = attention.out_proj
        return linear(attended.transpose(1, 2).flatten(2), out.weight, out.bias)


class Transformer(nn.Module):
    """Layers one after the other, which begin with equal weights, as in ``nn.TransformerEncoder``.

    It takes the arguments of :class:`TransformerLayer` after the number of layers.
    """

    def __init__(self, num_layers: int, *arguments, **options):
        super().__init__()
        layer = TransformerLayer(*arguments, **options)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        with steady_threads(x, training=self.training):
            for layer in self.layers:
                x = layer(x)
        return x
