"""Sums of what chunks of tokens give to the gradients of the landmarks, in a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gimp_fast.kernels.bags import Bags, bag_size, chunks_of, load_rows, store_rows
from gimp_fast.kernels.landmarks import block_d
from gimp_fast.kernels.landmarks_to_keys import COMBINE
from gimp_fast.kernels.launch import launch


@triton.jit(do_not_specialize=["tokens", "num_bags", "key_tokens"])
def _sum_chunks_kernel(
    cu_seqlens, tokens, num_bags, key_seqlens, key_tokens,
    part, grad, part_size, grad_size, H, M, D,
    PACKED: tl.constexpr, ACCUMULATE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    mark_tiles = tl.cdiv(M, BLOCK_M)
    bag = tl.program_id(0) // mark_tiles
    head = tl.program_id(1)
    part += tl.program_id(2).to(tl.int64) * part_size
    grad += tl.program_id(2).to(tl.int64) * grad_size
    m = (tl.program_id(0) % mark_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = bag_size(key_seqlens, key_tokens, bag, PACKED)
    inside = m < tl.minimum(n, M)
    mark_rows = (bag.to(tl.int64) * H + head) * M
    # A bag of N ≤ M tokens has no part from the queries.
    if ACCUMULATE:
        total = load_rows(grad + mark_rows * D, m, D, inside & (n > M), D, BLOCK_D)
        here = inside
    else:
        total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        here = inside & (n > M)
    first_chunk, chunks = chunks_of(cu_seqlens, tokens, num_bags, bag, PACKED)
    # The parts are read long before they are used: nothing else hides the time that this takes.
    for chunk in tl.range(0, chunks, num_stages=4):
        part_rows = ((first_chunk + chunk).to(tl.int64) * H + head) * M
        total += load_rows(part + part_rows * D, m, D, here, D, BLOCK_D)
    store_rows(grad + mark_rows * D, m, D, m < M, total, D, BLOCK_D)


def sum_chunks(parts: Tensor, bags: Bags, keys: Bags, onto: Tensor | None = None) -> Tensor:
    """Partial gradients of M landmarks, summed over the chunks of each bag in order.

    Args:
        parts: (K, chunks, H, M, D) fp32, of K gradients.
        bags, keys: the bags that were cut into chunks, and those of all tokens.
        onto: (K, B, H, M, D) fp32 to add to in place. Bags of N ≤ M tokens are summed only here,
            and onto nothing: their landmarks have no other gradient.

    Returns:
        (K, B, H, M, D) fp32.
    """
    count, _, h, m, d = parts.shape
    sums = parts.new_empty(count, bags.num_bags, h, m, d) if onto is None else onto
    launch(
        _sum_chunks_kernel,
        (bags.num_bags * triton.cdiv(m, COMBINE.landmarks), h, count),
        COMBINE,
        *bags.arguments, *keys.whole, parts, sums, parts.stride(0), sums.stride(0), h, m, d,
        **bags.constants, ACCUMULATE=onto is not None, BLOCK_M=COMBINE.landmarks,
        BLOCK_D=block_d(d),
    )  # fmt: skip
    return sums
