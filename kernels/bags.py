"""Which rows a program works on: bags of one length in a batch, or packed bags of any length.

How a bag is cut depends on its own length alone, so its result is bitwise the same alone, in a
batch, or packed. Row kernels take tiles of a fixed number of rows. Reductions over the tokens take
chunks, whose partial results a second kernel adds in a fixed order, without atomics.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

MIN_CHUNK = 512
MAX_CHUNKS = 64
CHUNK_MULTIPLE = 128


def chunk_length(n: int) -> int:
    """Tokens of a chunk, for a bag of n tokens; a bag has at most ``MAX_CHUNKS`` chunks."""
    share = triton.cdiv(triton.cdiv(n, MAX_CHUNKS), CHUNK_MULTIPLE) * CHUNK_MULTIPLE
    return max(MIN_CHUNK, share)


@dataclass(frozen=True)
class Bags:
    """The bags of one call, and how many programs cover them.

    Attributes:
        num_bags: B.
        tokens: N, the length of every bag of a batch; T, all tokens, of packed bags.
        cu_seqlens: (B + 1,) int32 on the device, of packed bags.
    """

    num_bags: int
    tokens: int
    cu_seqlens: Tensor | None

    @property
    def packed(self) -> bool:
        return self.cu_seqlens is not None

    def tiles(self, length: int) -> int:
        """Number of tiles of this length. For packed bags an upper bound: spare programs return."""
        if self.packed:
            return self.tokens // length + self.num_bags
        return self.num_bags * triton.cdiv(self.tokens, length)

    def chunks(self) -> int:
        """Number of chunks, or an upper bound as in :meth:`tiles`."""
        if self.packed:
            return min(MAX_CHUNKS * self.num_bags, self.tokens // MIN_CHUNK + self.num_bags)
        return self.num_bags * triton.cdiv(self.tokens, chunk_length(self.tokens))

    @property
    def arguments(self) -> tuple[Tensor | None, int, int]:
        """First arguments of every kernel: ``cu_seqlens, tokens, num_bags``."""
        return self.cu_seqlens, self.tokens, self.num_bags

    @property
    def whole(self) -> tuple[Tensor | None, int]:
        """``key_seqlens, key_tokens`` of kernels that compute some of these tokens."""
        return self.cu_seqlens, self.tokens

    @property
    def constants(self) -> dict[str, bool | int]:
        """Constants of every kernel: ``PACKED, BAGS``."""
        return {
            "PACKED": self.packed,
            "BAGS": triton.next_power_of_2(self.num_bags) if self.packed else 1,
        }


@triton.jit
def tile_length(n, LENGTH: tl.constexpr):
    """LENGTH, or the length of a chunk if LENGTH is 0: ``chunk_length`` on the device."""
    if LENGTH == 0:
        return tl.maximum(512, (((n + 63) // 64 + 127) // 128) * 128)
    else:
        return LENGTH + n * 0


@triton.jit
def locate(cu_seqlens, tokens, num_bags, tile, LENGTH, PACKED: tl.constexpr, BAGS: tl.constexpr):
    """Bag of a tile, and the tile's index in that bag. A bag ≥ num_bags means: no such tile."""
    if PACKED:
        bags = tl.arange(0, BAGS)
        inside = bags < num_bags
        starts = tl.load(cu_seqlens + bags, mask=inside, other=0)
        n = tl.load(cu_seqlens + bags + 1, mask=inside, other=0) - starts
        length = tile_length(n, LENGTH)
        counts = (n + length - 1) // length
        bag = tl.sum((tl.cumsum(counts, 0) <= tile).to(tl.int32), 0)
        index = tile - tl.sum(tl.where(bags < bag, counts, 0), 0)
    else:
        length = tile_length(tokens, LENGTH)
        count = (tokens + length - 1) // length
        bag = tile // count
        index = tile % count
    return bag, index


@triton.jit
def chunks_of(cu_seqlens, tokens, num_bags, bag, PACKED: tl.constexpr, BAGS: tl.constexpr):
    """First chunk of a bag, and the number of chunks in it."""
    if PACKED:
        bags = tl.arange(0, BAGS)
        inside = bags < num_bags
        starts = tl.load(cu_seqlens + bags, mask=inside, other=0)
        n = tl.load(cu_seqlens + bags + 1, mask=inside, other=0) - starts
        length = tile_length(n, 0)
        counts = (n + length - 1) // length
        first = tl.sum(tl.where(bags < bag, counts, 0), 0)
        count = tl.sum(tl.where(bags == bag, counts, 0), 0)
    else:
        length = tile_length(tokens, 0)
        count = (tokens + length - 1) // length
        first = bag * count
    return first, count


@triton.jit
def bag_size(cu_seqlens, tokens, bag, PACKED: tl.constexpr):
    """Number of tokens of a bag."""
    n = tokens
    if PACKED:
        n = tl.load(cu_seqlens + bag + 1) - tl.load(cu_seqlens + bag)
    return n


@triton.jit
def bag_rows(cu_seqlens, tokens, bag, PACKED: tl.constexpr):
    """Number of tokens of a bag, its first row, and its index in the batch dimension."""
    if PACKED:
        first = tl.load(cu_seqlens + bag)
        n = tl.load(cu_seqlens + bag + 1) - first
        batch = bag * 0
    else:
        first = bag * 0
        n = tokens
        batch = bag
    return n, first, batch


@triton.jit
def load_rows(base, rows, row_stride, inside, D, BLOCK_D: tl.constexpr):
    """Rows of a (…, D) tensor of unit stride, zero outside -> (rows, BLOCK_D)."""
    d = tl.arange(0, BLOCK_D)
    pointers = base + rows.to(tl.int64)[:, None] * row_stride + d[None, :]
    return tl.load(pointers, mask=inside[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def store_rows(base, rows, row_stride, inside, values, D, BLOCK_D: tl.constexpr):
    """(rows, BLOCK_D) into rows of a (…, D) tensor of unit stride."""
    d = tl.arange(0, BLOCK_D)
    pointers = base + rows.to(tl.int64)[:, None] * row_stride + d[None, :]
    tl.store(
        pointers,
        values.to(base.dtype.element_ty),
        mask=inside[:, None] & (d < D)[None, :],
    )


@triton.jit
def load_stats(stats, rows, inside):
    """The two statistics of each row of a (…, 2) tensor, zero outside."""
    first = tl.load(stats + 2 * rows, mask=inside, other=0.0)
    second = tl.load(stats + 2 * rows + 1, mask=inside, other=0.0)
    return first, second


@triton.jit
def store_stats(stats, rows, inside, first, second):
    tl.store(stats + 2 * rows, first, mask=inside)
    tl.store(stats + 2 * rows + 1, second, mask=inside)
