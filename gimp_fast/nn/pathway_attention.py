"""Attention between a few tokens of each patient and the packed rows of its bag, both ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gimp_fast.nn.layer_norm import LayerNorm
from gimp_fast.nn.linear import Linear


class PathwayAttention(nn.Module):
    """Tokens p attend over tokens and rows h, and rows over tokens alone (one head).

        p ← softmax([q_p k_pᵀ, q_p k_hᵀ] / √d_h) [v_p; v_h],   h ← softmax(q_h k_pᵀ / √d_h) v_p

    Rows do not attend over rows, so the work is P N and not N² (Jaume et al., CVPR 2024, section
    3.3). Inputs are normalised first.

    Args:
        dim: d of tokens and rows.
        width: d_h of queries, keys, values and results.
    """

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.norm = LayerNorm(dim)
        self.to_qkv = Linear(dim, 3 * width, bias=False)

    def forward(
        self, tokens: Tensor, bags: Sequence[Tensor | None]
    ) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
        """One patient after the other.

        Args:
            tokens: (B, P, d).
            bags: B bags (N, d), None for a patient without one, whose tokens attend over tokens.

        Returns:
            Of each patient, tokens (P, d_h), rows (N, d_h) and how the tokens attend over the rows,
            (P, N); None for the last two without a bag.
        """
        of_tokens = self.to_qkv(self.norm(tokens))
        return [self._attend(qkv, bag) for qkv, bag in zip(of_tokens, bags, strict=True)]

    def _attend(
        self, of_tokens: Tensor, bag: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        query, key, value = of_tokens.chunk(3, -1)  # (P, d_h)
        scale = query.shape[-1] ** -0.5
        if bag is None:
            return _softmax(scale * query @ key.T) @ value, None, None
        row_query, row_key, row_value = self.to_qkv(self.norm(bag)).chunk(3, -1)  # (N, d_h)
        keys, values = torch.cat([key, row_key]), torch.cat([value, row_value])
        weights = _softmax(scale * query @ keys.T)  # (P, P + N)
        of_rows = _softmax(scale * row_query @ key.T)  # (N, P)
        return weights @ values, of_rows @ value, weights[:, len(key) :]


def _softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, in at least fp32; the result has the dtype of the scores."""
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return wide.softmax(-1).to(scores.dtype)
