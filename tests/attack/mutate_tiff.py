"""Damage to TIFF files: one entry of a directory says something else."""

from __future__ import annotations

import random
import struct
from pathlib import Path

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8, 11: 4, 12: 8}
_VALUES = (0, 1, 2, 3, 7, 8, 255, 256, 65535, 1 << 20, 1 << 31, (1 << 32) - 1)
# Width, height, bits, compression, photometric, description, strips, samples, resolutions, tiles.
_TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    270,
    273,
    274,
    277,
    278,
    279,
    282,
    283,
    284,
    296,
    317,
    322,
    323,
    324,
    325,
    339,
    347,
)


def _entries(data: bytes) -> list[int]:
    """Offsets of the entries of all directories of a little-endian TIFF."""
    found, at, seen = [], struct.unpack_from("<I", data, 4)[0], set()
    while at and at not in seen and at + 2 <= len(data):
        seen.add(at)
        count = struct.unpack_from("<H", data, at)[0]
        found += [at + 2 + 12 * n for n in range(count)]
        at = struct.unpack_from("<I", data, at + 2 + 12 * count)[0]
    return found


def tag_value(path: Path, rng: random.Random, context) -> None:
    data = bytearray(path.read_bytes())
    entry = rng.choice(_entries(data))
    struct.pack_into("<I", data, entry + 8, rng.choice(_VALUES))
    path.write_bytes(data)


def tag_kind(path: Path, rng: random.Random, context) -> None:
    data = bytearray(path.read_bytes())
    entry = rng.choice(_entries(data))
    struct.pack_into("<H", data, entry + 2, rng.choice((*_SIZES, 0, 13, 99)))
    path.write_bytes(data)


def tag_count(path: Path, rng: random.Random, context) -> None:
    data = bytearray(path.read_bytes())
    entry = rng.choice(_entries(data))
    struct.pack_into("<I", data, entry + 4, rng.choice(_VALUES))
    path.write_bytes(data)


def tag_name(path: Path, rng: random.Random, context) -> None:
    data = bytearray(path.read_bytes())
    entry = rng.choice(_entries(data))
    struct.pack_into("<H", data, entry, rng.choice((*_TAGS, 0, 65535, 34665, 330)))
    path.write_bytes(data)


def pointed_value(path: Path, rng: random.Random, context) -> None:
    """What an entry points to: offsets of tiles, resolutions, the description."""
    data = bytearray(path.read_bytes())
    entry = rng.choice(_entries(data))
    kind, count, at = struct.unpack_from("<HII", data, entry + 2)
    size = _SIZES.get(kind, 1) * count
    if size > 4 and at + size <= len(data):
        place = at + rng.randrange(size) // 4 * 4
        data[place : place + 4] = struct.pack("<I", rng.choice(_VALUES))
    path.write_bytes(data)


def directory_chain(path: Path, rng: random.Random, context) -> None:
    """Directories in a circle, or none."""
    data = bytearray(path.read_bytes())
    entries = _entries(data)
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    place = rng.choice((4, first + 2 + 12 * count))
    struct.pack_into(
        "<I", data, place, rng.choice((first, 0, 8, entries[-1], len(data), (1 << 32) - 1))
    )
    path.write_bytes(data)


def directory_length(path: Path, rng: random.Random, context) -> None:
    data = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<H", data, first, rng.choice((0, 1, 5, 300, 65535)))
    path.write_bytes(data)


def description(path: Path, rng: random.Random, context) -> None:
    data = path.read_bytes()
    old, new = rng.choice((
        (b"MPP = 0.5", b"MPP = 0.0"), (b"MPP = 0.5", b"MPP = nan"), (b"MPP = 0.5", b"MPP = -.5"),
        (b"MPP = 0.5", b"MPP = 1e9"),
        (b"MPP = 0.5", b"XPP = 0.5"), (b"AppMag = 20", b"AppMag =  0"), (b"AppMag = 20",
        b"AppMag = -1"), (b"|", b"\xff"),
        (b"Aperio", b"\x1b[31mx"), (b"Aperio", b"<xml>\x00"), (b"Aperio",
        b"\xff\xfe\xfd\xfc\xfb\xfa"),
    ))  # fmt: skip
    path.write_bytes(data.replace(old, new) if old in data else data[: len(data) // 2])


TIFF = (tag_value, tag_value, tag_value, tag_kind, tag_count, tag_count, tag_name, pointed_value,
pointed_value,
        directory_chain, directory_length, description)  # fmt: skip
