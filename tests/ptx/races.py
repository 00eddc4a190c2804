"""Which warps touched global memory, and which of them may not have known of each other.

A warp sees what the other warps of its block did before the last ``bar.sync``. Blocks of an
ordinary launch see nothing of each other. In a cooperative launch they meet: a block adds to a
counter with ``release``, and another reads the counter with ``acquire``. That covers what the one
did before its last ``bar.sync`` and what the other does after its next one. So a barrier that is
missing on either side of the meeting shows.

Time is counted in epochs: each ``bar.sync`` begins a new one of its block. Memory is watched in
pairs of bytes, the smallest element that these kernels write.
"""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError

# In place of a warp: a counter that atomics change; all warps of a block, or several.
ATOMIC = -1
SEVERAL = -1


class Races:
    """Watches ``pairs`` pairs of bytes in a launch of ``blocks`` blocks of ``warps`` warps.

    Arguments called ``pairs`` are (n, count), ``block`` and ``warp`` (n, 1): for each access the
    pairs that it touches, its block, and its warp in the block or ``SEVERAL``.
    """

    def __init__(self, pairs: int, blocks: int, warps: int, cooperative: bool):
        self._warps = warps
        self._epoch = np.ones(blocks, np.int32)
        # Number of the warp in the grid, from 1, that wrote last, and in which epoch.
        self._writer = np.zeros(pairs, np.int32)
        self._written = np.zeros(pairs, np.int32)
        self._any_written = False
        self._meetings = _Meetings(blocks, pairs) if cooperative else None

    def barrier(self, blocks: np.ndarray) -> None:
        self._epoch[blocks] += 1
        if self._meetings:
            self._meetings.barrier(blocks)

    def read(self, pairs: np.ndarray, block: np.ndarray, warp: np.ndarray) -> None:
        if self._any_written:
            own, other = self._unordered(pairs, block, warp)
            if own.any():
                raise PtxError("race: a warp reads what another of its block wrote, without a "
                               "bar.sync between them")  # fmt: skip
            if other.any():
                raise PtxError("race: a block reads what another block of this launch wrote")
        if self._meetings:
            self._meetings.note_read(pairs, block, warp, self._epoch)

    def write(
        self, pairs: np.ndarray, block: np.ndarray, warp: np.ndarray, new: np.ndarray
    ) -> None:
        """Before a write; ``new`` (n, count) is false where the memory has the same bytes already.

        Warps of one block may write the same value twice.
        """
        own, other = self._unordered(pairs, block, warp)
        if (own & new).any():
            raise PtxError("race: two warps of a block write the same bytes without a bar.sync")
        if other.any():
            raise PtxError("race: two blocks of this launch write the same bytes")
        if self._meetings:
            self._meetings.check_write(pairs, block, warp, self._epoch)
        self._any_written = True
        me = (block * self._warps + warp + 1).astype(np.int32)
        self._writer[pairs] = me
        self._written[pairs] = self._epoch[block]
        if ((self._writer[pairs] - 1) // self._warps != block).any():
            raise PtxError("race: two blocks of this launch write the same bytes")

    def count(self, pairs: np.ndarray, block: int, *, acquire: bool, release: bool) -> None:
        """An atomic access, or a load with ``acquire``, to one word by one block."""
        plain = self._writer[pairs] != ATOMIC
        own, other = self._unordered(pairs[None, plain], np.array([[block]]), np.array([[0]]))
        if (own | other).any():
            raise PtxError("race: an atomic access to what another warp wrote without one")
        self._any_written = True
        if self._meetings and release:
            self._meetings.release(int(pairs[0]), block, self._epoch[block])
        if self._meetings and acquire:
            self._meetings.acquire(int(pairs[0]), block)

    def mark_atomic(self, pairs: np.ndarray) -> None:
        self._writer[pairs] = ATOMIC

    def _unordered(self, pairs, block, warp) -> tuple[np.ndarray, np.ndarray]:
        """Where another warp of the block, or another block, wrote without this warp knowing."""
        writer = self._writer[pairs]
        if not writer.any():
            return (nothing := np.zeros(1, bool)), nothing
        if (writer == ATOMIC).any():
            raise PtxError("race: a plain access to what atomics change")
        other, of_block = np.divmod(writer - 1, self._warps)
        written, is_own = self._written[pairs], other == block
        own = is_own & (of_block != warp) & (written == self._epoch[block])
        if self._meetings:
            late = ~is_own & (written >= self._meetings.seen[block, other])
        else:
            late = ~is_own
        wrote = writer != 0
        return own & wrote, late & wrote


class _Meetings:
    """What blocks that meet know of each other, and what each of them has read."""

    def __init__(self, blocks: int, pairs: int):
        # seen[a, b]: a knows all that b did before this epoch of b; coming: after its next barrier.
        self.seen = np.zeros((blocks, blocks), np.int32)
        self._coming = np.zeros((blocks, blocks), np.int32)
        self._released: dict[int, np.ndarray] = {}
        self._read = np.zeros((blocks, pairs), np.int32)
        self._reader = np.zeros((blocks, pairs), np.int8)

    def barrier(self, blocks: np.ndarray) -> None:
        self.seen[blocks] = np.maximum(self.seen[blocks], self._coming[blocks])

    def release(self, counter: int, block: int, epoch: int) -> None:
        known = self.seen[block].copy()
        known[block] = epoch
        before = self._released.get(counter, known)
        self._released[counter] = np.maximum(before, known)

    def acquire(self, counter: int, block: int) -> None:
        if counter in self._released:
            self._coming[block] = np.maximum(self._coming[block], self._released[counter])

    def note_read(self, pairs, block, warp, epoch) -> None:
        now = epoch[block]
        here = (np.broadcast_to(block, pairs.shape), pairs)
        alone = (self._read[here] != now) | (self._reader[here] == warp)
        reader = np.where(alone, warp, SEVERAL).astype(np.int8)
        self._read[here] = np.broadcast_to(now, pairs.shape)
        self._reader[here] = reader
        lost = self._reader[here] != reader
        self._reader[here[0][lost], pairs[lost]] = SEVERAL

    def check_write(self, pairs, block, warp, epoch) -> None:
        read = self._read[:, pairs]  # (blocks, n, count)
        own, reader = self._read[block, pairs], self._reader[block, pairs]
        if ((own == epoch[block]) & (reader != warp)).any():
            raise PtxError("race: a warp overwrites what another of its block read, without a "
                           "bar.sync between them")  # fmt: skip
        known = self.seen[block[:, 0]].T[:, :, None]
        others = np.arange(len(read))[:, None, None] != block[None]
        if ((read != 0) & (read >= known) & others).any():
            raise PtxError("race: a block overwrites what another block of this launch read")
