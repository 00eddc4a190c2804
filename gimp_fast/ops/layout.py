"""What the operators share: the dtype they compute in, and how their results lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """At least fp32."""
    return torch.promote_types(x.dtype, torch.float32)


def token_major(like: Tensor) -> Tensor:
    """Empty (B, H, N, D) whose heads of a token are together, so that merging them is free."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)
