"""Operators for any PyTorch model: they validate, choose a backend and have gradients."""

from gimp_fast.ops.backends import available_backends
from gimp_fast.ops.masked_l1 import masked_l1_loss
from gimp_fast.ops.masked_reconstruction import masked_reconstruction_loss
from gimp_fast.ops.nystrom_attention import nystrom_attention
from gimp_fast.ops.nystrom_attention_row import nystrom_attention_row

__all__ = [
    "available_backends",
    "masked_l1_loss",
    "masked_reconstruction_loss",
    "nystrom_attention",
    "nystrom_attention_row",
]


def __dir__() -> list[str]:
    return sorted(__all__)
