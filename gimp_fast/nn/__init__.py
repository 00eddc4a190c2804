"""Modules with parameters, built on :mod:`gimp_fast.ops`."""

from gimp_fast.nn.nystrom_attention import NystromAttention

__all__ = ["NystromAttention"]
