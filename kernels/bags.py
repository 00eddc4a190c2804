"""Which rows a program works on: bags of one length in a batch, or packed bags of any length.

How a bag is cut depends on its own length alone, so its result is bitwise the same alone, in a
batch, or packed. Row kernels take tiles of a fixed number of rows. Reductions over the tokens take
chunks, whose partial results a second kernel adds in a fixed order, without atomics.

Programs find their bag by bisection of ``cu_seqlens``: the tiles of bag b begin at number
``cu_seqlens[b] // length + b``, which leaves room for the last, shorter one. Spare programs return.
No kernel is compiled for a number of bags.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

# Kernels read these too. A program may take a whole chunk of a head: 6000 tokens of 8 heads make 96
# programs. Chunks of 1024 would make 48, and a GPU has 80 to 150 multiprocessors.
MIN_CHUNK = tl.constexpr(512)
MAX_CHUNKS = tl.constexpr(64)
CHUNK_MULTIPLE = tl.constexpr(128)


def chunk_length(n: int) -> int:
    """Tokens of a chunk, for a bag of n tokens; a bag has at most ``MAX_CHUNKS`` chunks."""
    multiple = CHUNK_MULTIPLE.value
    share = triton.cdiv(triton.cdiv(n, MAX_CHUNKS.value), multiple) * multiple
    return max(MIN_CHUNK.value, share)


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
        if not self.packed:
            return self.num_bags * triton.cdiv(self.tokens, chunk_length(self.tokens))
        return self.num_bags * MAX_CHUNKS.value if self.few else self.tiles(MIN_CHUNK.value)

    @property
    def few(self) -> bool:
        """True if room for ``MAX_CHUNKS`` chunks of every packed bag is the smaller bound."""
        return self.packed and self.num_bags * MAX_CHUNKS.value < self.tiles(MIN_CHUNK.value)

    @property
    def arguments(self) -> tuple[Tensor | None, int, int]:
        """First arguments of every kernel: ``cu_seqlens, tokens, num_bags``."""
        return self.cu_seqlens, self.tokens, self.num_bags

    @property
    def whole(self) -> tuple[Tensor | None, int]:
        """``key_seqlens, key_tokens`` of kernels that compute some of these tokens."""
        return self.cu_seqlens, self.tokens

    @property
    def constants(self) -> dict[str, bool]:
        """Constant of every kernel: ``PACKED``."""
        return {"PACKED": self.packed}


def token_major(like: Tensor) -> Tensor:
    """An empty (B, H, N, D) tensor that stores the heads of a token together."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


@triton.jit
def chunk_size(n):
    """``chunk_length`` on the device."""
    share = tl.cdiv(tl.cdiv(n, MAX_CHUNKS), CHUNK_MULTIPLE) * CHUNK_MULTIPLE
    return tl.maximum(MIN_CHUNK, share)


@triton.jit
def _bag_of(cu_seqlens, num_bags, number, LENGTH: tl.constexpr):
    """The last bag whose tiles begin at ``number`` or before, and where they begin."""
    low = num_bags * 0
    high = num_bags
    while high - low > 1:
        middle = (low + high) // 2
        begins = tl.load(cu_seqlens + middle) // LENGTH + middle
        low = tl.where(begins <= number, middle, low)
        high = tl.where(begins <= number, high, middle)
    return low, tl.load(cu_seqlens + low) // LENGTH + low


@triton.jit
def locate(cu_seqlens, tokens, num_bags, tile, LENGTH: tl.constexpr, PACKED: tl.constexpr):
    """Bag of a tile of LENGTH rows, and the tile's index in that bag, which may lie beyond it."""
    if PACKED:
        bag, first = _bag_of(cu_seqlens, num_bags, tile, LENGTH)
        index = tile - first
    else:
        count = (tokens + LENGTH - 1) // LENGTH
        bag = tile // count
        index = tile % count
    return bag, index


@triton.jit
def _are_few(tokens, num_bags):
    """``Bags.few`` of packed bags on the device."""
    return num_bags * MAX_CHUNKS < tokens // MIN_CHUNK + num_bags


@triton.jit
def locate_chunk(cu_seqlens, tokens, num_bags, chunk, PACKED: tl.constexpr):
    """Bag of a chunk, and the chunk's index in that bag, which may lie beyond it."""
    if PACKED:
        bag, first = _bag_of(cu_seqlens, num_bags, chunk, MIN_CHUNK)
        few = _are_few(tokens, num_bags)
        bag = tl.where(few, chunk // MAX_CHUNKS, bag)
        index = tl.where(few, chunk % MAX_CHUNKS, chunk - first)
    else:
        length = chunk_size(tokens)
        count = (tokens + length - 1) // length
        bag = chunk // count
        index = chunk % count
    return bag, index


@triton.jit
def chunks_of(cu_seqlens, tokens, num_bags, bag, PACKED: tl.constexpr):
    """Number of a bag's first chunk, and how many chunks it has."""
    n = bag_size(cu_seqlens, tokens, bag, PACKED)
    length = chunk_size(n)
    count = (n + length - 1) // length
    if PACKED:
        spread = tl.load(cu_seqlens + bag) // MIN_CHUNK + bag
        first = tl.where(_are_few(tokens, num_bags), bag * MAX_CHUNKS, spread)
    else:
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
