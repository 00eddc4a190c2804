"""``torch.nn.LayerNorm`` that moves half as many bytes under autocast on a GPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.ops.registration import product_dtype


class LayerNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm``; under autocast an input of autocast's dtype is not cast to fp32.

    On a GPU, autocast would cast the tokens to fp32 and the result, if a product follows, back, and
    so for their gradients. Here only weight and bias are cast, as for a product. Statistics are in
    fp32 either way. On a CPU torch does the same by itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if x.device.type == "cpu" or x.dtype == self.weight.dtype or x.dtype != product_dtype(x):
            return super().forward(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
