"""Shared memory of many blocks, which reports races between the warps of a block.

For every byte it keeps which warps wrote and which read it since the block's last barrier. Bytes
that ``cp.async`` will fill must not be touched before its wait. Threads of one warp are not told
apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ptx.bytes_in_words import Bytes, word_index
from ptx.errors import PtxError

# Addresses begin here, as where the driver keeps a kilobyte for itself.
BASE = 1024
LARGEST = 16
MAX_WARPS = 16


@dataclass
class _Copies:
    """Copies under way: where to, what, by which thread, in which of its groups."""

    index: np.ndarray  # (n,) words
    values: np.ndarray  # (n, size)
    lane: np.ndarray
    warp: np.ndarray
    group: np.ndarray

    def part(self, chosen: np.ndarray) -> _Copies:
        return _Copies(*(x[chosen] for x in vars(self).values()))


class SharedMemory:
    """``size`` bytes for each of ``blocks`` blocks of ``threads`` threads.

    Arguments called ``lane`` are (n,) numbers of threads, ``block · threads + thread``.
    """

    def __init__(self, blocks: int, threads: int, size: int):
        if threads > 32 * MAX_WARPS:
            raise PtxError(f"blocks of more than {MAX_WARPS} warps are not modelled")
        self.threads, self.size = threads, size
        self._stride = -(-max(size, 1) // LARGEST) * LARGEST
        total = blocks * self._stride
        self._bytes = Bytes(np.full(total, 0xFF, np.uint8))
        self._pending = Bytes(np.zeros(total, np.uint8))
        # A bit for each warp; all warps of small blocks fit into a byte.
        self._mask = np.dtype("u1" if threads <= 256 else "u2")
        bits = np.left_shift(1, np.arange(threads) // 32).astype(self._mask)
        # Of every thread: where its block's memory begins, and the bit of its warp.
        self._starts = np.repeat(np.arange(blocks) * self._stride, threads)
        self._bits = np.tile(bits, blocks)
        self._writers, self._readers = (Bytes(np.zeros(total, self._mask).view("u1")) for _ in "wr")
        self._reads: list[tuple[np.ndarray, np.ndarray, int]] = []
        self._committed = np.zeros(blocks * threads, np.int64)
        self._copies: list[_Copies] = []

    def load(self, address: np.ndarray, size: int, lane: np.ndarray) -> np.ndarray:
        """(n, size) bytes."""
        index, warp = self._locate(address, size, lane, "read")
        if self._copies and self._pending.read(index, size).any():
            raise PtxError("shared memory is read before the wait for the cp.async that fills it")
        writers = self._masks(self._writers, index, size)
        # A warp may read what it wrote itself, also if others wrote the same in one instruction.
        if writers.any() and ((writers != 0) & (writers & warp[:, None] == 0)).any():
            raise PtxError("race: a warp reads what another wrote since the last bar.sync")
        self._reads.append((index, warp, size))
        return self._bytes.read(index, size)

    def store(self, address: np.ndarray, values: np.ndarray, lane: np.ndarray) -> None:
        """Write (n, size) bytes."""
        size = values.shape[-1]
        index, warp = self._locate(address, size, lane, "write")
        self._check_write(index, size, warp)
        self._bytes.write(index, values)
        self._note(self._writers, index, size, warp)
        # Threads of one warp may differ in what they write: any of the values may stay. Triton's
        # row sums do, by a rounding, where a product was fused to the first step of a sum.
        lost = self._bytes.read(index, size) != values
        if lost.any() and (lost & (self._masks(self._writers, index, size) != warp[:, None])).any():
            raise PtxError("race: two warps write different values to the same address")

    def start_copy(self, address: np.ndarray, values: np.ndarray, lane: np.ndarray) -> None:
        """``cp.async``: the bytes arrive when the thread waits for them."""
        size = values.shape[-1]
        index, warp = self._locate(address, size, lane, "cp.async")
        self._check_write(index, size, warp)
        self._pending.write(index, np.full_like(values, 1))
        self._copies.append(_Copies(index, values, lane, warp, self._committed[lane]))

    def commit(self, lane: np.ndarray) -> None:
        self._committed[lane] += 1

    def wait(self, lane: np.ndarray, allowed: int | None) -> None:
        """Finish the copies of these threads, but for the last ``allowed`` groups.

        None: all of them, also those that no ``commit_group`` has closed.
        """
        limit = np.zeros(len(self._committed), np.int64)
        limit[lane] = self._committed[lane] + 1 if allowed is None else (
            self._committed[lane] - allowed
        )  # fmt: skip
        copies, self._copies = self._copies, []
        for copy in copies:
            done = copy.group < limit[copy.lane]
            if not done.all():
                self._copies.append(copy.part(~done))
            self._finish(copy.part(done))

    def _finish(self, copy: _Copies) -> None:
        size = copy.values.shape[-1]
        self._bytes.write(copy.index, copy.values)
        self._pending.write(copy.index, np.zeros_like(copy.values))
        self._note(self._writers, copy.index, size, copy.warp)

    def barrier(self, blocks: np.ndarray) -> None:
        """All threads of these blocks have arrived: what they did is ordered."""
        if len(blocks) * self.threads == len(self._committed):
            self._reads.clear()
        self._record_reads()
        for state in (self._writers, self._readers):
            rows = state.data.reshape(-1, self._stride * self._mask.itemsize)
            rows[blocks] = 0

    def _locate(self, address, size, lane, what) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the words, and the bit of each thread's warp."""
        offset = address.astype(np.int64) - BASE
        index = word_index(offset, size, self.size, f"shared {what}")
        index += self._starts.take(lane) >> (size.bit_length() - 1)
        return index, self._bits.take(lane)

    def _masks(self, state: Bytes, index: np.ndarray, size: int) -> np.ndarray:
        """(n, size) masks of warps."""
        if self._mask.itemsize == 1:
            return state.read(index, size)
        return state.data.view(self._mask)[_each_byte(index, size)]

    def _check_write(self, index: np.ndarray, size: int, warp: np.ndarray) -> None:
        if self._copies and self._pending.read(index, size).any():
            raise PtxError("shared memory is written while a cp.async is under way to it")
        self._record_reads()
        if (self._masks(self._readers, index, size) & ~warp[:, None]).any():
            raise PtxError("race: a warp overwrites what another read since the last bar.sync")
        if (self._masks(self._writers, index, size) & ~warp[:, None]).any():
            raise PtxError("race: a warp overwrites what another wrote since the last bar.sync")

    def _note(self, state: Bytes, index: np.ndarray, size: int, warp: np.ndarray) -> None:
        """Set the bit of its warp at every byte of an access, several bytes at a time."""
        width = self._mask.itemsize
        unit = min(8, size * width)
        count = size * width // unit
        where = index if count == 1 else index[:, None] * count + np.arange(count)
        masks = state.data.view(each := f"u{unit}")
        # The same bit for all the bytes of a unit.
        ones = sum(1 << i for i in range(0, 8 * unit, 8 * width))
        bits = warp.astype(each) * masks.dtype.type(ones)
        np.bitwise_or.at(masks, where, bits if count == 1 else np.repeat(bits[:, None], count, 1))

    def _record_reads(self) -> None:
        """Note the readers; only a write asks for them, and many barriers come without one."""
        for index, warp, size in self._reads:
            self._note(self._readers, index, size, warp)
        self._reads.clear()


def _each_byte(index: np.ndarray, size: int) -> np.ndarray:
    """(n,) words -> (n, size) bytes."""
    return index[:, None] * size + np.arange(size)
