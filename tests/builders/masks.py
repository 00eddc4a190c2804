"""Masks of patches."""

from __future__ import annotations

import torch
from torch import Tensor

MASKS = ("none", "all", "alternating", "random")


def make_mask(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A bool tensor of this shape; True = masked. The generator is for ``random`` alone."""
    if kind == "random":
        return torch.rand(shape, generator=generator) < 0.5
    if kind == "alternating":
        return (torch.arange(torch.Size(shape).numel()) % 2 == 0).reshape(shape)
    return torch.full(shape, kind == "all", dtype=torch.bool)
