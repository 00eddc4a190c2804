"""Dropout that keeps one byte an element for the backward pass, on the CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``, of which the CPU's keeps a factor for every element.

    Bit for bit the same in fp32 and fp64; in half precisions the factor is not rounded.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu" or self.inplace:
            return super().forward(x)
        return torch.native_dropout(x, self.p, True)[0]
