"""Floating types in the names of tests."""

from __future__ import annotations

import torch

NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


def dtype_id(dtype: torch.dtype) -> str:
    """The short name of a floating type, as the package's options spell it."""
    return NAMES[dtype]
