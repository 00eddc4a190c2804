"""The packed feature store: all slides of a cohort in one file, windows in one contiguous read.

The file is a safetensors file, which any safetensors reader can open or map: a tensor
``features/<slide_id>`` (N, C) and, if known, ``coords/<slide_id>`` (N, 2) for each slide; its
header is the index. Every block of rows has a checksum (xxh3), which is verified when a process
first reads the block; the header has one too.

Rows are read by position, not through a memory map: cutting a mapped file kills the process, while
a read fails with a clear error. Processes that open the same store share only the system's page
cache.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.data.names import STORE_DTYPES
from gimp_fast.data.slides.base import check_range
from gimp_fast.errors import DAMAGE_ERRORS, FaultError, GimpError, one_line
from gimp_fast.files.json_file import need_object, parse_json

FORMAT, VERSION = "gimp_fast feature store", "1"
COORD_DTYPES = {"I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}
HEADER_CHECKSUM, BLOCKS, COORD_CHECKSUMS = "header_checksum", "block_checksums", "coord_checksums"
_ITEMSIZE = {
    name: np.dtype(kind).itemsize
    for name, kind in (*STORE_DTYPES.values(), *COORD_DTYPES.items(), ("U64", "<u8"))
}
_LONGEST_HEADER = 100 << 20  # safetensors' own limit


@dataclass(frozen=True)
class _Extent:
    """Where a slide's rows are in the file, and its first block."""

    offset: int
    rows: int
    first_block: int


class FeatureStore:
    """An open store; safe to use in threads, in forks and, pickled, in other processes.

    Attributes:
        path: the file.
        dtype: ``fp16``, ``bf16`` or ``fp32``.
        feature_dim: channels C.
        patch_order: order of each slide's rows.
        index_checksum: checksum of the header; it identifies this file.
    """

    def __init__(self, path: str | Path):
        """Open and check the index; FaultError if this is not a whole, intact store."""
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError as error:
            raise self._fault("missing-file", "no such file", "a feature store") from error
        except OSError as error:
            raise self._fault("unreadable-file", str(error), "a feature store") from error
        try:
            self._open_index()
        except FaultError:
            raise
        except (GimpError, *DAMAGE_ERRORS) as error:
            expected = "a feature store of gimp_fast"
            raise self._fault("unreadable-file", one_line(error), expected) from error

    @property
    def slide_ids(self) -> tuple[str, ...]:
        return tuple(self._extents)

    def num_patches(self, slide_id: str) -> int:
        return self._extents[slide_id].rows

    def check_slide(self, slide_id: str, shape: tuple[int, int]) -> None:
        """FaultError unless the store has this slide, with rows (N, C) of this shape."""
        if slide_id not in self._extents:
            raise self._fault("no-slide", f"no slide '{slide_id}'", "every slide of the cohort")
        found = (self.num_patches(slide_id), self.feature_dim)
        if found != shape:
            text = f"rows {found} of slide '{slide_id}'"
            raise self._fault("feature-shape", text, f"{shape} as in the cohort")

    def read_stored(self, slide_id: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Contiguous rows in the stored type.

        Args:
            slide_id: one of ``slide_ids``.
            start, stop: rows; None for the end.

        Returns:
            (stop - start, C) float16 or float32; for ``bf16`` uint16, the bits of the numbers.

        Raises:
            FaultError: a block does not match its checksum, or the file was cut.
            ValueError: the range is not inside 0 … num_patches.
        """
        extent = self._extents[slide_id]
        start, stop = check_range(start, stop, extent.rows)
        size = self._block_rows
        blocks = slice(extent.first_block + start // size, extent.first_block - (-stop // size))
        if start == stop or self._verified[blocks].all():
            return self._rows(extent.offset, start, stop)
        # Whole blocks are read and verified; the caller gets the middle.
        first = start // size * size
        rows = self._rows(extent.offset, first, min(-(-stop // size) * size, extent.rows))
        for at, expected in zip(range(0, len(rows), size), self._checksums[blocks], strict=True):
            if xxhash.xxh3_64_intdigest(rows[at : at + size]) != expected:
                span = f"rows {first + at} to {min(first + at + size, extent.rows)}"
                found = f"{span} of '{slide_id}' that do not match their checksum"
                raise self._fault("checksum", found, "the rows as they were packed")
        self._verified[blocks] = True
        return rows[start - first : stop - first]

    def read(self, slide_id: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As ``read_stored``, (stop - start, C) float32."""
        rows = self.read_stored(slide_id, start, stop)
        return rows if self.dtype == "fp32" else self._tensor(rows).float().numpy()

    def tensor(self, slide_id: str, start: int = 0, stop: int | None = None):
        """As ``read_stored``, a tensor (stop - start, C) float16, bfloat16 or float32."""
        return self._tensor(self.read_stored(slide_id, start, stop))

    def coords(self, slide_id: str) -> np.ndarray | None:
        """Positions (N, 2) of a slide's patches as in their file; None if it had none."""
        if slide_id not in self._coords:
            return None
        number, entry = self._coords[slide_id]
        values = self._array(entry, COORD_DTYPES)
        if xxhash.xxh3_64_intdigest(values) != self._coord_checksums[number]:
            found = f"coordinates of '{slide_id}' that do not match their checksum"
            raise self._fault("checksum", found, "the coordinates as they were packed")
        return values

    def verify(self, slide_id: str) -> None:
        """Read all of a slide and compare it with its checksums, also blocks verified before."""
        extent, step = self._extents[slide_id], 64 * self._block_rows
        last = extent.first_block - (-extent.rows // self._block_rows)
        self._verified[extent.first_block : last] = False
        for start in range(0, extent.rows, step):
            self.read_stored(slide_id, start, min(start + step, extent.rows))
        self.coords(slide_id)

    def _tensor(self, rows: np.ndarray):
        import torch

        tensor = torch.from_numpy(rows)
        return tensor.view(torch.bfloat16) if self.dtype == "bf16" else tensor

    def _rows(self, offset: int, start: int, stop: int) -> np.ndarray:
        rows = np.empty((stop - start, self.feature_dim), STORE_DTYPES[self.dtype][1])
        self._fill(rows, offset + start * self.feature_dim * rows.itemsize)
        return rows

    def _fill(self, array: np.ndarray, offset: int) -> None:
        view = memoryview(array).cast("B") if array.size else memoryview(b"")
        while len(view):
            try:
                done = _read_at(self._file, view, offset)
            except OSError as error:
                raise self._fault("unreadable-file", str(error), "a readable file") from error
            if done == 0:
                found = f"the end of the file at byte {offset}"
                raise self._fault("truncated-file", found, "the store as it was packed")
            view, offset = view[done:], offset + done

    def _open_index(self) -> None:
        prefix = np.zeros(8, np.uint8)
        self._fill(prefix, 0)
        length = int.from_bytes(prefix.tobytes(), "little")
        size = os.fstat(self._file).st_size
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header = np.zeros(length, np.uint8)
        self._fill(header, 8)
        entries = need_object(parse_json(header.tobytes(), "the header"), "the header")
        facts = entries.pop("__metadata__")
        if (facts["format"], facts["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format '{facts['format']}', version {facts['version']}")
        # The checksum comes right after the header: it is found without trusting the header.
        self._data = 8 + length
        digest = xxhash.xxh3_64_intdigest(prefix.tobytes() + header.tobytes())
        stored = np.empty(1, "<u8")
        self._fill(stored, self._data)
        if stored[0] != digest:
            expected = "the header as it was packed"
            raise self._fault("checksum", "a header that does not match its checksum", expected)
        end = self._data + _end_of(entries)
        if size != end:
            found = f"{size} of {end} bytes"
            raise self._fault("truncated-file", found, "the store as it was packed")
        self.index_checksum = f"{digest:016x}"
        self.dtype, self.patch_order = facts["dtype"], facts["patch_order"]
        self.feature_dim, self._block_rows = int(facts["feature_dim"]), int(facts["block_rows"])
        if self.dtype not in STORE_DTYPES or self._block_rows < 1:
            raise ValueError(f"rows of type '{self.dtype}' in blocks of {self._block_rows}")
        self._index(entries)

    def _index(self, entries: dict) -> None:
        self._extents: dict[str, _Extent] = {}
        self._coords: dict[str, tuple[int, dict]] = {}
        blocks = 0
        for name, entry in entries.items():
            kind, _, slide_id = name.partition("/")
            if kind == "features":
                offset, (rows, dim) = self._data + entry["data_offsets"][0], entry["shape"]
                if dim != self.feature_dim or entry["dtype"] != STORE_DTYPES[self.dtype][0]:
                    raise ValueError(f"rows of {dim} {entry['dtype']} of slide '{slide_id}'")
                self._extents[slide_id] = _Extent(offset, rows, blocks)
                blocks -= -rows // self._block_rows
            elif kind == "coords":
                self._coords[slide_id] = (len(self._coords), entry)
        self._checksums = self._array(entries[BLOCKS], {"U64": "<u8"})
        self._coord_checksums = self._array(entries[COORD_CHECKSUMS], {"U64": "<u8"})
        if len(self._checksums) != blocks:
            raise ValueError(f"{len(self._checksums)} checksums of {blocks} blocks")
        self._verified = np.zeros(blocks, bool)

    def _array(self, entry: dict, dtypes: dict[str, str]) -> np.ndarray:
        values = np.empty(entry["shape"], dtypes[entry["dtype"]])
        self._fill(values, self._data + entry["data_offsets"][0])
        return values

    def _fault(self, kind: str, found: str, expected: str) -> FaultError:
        return FaultError.of(kind, self.path, found, expected)

    def __reduce__(self) -> tuple:
        return (FeatureStore, (self.path,))

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)
            self._file = None


def _end_of(entries: dict) -> int:
    """End of the last entry; ValueError for one whose place does not fit its shape and type."""
    end = 0
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        itemsize = _ITEMSIZE[entry["dtype"]]
        if min(entry["shape"], default=0) < 0 or not 0 <= first <= last:
            raise ValueError(f"'{name}' of shape {entry['shape']} at {first}")
        if math.prod(entry["shape"]) * itemsize != last - first:
            raise ValueError(f"'{name}' of shape {entry['shape']} in {last - first} bytes")
        end = max(end, last)
    return end


def _read_at(file: int, view: memoryview, offset: int) -> int:
    """Fill a buffer from a place in a file, without moving its position; returns the bytes read."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], offset)
    found = os.pread(file, len(view), offset)  # macOS before 11
    view[: len(found)] = found
    return len(found)
