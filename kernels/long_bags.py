"""Where the M×M matrices of bags lie: only bags of more than M tokens have any.

Of two long bags the later begins more than M tokens after the earlier. So each has a slot of its
own, ``cu_seqlens[b] // (M + 1)``, found without a list, and T // (M + 1) slots are enough.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gimp_fast.kernels.bags import Bags


def matrix_slots(bags: Bags, m: int) -> int:
    """How many bags there is room for."""
    return min(bags.num_bags, bags.tokens // (m + 1)) if bags.packed else bags.num_bags


@triton.jit
def matrix_slot(cu_seqlens, tokens, num_bags, bag, M, PACKED: tl.constexpr):
    """The slot of a bag of more than M tokens."""
    slot = bag
    if PACKED:
        first = tl.load(cu_seqlens + bag)
        slot = tl.where(tokens // (M + 1) < num_bags, first // (M + 1), bag)
    return slot
