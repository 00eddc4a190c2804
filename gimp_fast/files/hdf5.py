"""Checks of an HDF5 file before it is believed: HDF5 itself checks next to nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
from h5py import h5t

from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line

# HDF5 describes numbers by their bit fields: a damaged description is read as other numbers,
# without an error. Nobody writes any but these.
FLOATS = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE)
INTEGERS = tuple(getattr(h5t, f"STD_{sign}{bits}LE") for sign in "IU" for bits in (8, 16, 32, 64))
LARGEST_CHUNK = 1 << 30


@contextlib.contextmanager
def hdf5_errors(path: Path, expected: str) -> Iterator[None]:
    """Turn what h5py raises for a damaged file into a FaultError."""
    try:
        yield
    except DAMAGE_ERRORS as error:
        text = one_line(error)
        kind = "truncated-file" if "truncated file" in text else "unreadable-file"
        kind = "missing-file" if isinstance(error, FileNotFoundError) else kind
        raise FaultError.of(kind, path, text, expected) from error


def has_type(array: h5py.Dataset, types: Sequence[h5t.TypeID]) -> bool:
    """True if the numbers are stored as one of these types, e.g. ``FLOATS``."""
    return any(array.id.get_type() == known for known in types)


def check_all_stored(where: str, element: h5py.Dataset | h5py.Group) -> None:
    """``check_stored`` for all arrays of a group."""
    if isinstance(element, h5py.Dataset):
        check_stored(where, element)
    else:
        for part in element.values():
            check_all_stored(where, part)


def check_stored(where: str, array: h5py.Dataset, *, allow_external: bool = False) -> None:
    """FaultError if values were declared and never written: HDF5 reads them as zeros.

    Args:
        where: the file and the array, for faults.
        array: any array.
        allow_external: whether the values may lie in another file, and are not checked then.
    """
    if not array.size:
        return
    expected = "every declared value to be stored in the file"
    if allow_external and array.external is not None:
        return
    if array.external is not None or array.is_virtual:
        raise FaultError.of("unreadable-file", where, "values in other files", expected)
    if array.chunks is None:
        size, stored = array.size * array.id.get_type().get_size(), array.id.get_storage_size()
        # Text is stored as references, which take more space than in memory.
        if stored < size or (stored > size and array.dtype.kind != "O"):
            raise FaultError.of("truncated-file", where, f"{stored} of {size} bytes", expected)
        return
    if math.prod(array.chunks) * array.dtype.itemsize > LARGEST_CHUNK:
        found = f"chunks of {array.chunks}"
        raise FaultError.of("unreadable-file", where, found, "chunks below 1 GiB")
    sides = zip(array.shape, array.chunks, strict=True)
    chunks = math.prod(math.ceil(side / chunk) for side, chunk in sides)
    stored = array.id.get_num_chunks()
    if stored != chunks:
        found = f"{stored} of {chunks} chunks of {array.chunks}"
        raise FaultError.of("truncated-file", where, found, expected)
