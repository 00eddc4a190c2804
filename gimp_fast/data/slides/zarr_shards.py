"""Which chunks of a Zarr array were never written. In a shard, only its index says so."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from gimp_fast.errors import FaultError

_ABSENT = np.uint64(2**64 - 1)  # place and length of a chunk that a shard does not hold
_INDEX_ENTRY = 16  # bytes: a place and a length


def count_unwritten(where: str, array: Any) -> tuple[int, int]:
    """Chunks that were never written, and all chunks of an array.

    Args:
        where: the file and the array, for faults.
        array: a ``zarr.Array``.

    Raises:
        FaultError: shards with an index that is not the usual one.
    """
    chunks = math.prod(_grid(array.shape, array.chunks))
    if array.shards is None:
        return chunks - array.nchunks_initialized, chunks
    codec = _sharding_codec(where, array)
    written = 0
    for place in itertools.product(*map(range, _grid(array.shape, array.shards))):
        written += _written_in_shard(where, array, codec, place)
    return chunks - written, chunks


def _grid(shape: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, ...]:
    """Parts along each side."""
    return tuple(-(-side // size) for side, size in zip(shape, part, strict=True))


def _sharding_codec(where: str, array: Any) -> Any:
    """The codec of the shards, with an index of plain numbers, and of chunks without shards."""
    codec = array.metadata.codecs[0]
    index = [type(step).__name__ for step in codec.index_codecs]
    inner = [type(step).__name__ for step in codec.codecs]
    plain = index in (["BytesCodec"], ["BytesCodec", "Crc32cCodec"])
    little = plain and codec.index_codecs[0].to_dict()["configuration"]["endian"] == "little"
    if len(array.metadata.codecs) != 1 or not little or "ShardingCodec" in inner:
        found = f"shards with an index of {' and '.join(index) or 'nothing'}, or inside shards"
        expected = "shards with an index of little-endian bytes"
        raise FaultError.of("unreadable-file", where, found, expected)
    return codec


def _written_in_shard(where: str, array: Any, codec: Any, place: tuple[int, ...]) -> int:
    """Chunks of a shard that are inside the array and were written."""
    inside = _grid(array.shards, array.chunks)
    index = _read_index(where, array, codec, place, math.prod(inside))
    if index is None:
        return 0
    present = (index != _ABSENT).all(-1).reshape(inside)
    # The last shards reach beyond the array.
    sides = _grid(array.shape, array.chunks)
    used = tuple(slice(0, side - at * n) for side, at, n in zip(sides, place, inside, strict=True))
    return int(present[used].sum())


def _read_index(
    where: str, array: Any, codec: Any, place: tuple[int, ...], chunks: int
) -> np.ndarray | None:
    """(chunks, 2) uint64 places and lengths; None if there is no such shard."""
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    size = chunks * _INDEX_ENTRY + 4 * (len(codec.index_codecs) - 1)  # and a checksum, CRC-32C
    at_end = codec.index_location.value == "end"
    part = SuffixByteRequest(size) if at_end else RangeByteRequest(0, size)
    key = f"{array.path}/{array.metadata.encode_chunk_key(place)}".lstrip("/")
    content = sync(array.store.get(key, default_buffer_prototype(), part))
    if content is None:
        return None
    data = content.to_bytes()
    if len(data) != size:
        found = f"a shard '{key}' without a whole index"
        raise FaultError.of("truncated-file", where, found, "the shard as it was written")
    return np.frombuffer(data[: chunks * _INDEX_ENTRY], "<u8").reshape(chunks, 2)
