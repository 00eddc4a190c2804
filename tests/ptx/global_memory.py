"""Tensors as the global memory of one launch.

They are copied into one array of bytes, far apart, at addresses as aligned as their own. Only bytes
of elements of a tensor that the kernel was given may be touched, and no byte may be written by two
blocks, or read by a block after another one has written it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from ptx.bytes_in_words import Bytes, word_index
from ptx.errors import PtxError
from torch import Tensor

# Where the first byte seems to be: small numbers and negative ones are no addresses.
BASE = 0x7F00_0000_0000
ALIGNMENT = 256


class GlobalMemory:
    """Memory with the storages of these tensors."""

    def __init__(self, tensors: Iterable[Tensor]):
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
        # Number of the block that wrote a pair of bytes, from 1.
        self._owner = np.zeros(end // 2, np.uint32)
        self._written = False

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
        if self._written:
            for pointer, storage in self._storages.items():
                _bytes_of(storage)[:] = self._part(pointer, self._bytes.data)

    def load(self, address: np.ndarray, size: int, block: np.ndarray) -> np.ndarray:
        """(…, size) bytes; ``block`` has the number of each reader's block."""
        index = self._index(address, size, "read")
        if self._written:
            owner = self._owner[_pairs(index, size)]
            if ((owner != 0) & (owner != block[..., None] + 1)).any():
                raise PtxError("a block reads what another block of this launch wrote")
        return self._bytes.read(index, size)

    def store(self, address: np.ndarray, values: np.ndarray, block: np.ndarray) -> None:
        size = values.shape[-1]
        index = self._index(address, size, "write")
        pairs, me = _pairs(index, size), block[..., None].astype(np.uint32) + 1
        owner = self._owner[pairs]
        if ((owner != 0) & (owner != me)).any():
            raise PtxError("two blocks of this launch write the same bytes")
        self._owner[pairs] = me
        self._written = True
        self._bytes.write(index, values)
        if (self._owner[pairs] != me).any():
            raise PtxError("two blocks of this launch write the same bytes")
        if (self._bytes.read(index, size) != values).any():
            raise PtxError("two threads write different values to the same address")

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


def _bytes_of(storage: torch.UntypedStorage) -> np.ndarray:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def _mark_elements(x: Tensor, part: np.ndarray) -> None:
    """Put 1 on the bytes of every element of a tensor."""
    size = x.element_size()
    marks = torch.from_numpy(part)
    strides = (*(stride * size for stride in x.stride()), 1)
    marks.as_strided((*x.shape, size), strides, x.storage_offset() * size).fill_(1)
