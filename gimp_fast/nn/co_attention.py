"""A few queries of each patient attend over the packed rows of its bag."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gimp_fast.nn.pooling import attention_of_bags, split_bags, weighted_sums
from gimp_fast.ops.packing import Bags


class CoAttention(nn.Module):
    """out = W_o (softmax(W_q q (W_k h)ᵀ / √d) W_v h), one head, bag by bag.

    As W_q q (W_k h)ᵀ = (W_kᵀ W_q q) hᵀ, and as weights that sum to one carry W_v past the sum, keys
    and values of the rows are never formed: what is multiplied are the few queries. A bias of the
    keys would shift all scores of a query alike, which the softmax cancels; there is none.

    Args:
        dim: d of queries and rows.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, queries: Tensor, rows: Tensor, cu_seqlens: Tensor | Bags
    ) -> tuple[Tensor, Tensor]:
        """Attend over packed bags.

        Args:
            queries: (B, K, d).
            rows: (T, d).
            cu_seqlens: (B + 1,) bounds.

        Returns:
            ``(attended, attention)``: (B, K, d), and (T, K) that sums to one over each bag.
        """
        folded = self.query(queries) @ self.key.weight * queries.shape[-1] ** -0.5  # (B, K, d)
        pairs = zip(folded, split_bags(rows, cu_seqlens), strict=True)
        scores = torch.cat([bag @ query.T.to(bag.dtype) for query, bag in pairs])  # (T, K)
        attention = attention_of_bags(scores, cu_seqlens)
        pooled = weighted_sums(attention, rows, cu_seqlens)
        return self.out(self.value(pooled)), attention
