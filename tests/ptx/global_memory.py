"""Tensors as the global memory of one launch.

They are copied into one array of bytes, far apart, at addresses as aligned as their own. Only bytes
of elements of a tensor that the kernel was given may be touched, and only by warps that know of
what others did to them: see ``races.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from ptx.bytes_in_words import Bytes, word_index
from ptx.errors import PtxError
from ptx.races import Races
from torch import Tensor

# Where the first byte seems to be: small numbers and negative ones are no addresses.
BASE = 0x7F00_0000_0000
ALIGNMENT = 256


class GlobalMemory:
    """Memory with the storages of these tensors, for a launch of blocks of so many threads.

    Attributes:
        version: grows with every write, so that a block can tell whether waiting makes sense.

    Arguments called ``block`` and ``warp`` have the number of each access's block in the grid, and
    of its warp in the block, or -1 where all warps read one word.
    """

    def __init__(
        self, tensors: Iterable[Tensor], blocks: int, threads: int, cooperative: bool = False
    ):
        tensors = [x for x in tensors if x.untyped_storage().nbytes()]
        self._storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors}
        self._offsets, end = {}, ALIGNMENT
        for pointer, storage in self._storages.items():
            self._offsets[pointer] = end + pointer % ALIGNMENT
            end += 2 * ALIGNMENT + -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        self._bytes = Bytes(np.zeros(end, np.uint8))
        allowed = np.zeros(end, np.uint8)
        for pointer, storage in self._storages.items():
            self._part(pointer, self._bytes.data)[:] = _bytes_of(storage)
        for x in tensors:
            _mark_elements(x, self._part(x.untyped_storage().data_ptr(), allowed))
        self._allowed = Bytes(allowed)
        self.races = Races(end // 2, blocks, threads // 32, cooperative)
        self.version = 0

    def _part(self, pointer: int, data: np.ndarray) -> np.ndarray:
        start = self._offsets[pointer]
        return data[start : start + self._storages[pointer].nbytes()]

    def address(self, x: Tensor) -> int:
        """Where the first element of a tensor is; an empty one has an address of nothing."""
        if not x.untyped_storage().nbytes():
            return BASE
        storage = x.untyped_storage().data_ptr()
        return BASE + self._offsets[storage] + x.data_ptr() - storage

    def copy_back(self) -> None:
        """Put what was written into the tensors."""
        if self.version:
            for pointer, storage in self._storages.items():
                _bytes_of(storage)[:] = self._part(pointer, self._bytes.data)

    def load(
        self, address: np.ndarray, size: int, block: np.ndarray, warp: np.ndarray
    ) -> np.ndarray:
        """(…, size) bytes."""
        index = self._index(address, size, "read")
        self.races.read(*_flat(_pairs(index, size), block, warp))
        return self._bytes.read(index, size)

    def store(
        self, address: np.ndarray, values: np.ndarray, block: np.ndarray, warp: np.ndarray
    ) -> None:
        """Write (n, size) bytes."""
        size = values.shape[-1]
        index = self._index(address, size, "write")
        new = (self._bytes.read(index, size) != values).any(-1, keepdims=True)
        self.races.write(*_flat(_pairs(index, size), block, warp), new)
        self.version += 1
        self._bytes.write(index, values)
        if (self._bytes.read(index, size) != values).any():
            raise PtxError("two threads write different values to the same address")

    def load_acquire(self, address: np.ndarray, size: int, block: np.ndarray) -> np.ndarray:
        """(n, size) bytes; what came before the releases that it reads is now known."""
        index = self._index(address, size, "read")
        for pairs, one in zip(_pairs(index, size), block, strict=True):
            self.races.count(pairs, one, acquire=True, release=False)
        return self._bytes.read(index, size)

    def add(
        self, address: np.ndarray, values: np.ndarray, block: np.ndarray, **order: bool
    ) -> np.ndarray:
        """Add (n,) u32 numbers one after the other; (n,) numbers that were there before."""
        index, before = self._index(address, 4, "atomic access"), np.empty_like(values)
        for i, pairs in enumerate(_pairs(index, 4)):
            self.races.count(pairs, block[i], **order)
            self.races.mark_atomic(pairs)
            word = self._bytes.read(index[i : i + 1], 4).view(np.uint32)[0]
            before[i] = word[0]
            self._bytes.write(index[i : i + 1], (word + values[i])[None].view(np.uint8))
            self.version += 1
        return before

    def _index(self, address: np.ndarray, size: int, what: str) -> np.ndarray:
        offset = (address - np.uint64(BASE)).view(np.int64)
        index = word_index(offset, size, len(self._bytes.data), f"global {what}")
        if not (self._allowed.read(index, size) == 1).all():
            raise PtxError(f"global {what} of {size} bytes outside of every tensor of the launch")
        return index


def _pairs(index: np.ndarray, size: int) -> np.ndarray:
    """Pairs of bytes in the words of these indices."""
    count = max(1, size // 2)
    return index[..., None] * size // 2 + np.arange(count)


def _flat(pairs: np.ndarray, block: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, ...]:
    """(…, count), (…), (…) -> (n, count), (n, 1), (n, 1)."""
    return pairs.reshape(-1, pairs.shape[-1]), block.reshape(-1, 1), warp.reshape(-1, 1)


def _bytes_of(storage: torch.UntypedStorage) -> np.ndarray:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def _mark_elements(x: Tensor, part: np.ndarray) -> None:
    """Put 1 on the bytes of every element of a tensor."""
    size = x.element_size()
    marks = torch.from_numpy(part)
    strides = (*(stride * size for stride in x.stride()), 1)
    marks.as_strided((*x.shape, size), strides, x.storage_offset() * size).fill_(1)
