"""``torch.nn.Linear`` that is fast for few channels, and the same for any number of threads."""

from __future__ import annotations

from torch import Tensor, nn

from gimp_fast.ops import native_linear
from gimp_fast.ops.products import linear, steady_threads


class Linear(nn.Linear):
    """``torch.nn.Linear``; in eval mode on a CPU its result does not depend on the threads.

    Libraries may cut the sums of few rows among the threads, and then add up in another order.
    """

    def forward(self, x: Tensor, longest: int | None = None) -> Tensor:
        """x Wᵀ + b; ``longest`` as in :func:`gimp_fast.ops.native_linear.takes`."""
        if native_linear.takes(x, self.weight, self.bias, longest):
            return native_linear.linear(x, self.weight, self.bias)
        with steady_threads(x, training=self.training):
            return linear(x, self.weight, self.bias)
