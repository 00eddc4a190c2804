"""Pooling over the rows of packed bags: means, softmax, weighted sums, attention pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.linear import Linear
from gimp_fast.ops.packing import Bags, aligned, as_bags
from gimp_fast.ops.products import steady_threads


def split_bags(rows: Tensor, cu_seqlens: Tensor | Bags) -> tuple[Tensor, ...]:
    """The rows (N_i, …) of each bag.

    Args:
        rows: (T, …) packed.
        cu_seqlens: (B + 1,) bounds of the packed bags, or bags.

    Raises:
        ValueError: the bounds do not rise from 0 to T, or a bag has no rows.
    """
    lengths = as_bags(cu_seqlens, len(rows)).lengths
    if not all(lengths):
        raise ValueError(f"bag {lengths.index(0)} has no rows; expected at least one")
    return rows.split(lengths)


def mean_of_bags(rows: Tensor, cu_seqlens: Tensor | Bags) -> Tensor:
    """The mean of each bag: packed rows (T, C) -> (B, C)."""
    return torch.stack([bag.mean(0) for bag in split_bags(rows, cu_seqlens)])


def attention_of_bags(scores: Tensor, cu_seqlens: Tensor | Bags) -> Tensor:
    """Softmax over the rows of each bag, column by column: (T, K) -> (T, K), fp32 or wider."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return torch.cat([bag.softmax(0) for bag in split_bags(wide, cu_seqlens)])


def weighted_sums(weights: Tensor, rows: Tensor, cu_seqlens: Tensor | Bags) -> Tensor:
    """Weighted sums of the rows of each bag, one for each column of weights.

    Args:
        weights: (T, K).
        rows: (T, C).
        cu_seqlens: (B + 1,) bounds of the packed bags, or bags.

    Returns:
        (B, K, C).
    """
    pairs = zip(split_bags(weights, cu_seqlens), split_bags(rows, cu_seqlens), strict=True)
    with steady_threads(weights.T, training=False):  # sums over the rows must not be cut
        return torch.stack([aligned(weight.to(bag.dtype)).T @ bag for weight, bag in pairs])


class AttentionScores(nn.Module):
    """Scores of rows for attention pooling (Ilse et al., ICML 2018, eq. 8 and 9).

        s = w · tanh(V h),   gated: s = w · (tanh(V h) ⊙ σ(U h))

    Args:
        dim: C of the rows.
        hidden: width of V and U.
        heads: K, scores per row.
        gated: multiply by the gate.
        dropout: probability after tanh and gate.
    """

    def __init__(
        self, dim: int, hidden: int, heads: int = 1, *, gated: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.value = Linear(dim, hidden)
        self.gate = Linear(dim, hidden) if gated else None
        self.dropout = Dropout(dropout)
        self.score = Linear(hidden, heads)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., C) -> (..., K)."""
        hidden = self.dropout(self.value(rows).tanh())
        if self.gate is not None:
            hidden = hidden * self.dropout(self.gate(rows).sigmoid())
        return self.score(hidden)

    def pool(self, rows: Tensor) -> Tensor:
        """Weighted means of bags of one length, by the softmax of one head: (B, N, C) -> (B, C)."""
        scores = self.forward(rows)  # (B, N, 1)
        weights = scores.softmax(1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return (weights.to(rows.dtype) * rows).sum(1)


class AttentionPooling(nn.Module):
    """z = Σ softmax(s)_i h_i over each bag (Ilse et al., ICML 2018, eq. 7).

    It takes the arguments of :class:`AttentionScores`.
    """

    def __init__(self, *dims: int, **options: bool | float):
        super().__init__()
        self.scores = AttentionScores(*dims, **options)

    def forward(self, rows: Tensor, cu_seqlens: Tensor | Bags) -> tuple[Tensor, Tensor]:
        """Each bag, pooled, and the attention over its rows.

        Args:
            rows: (T, C).
            cu_seqlens: (B + 1,) bounds of the packed bags, or bags.

        Returns:
            ``(pooled, attention)``: (B, K, C), and (T, K), which sums to one over each bag.
        """
        attention = attention_of_bags(self.scores(rows), cu_seqlens)
        return weighted_sums(attention, rows, cu_seqlens), attention
