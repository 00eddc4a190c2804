"""Packs slides into a feature store; see ``reader`` for the format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from gimp_fast.data.slides import SlideFile, open_slide
from gimp_fast.data.slides.order import patch_order
from gimp_fast.data.slides.scan import checksum_of_coords
from gimp_fast.data.store.reader import (
    BLOCKS,
    COORD_CHECKSUMS,
    COORD_DTYPES,
    FORMAT,
    HEADER_CHECKSUM,
    STORE_DTYPES,
    VERSION,
)
from gimp_fast.errors import FaultError
from gimp_fast.files.atomic import atomic_file
from gimp_fast.files.progress import Progress

_BLOCK_BYTES = 256 << 10
_COPY_BYTES = 32 << 20  # of rows in memory at a time, as float32
RANGES = {"fp16": 65504.0, "bf16": 3.38e38}  # largest absolute value of a type
_ALIGNMENT = 4096  # of the first slide in the file


@dataclass(frozen=True)
class PackedSlide:
    """A slide to pack."""

    slide_id: str
    path: Path  # of its feature file
    num_patches: int
    coords_dtype: str  # of its coordinates, which are packed too; empty for none
    checksum: str = ""  # of the rows as they were checked, see ``slides.scan``; empty for any
    coords_checksum: str = ""  # of the coordinates, likewise


def store_bytes(slides: Iterable[PackedSlide], dtype: str, feature_dim: int) -> int:
    """Bytes of the rows in a store of these slides."""
    return sum(s.num_patches for s in slides) * feature_dim * _itemsize(dtype)


def write_store(
    path: Path,
    slides: Sequence[PackedSlide],
    *,
    dtype: str,
    feature_dim: int,
    order: str = "file",
    progress: bool = False,
) -> None:
    """Write a store atomically.

    Args:
        path: file to write.
        slides: in the order of the file: the slides of a patient side by side.
        dtype: ``fp16``, ``bf16`` or ``fp32``; rounded to nearest.
        feature_dim: channels C of every slide.
        order: one of ``slides.order.PATCH_ORDERS``.
        progress: show a bar.

    Raises:
        FaultError: a slide changed since it was checked, or has a value beyond ``dtype``.
        GimpError: the file cannot be written, for example because the disk is full.
    """
    block_rows = max(1, _BLOCK_BYTES // (feature_dim * _itemsize(dtype)))
    header = _header(slides, dtype, feature_dim, order, block_rows)
    blocks, places = [], []
    total = store_bytes(slides, dtype, feature_dim)
    bar = Progress("packing", total, "B", shown=progress)
    with atomic_file(path) as partial, partial.open("wb") as out, bar:
        out.write(header)
        out.write(np.uint64(xxhash.xxh3_64_intdigest(header)).tobytes())
        for slide in slides:
            with open_slide(slide.path) as file:
                for rows in _packed_rows(slide, file, dtype, order, block_rows):
                    out.write(rows)
                    blocks += _digests(rows, block_rows)
                    bar.update(rows.nbytes)
        for slide in slides:
            if slide.coords_dtype:
                values = _coords(slide, order)
                out.write(values)
                places.append(xxhash.xxh3_64_intdigest(values))
        for digests in (blocks, places):
            out.write(np.array(digests, np.uint64).tobytes())


def _itemsize(dtype: str) -> int:
    return np.dtype(STORE_DTYPES[dtype][1]).itemsize


def _header(
    slides: Sequence[PackedSlide], dtype: str, feature_dim: int, order: str, block_rows: int
) -> bytes:
    """The safetensors header, with the place of everything in the file."""
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": dtype,
        "feature_dim": str(feature_dim),
        "block_rows": str(block_rows),
        "patch_order": order,
    }
    entries: dict[str, dict] = {"__metadata__": facts}
    end = 0

    def add(name: str, kind: str, shape: list[int], itemsize: int) -> None:
        nonlocal end
        begin, end = end, end + int(np.prod(shape, dtype=np.int64)) * itemsize
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}

    add(HEADER_CHECKSUM, "U64", [1], 8)
    for slide in slides:
        shape = [slide.num_patches, feature_dim]
        add(f"features/{slide.slide_id}", STORE_DTYPES[dtype][0], shape, _itemsize(dtype))
    with_coords = [slide for slide in slides if slide.coords_dtype]
    for slide in with_coords:
        kind = _coord_kind(slide.coords_dtype)
        itemsize = np.dtype(COORD_DTYPES[kind]).itemsize
        add(f"coords/{slide.slide_id}", kind, [slide.num_patches, 2], itemsize)
    add(BLOCKS, "U64", [sum(-(-s.num_patches // block_rows) for s in slides)], 8)
    add(COORD_CHECKSUMS, "U64", [len(with_coords)], 8)
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _packed_rows(
    slide: PackedSlide, file: SlideFile, dtype: str, order: str, block_rows: int
) -> Iterator[np.ndarray]:
    """The rows in their new order and type, whole blocks at a time."""
    info = file.info
    if info.num_patches != slide.num_patches:
        found, expected = f"{info.num_patches} rows", f"{slide.num_patches} as when it was checked"
        raise FaultError.of("changed-file", info.where, found, expected)
    step = max(1, _COPY_BYTES // (4 * info.feature_dim * block_rows)) * block_rows
    digest = xxhash.xxh3_64()
    permutation = None if order == "file" else patch_order(file.coords(), order)
    kept = None if permutation is None else []
    for start in range(0, info.num_patches, step):
        rows = file.read(start, min(start + step, info.num_patches))
        digest.update(np.ascontiguousarray(rows))
        packed = _convert(rows, dtype, info.where, start)
        if kept is None:
            yield packed
        else:
            kept.append(packed)
    if slide.checksum and digest.hexdigest() != slide.checksum:
        expected = "those that were checked"
        raise FaultError.of("changed-file", info.where, "other rows", expected)
    if kept is not None:
        whole = np.concatenate(kept)
        kept.clear()
        for start in range(0, len(whole), step):
            yield whole[permutation[start : start + step]]


def _convert(rows: np.ndarray, dtype: str, where: str, start: int) -> np.ndarray:
    """(n, C) float32 -> the stored type; FaultError for a value that becomes infinite."""
    if dtype == "fp32":
        return np.ascontiguousarray(rows, "<f4")
    import torch

    target = torch.float16 if dtype == "fp16" else torch.bfloat16
    packed = torch.from_numpy(np.ascontiguousarray(rows)).to(target)
    finite = packed.isfinite().all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        largest = np.abs(rows[row]).max()
        raise range_fault(where, start + row, float(largest), dtype)
    return (packed.view(torch.uint16) if dtype == "bf16" else packed).numpy()


def range_fault(where: str, row: int, largest: float, dtype: str) -> FaultError:
    """The fault of a value that the store's type cannot represent."""
    expected = f"below {RANGES[dtype]:g} for {dtype}; --pack bf16 or fp32"
    return FaultError.of("out-of-range", where, f"{largest:g} in row {row}", expected)


def _coords(slide: PackedSlide, order: str) -> np.ndarray:
    with open_slide(slide.path) as file:
        coords = np.asarray(file.coords())
    if slide.coords_checksum not in ("", checksum_of_coords(coords)):
        where, expected = f"{slide.path}[coords]", "those that were checked"
        raise FaultError.of("changed-file", where, "other coordinates", expected)
    kind = COORD_DTYPES[_coord_kind(slide.coords_dtype)]
    return np.ascontiguousarray(coords[patch_order(coords, order), :2], kind)


def _coord_kind(dtype: str) -> str:
    """safetensors' name of a type that holds the coordinates exactly."""
    found = np.dtype(dtype)
    if found.kind == "f":
        return "F64" if found.itemsize > 4 else "F32"
    return "I32" if found.kind == "i" and found.itemsize <= 4 else "I64"


def _digests(rows: np.ndarray, block_rows: int) -> list[int]:
    return [
        xxhash.xxh3_64_intdigest(np.ascontiguousarray(rows[start : start + block_rows]))
        for start in range(0, len(rows), block_rows)
    ]
