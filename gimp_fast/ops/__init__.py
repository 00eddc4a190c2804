"""Operators that any PyTorch model can call: validation, choice of backend, gradients."""

from gimp_fast.ops.backends import available_backends

__all__ = ["available_backends"]
