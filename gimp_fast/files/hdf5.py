"""What can be checked of an HDF5 file before it is believed: HDF5 itself checks next to nothing."""

from __future__ import annotations

import math

import h5py
from h5py import h5t

from gimp_fast.errors import FaultError

_LARGEST_CHUNK = 1 << 30
INTEGERS = tuple(getattr(h5t, f"STD_{sign}{bits}LE") for sign in "IU" for bits in (8, 16, 32, 64))
# HDF5 describes numbers by their bit fields; a damaged description is read as other numbers.
NUMBERS = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE, *INTEGERS)


def check_all_stored(where: str, element: h5py.Dataset | h5py.Group) -> None:
    """``check_stored`` for all arrays of a group."""
    parts = element.values() if isinstance(element, h5py.Group) else (element,)
    for part in parts:
        if isinstance(part, h5py.Group):
            check_all_stored(where, part)
        else:
            check_stored(where, part)


def check_stored(where: str, array: h5py.Dataset) -> None:
    """HDF5 gives zeros for what was declared and never written."""
    if not array.size:
        return
    expected = "every declared value to be stored in the file"
    if array.external is not None or array.is_virtual:
        raise FaultError.of("unreadable-file", where, "values in other files", expected)
    size = array.size * array.id.get_type().get_size()
    if array.chunks is None:
        stored = array.id.get_storage_size()
        if stored < size:  # text is stored as references, which are larger than in memory
            raise FaultError.of("truncated-file", where, f"{stored} of {size} bytes", expected)
        return
    pairs = zip(array.shape, array.chunks, strict=True)
    chunks, stored = (
        math.prod(-(-side // chunk) for side, chunk in pairs),
        array.id.get_num_chunks(),
    )
    if stored != chunks or math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK:
        found = f"{stored} of {chunks} chunks of {array.chunks}"
        raise FaultError.of("truncated-file", where, found, expected)
