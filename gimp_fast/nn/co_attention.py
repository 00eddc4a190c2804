"""Co-attention: a few queries of each patient attend over the packed rows of its bag."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gimp_fast.nn.linear import Linear
from gimp_fast.nn.pooling import attention_of_bags, split_bags, weighted_sums
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.products import linear, steady_threads


class CoAttention(nn.Module):
    """out = W_o (softmax(W_q q (W_k h)ᵀ / √d) W_v h), one head, bag by bag.

    Keys and values of the rows are never formed. W_q q (W_k h)ᵀ = (W_kᵀ W_q q) hᵀ needs only a
    product with the few queries, and W_v can be applied after the sum, because the weights sum to
    one. The keys have no bias: it would shift all scores of a query alike, and the softmax cancels
    that.

    Args:
        dim: d of queries and rows.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim, bias=False)
        self.value = Linear(dim, dim)
        self.out = Linear(dim, dim)

    def forward(
        self, queries: Tensor, rows: Tensor, cu_seqlens: Tensor | Bags
    ) -> tuple[Tensor, Tensor]:
        """What the queries read from their bags, and their attention.

        Args:
            queries: (B, K, d).
            rows: (T, d) packed.
            cu_seqlens: (B + 1,) bounds of the packed bags, or bags.

        Returns:
            ``(attended, attention)``: (B, K, d), and (T, K), which sums to one over each bag.
        """
        with steady_threads(queries, training=self.training):
            folded = linear(self.query(queries), self.key.weight.t())  # (B, K, d)
            folded = folded * queries.shape[-1] ** -0.5
        pairs = zip(folded, split_bags(rows, cu_seqlens), strict=True)
        scores = torch.cat([bag @ query.T.to(bag.dtype) for query, bag in pairs])  # (T, K)
        attention = attention_of_bags(scores, cu_seqlens)
        pooled = weighted_sums(attention, rows, cu_seqlens)
        return self.out(self.value(pooled)), attention
