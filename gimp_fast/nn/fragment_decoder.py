"""Decoder from tokens to the expression of gene fragments, and its error."""

from __future__ import annotations

from torch import Tensor, nn

from gimp_fast.nn.linear import Linear


class FragmentDecoder(nn.Module):
    """x̂ = W₂ LN(GELU(W₁ z)): the expression of a fragment from its token."""

    def __init__(self, dim: int, fragment_size: int):
        super().__init__()
        self.layers = nn.Sequential(
            Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), Linear(dim, fragment_size)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., fragment size)."""
        return self.layers(tokens)


def fragment_l1(prediction: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Mean absolute error of each patient over its counted genes.

    Args:
        prediction, target: (B, F, fragment size).
        counted: (B or 1, F, fragment size) bool, False = padding; at least one True per patient.

    Returns:
        (B,), in the dtype of the target.
    """
    counted = counted.to(target.dtype)
    errors = (prediction.to(target.dtype) - target).abs() * counted
    return errors.sum((1, 2)) / counted.sum((1, 2))
