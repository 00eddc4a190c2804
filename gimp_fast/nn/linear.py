"""``torch.nn.Linear`` whose results do not depend on the number of threads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gimp_fast.ops.products import steady_threads


class Linear(nn.Linear):
    """``torch.nn.Linear``; in eval mode on a CPU, few rows are multiplied on one thread.

    Libraries may cut the sums of few rows among the threads, and then add up in another order.
    """

    def forward(self, x: Tensor) -> Tensor:
        with steady_threads(x, training=self.training):
            return F.linear(x, self.weight, self.bias)
