"""Checks of an HDF5 file before it is believed: HDF5 itself checks next to nothing.

A file may also say that its values lie in another file, which can be any file of this computer.
Everything is opened by ``member``, which stays inside the file, and checked by ``check_stored``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
from h5py import h5l, h5o, h5t

from gimp_fast.errors import DAMAGE_ERRORS, FaultError, one_line
from gimp_fast.files.paths import OUTSIDE

# HDF5 describes numbers by their bit fields: a damaged description is read as other numbers,
# without an error. Nobody writes any but these.
FLOATS = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE)
INTEGERS = tuple(getattr(h5t, f"STD_{sign}{bits}LE") for sign in "IU" for bits in (8, 16, 32, 64))
LARGEST_CHUNK = 1 << 30
_IN_FILE = "values that are stored in the file itself"
_MOST_LINKS = 16  # soft links that are followed; a link may point to itself


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


def member(group: h5py.Group, path: str) -> h5py.Dataset | h5py.Group | None:
    """What has this name in the file; None if nothing has.

    Args:
        group: where the path starts.
        path: a name, or names with slashes; soft links inside the file are followed.

    Raises:
        FaultError: a link on the way leads to another file, which is not opened.
    """
    return _follow(group, path, _MOST_LINKS)


def _follow(group: h5py.Group, path: str, links: int) -> h5py.Dataset | h5py.Group | None:
    found = group.file["/"] if path.startswith("/") else group
    for name in path.split("/"):
        if name in ("", "."):
            continue
        key = name.encode("utf-8", "surrogateescape")
        if not isinstance(found, h5py.Group) or not found.id.links.exists(key):
            return None
        kind = found.id.links.get_info(key).type
        if kind == h5l.TYPE_SOFT and links:
            target = found.id.links.get_val(key).decode("utf-8", "surrogateescape")
            found = _follow(found, target, links - 1)
        elif kind == h5l.TYPE_HARD:
            found = found[name]
        else:
            where = f"{group.file.filename}[{path}]"
            raise FaultError.of(OUTSIDE, where, _link_text(found, key), _IN_FILE)
    return found


def _link_text(group: h5py.Group, key: bytes) -> str:
    kind = group.id.links.get_info(key).type
    if kind == h5l.TYPE_EXTERNAL:
        file = group.id.links.get_val(key)[0].decode("utf-8", "replace")
        return f"a link to another file ('{file:.100}')"
    return "links that lead to each other" if kind == h5l.TYPE_SOFT else "a link of unknown kind"


def check_all_stored(where: str, element: h5py.Dataset | h5py.Group) -> None:
    """``check_stored`` for all arrays of a group."""
    _check_tree(where, element, set())


def _check_tree(where: str, element: h5py.Dataset | h5py.Group, seen: set[int]) -> None:
    if isinstance(element, h5py.Dataset):
        check_stored(where, element)
        return
    place = h5o.get_info(element.id).addr
    if place in seen:  # one group may have many names
        return
    seen.add(place)
    for name in element:
        part = member(element, name)
        if part is None:
            raise FaultError.of("unreadable-file", where, f"a broken link '{name}'", _IN_FILE)
        _check_tree(where, part, seen)


def check_stored(where: str, array: h5py.Dataset) -> None:
    """FaultError if values lie in other files, or were declared and never written.

    HDF5 reads values that were never written as zeros, and those of any other file as numbers.

    Args:
        where: the file and the array, for faults.
        array: any array.
    """
    if array.external is not None or array.is_virtual:
        found = f"values in other files ({_other_files(array)})"
        raise FaultError.of(OUTSIDE, where, found, _IN_FILE)
    if not array.size:
        return
    expected = "every declared value to be stored in the file"
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


def _other_files(array: h5py.Dataset) -> str:
    if array.is_virtual:
        names = [source.file_name for source in array.virtual_sources()]
    else:
        names = [name for name, *_ in array.external]
    return ", ".join(f"'{name!s:.100}'" for name in names[:3])
