"""Damage to archives: zip files, NumPy's arrays, and Zarr."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
from attack.mutate_bytes import BYTES
from attack.mutate_json import JSON


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(
    path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED
) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            archive.writestr(name, data)


def member_bytes(path: Path, rng: random.Random, context) -> None:
    """Damage inside a member, whose checksum in the archive is right."""
    members = _members(path)
    name = rng.choice(list(members))
    members[name] = rng.choice(BYTES)(members[name], rng, context.other)
    _write(path, list(members.items()))


def member_json(path: Path, rng: random.Random, context) -> None:
    members = _members(path)
    names = [name for name in members if name.endswith(".json")] or list(members)
    name = rng.choice(names)
    members[name] = rng.choice(JSON)(members[name], rng, context.other)
    _write(path, list(members.items()))


def member_name(path: Path, rng: random.Random, context) -> None:
    members = list(_members(path).items())
    at = rng.randrange(len(members))
    name = members[at][0]
    bad = ("../../../" + name, "/" + name, name + "/", "", name.replace("/", "\\"), "a" * 60_000,
    "\x1b[31m", name.upper(),
           "../pwned", "C:" + name, name + "\x00x", "./" + name, "é/" + name)  # fmt: skip
    members[at] = rng.choice(bad), members[at][1]
    _write(path, members)


def member_missing(path: Path, rng: random.Random, context) -> None:
    members = list(_members(path).items())
    del members[rng.randrange(len(members))]
    _write(path, members)


def member_twice(path: Path, rng: random.Random, context) -> None:
    members = list(_members(path).items())
    name, data = rng.choice(members)
    _write(path, [*members, (name, rng.choice(BYTES)(data, rng, context.other))])


def member_bomb(path: Path, rng: random.Random, context) -> None:
    members = _members(path)
    name = rng.choice(list(members))
    members[name] += bytes(1 << 28)
    _write(path, list(members.items()), zipfile.ZIP_DEFLATED)


def many_members(path: Path, rng: random.Random, context) -> None:
    members = list(_members(path).items())
    _write(path, [*members, *((f"extra/{n}", b"") for n in range(20_000))])


def recompressed(path: Path, rng: random.Random, context) -> None:
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    _write(path, list(_members(path).items()), method)


ZIP = (
    member_bytes, member_bytes, member_json, member_json, member_name, member_name, member_missing,
    member_twice, member_bomb, many_members, recompressed,
)  # fmt: skip

_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 20), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 20), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (12, 20), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (12, 20), }",
    "{'descr': '>f4', 'fortran_order': False, 'shape': (12, 20), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (12, 20), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (240,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (12, 20, 0), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 12, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 20), }",
    "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (6, 20), }",
    "{'descr': '<f4', 'fortran_order': False}", "{}", "[]", "12", "'a'", "{" * 5000, "(" * 5000,
    "-" * 9000 + "1",
    "__import__('os').system('touch pwned')",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (12, 10), }",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (12, 20), }", "\x00",
    "{'descr': 'x', 'fortran_order': 0, 'shape': ()}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
    "{'a':" * 900 + "1" + "}" * 900,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
)  # fmt: skip


def npy_header(data: bytes, rng: random.Random, other: bytes) -> bytes:
    start = 10 + int.from_bytes(data[8:10], "little")
    text = rng.choice(_HEADERS).encode("latin1")
    version = rng.choice((1, 1, 2, 3))
    length = struct.pack("<H", len(text)) if version == 1 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text + data[start:]


def npy_values(data: bytes, rng: random.Random, other: bytes) -> bytes:
    values = np.load(io.BytesIO(data)).copy()
    if values.dtype.kind == "f" and values.size:
        values.reshape(-1)[rng.randrange(values.size)] = rng.choice((np.nan, np.inf, 1e38, 0, -1))
    elif values.size:
        values.reshape(-1)[rng.randrange(values.size)] = values.reshape(-1)[0]
    file = io.BytesIO()
    np.save(
        file,
        rng.choice(
            (values, values[::-1], values[:1], values.T, values.astype("O"), values.astype("U"))
        ),
    )
    return file.getvalue()


NPY = (npy_header, npy_header, npy_values)


def npz_member(path: Path, rng: random.Random, context) -> None:
    members = _members(path)
    name = rng.choice(list(members))
    members[name] = rng.choice(NPY)(members[name], rng, context.other)
    _write(path, list(members.items()))


def npz_object(path: Path, rng: random.Random, context) -> None:
    """A pickled array, which would run code."""
    from attack.mutate_torch import payload

    members = _members(path)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload(rng)
    members[rng.choice(list(members))] = data
    _write(path, list(members.items()))


NPZ = (npz_member, npz_member, npz_object, *ZIP)


def zarr_json(path: Path, rng: random.Random, context) -> None:
    """Shape, type, chunks and codecs of a Zarr array; other files are damaged as bytes."""
    data = path.read_bytes()
    if path.name != "zarr.json":
        path.write_bytes(rng.choice(BYTES)(data, rng, context.other))
        return
    tree = json.loads(data)
    changes = (
        ("shape", rng.choice(([10**12, 16], [20], [], [-1, 16], [20, 0], "x", [20.5, 16],
        [1 << 70, 1], [0, 16]))),
        ("data_type", rng.choice(("float16", "int8", "bool", "r8", "string", "complex64", "nope",
        {"name": "x"}, None))),
        ("chunk_grid", rng.choice(({"name": "regular", "configuration": {"chunk_shape": [1 << 28,
        16]}}, {"name": "x"},
                                   {"name": "regular", "configuration": {"chunk_shape": [0, 0]}},
                                   []))),
        ("codecs", rng.choice(([], [{"name": "bytes"}], [{"name": "gzip",
        "configuration": {"level": 99}}], [{"name": "nope"}],
                               tree.get("codecs", []) * 2, "x", [{"name": "transpose",
                               "configuration": {"order": [1, 0]}},
                               {"name": "bytes", "configuration": {"endian": "big"}}]))),
        ("fill_value", rng.choice(("NaN", None, 1e400, "x", [], "0x7fc00000"))),
        ("zarr_format", rng.choice((2, 4, "3", None))),
        ("node_type", rng.choice(("array", "group", "x"))),
        ("chunk_key_encoding", rng.choice(({"name": "v2"}, {"name": "default",
        "configuration": {"separator": "../"}}))),
        ("attributes", rng.choice((None, [], {"patch_size": "x"}, {"unit": 1}))),
        ("storage_transformers", [{"name": "x"}]), ("consolidated_metadata",
        rng.choice(({"metadata": {}}, 1, {"kind": "inline"}))),
    )  # fmt: skip
    key, value = rng.choice(changes)
    tree[key] = value
    path.write_text(json.dumps(tree), encoding="utf-8")


def zarr_tree(path: Path, rng: random.Random, context) -> None:
    data = path.read_bytes()
    if path.name == "zarr.json":
        path.write_bytes(rng.choice(JSON)(data, rng, context.other))
    else:
        path.unlink()


def zarr_link(path: Path, rng: random.Random, context) -> None:
    """A chunk that is a link to the user's secret."""
    path.unlink()
    path.symlink_to(
        rng.choice((context.secret, Path("/dev/zero"), Path("/nowhere"), path, path.parent))
    )


ZARR = (zarr_json, zarr_json, zarr_json, zarr_tree, zarr_link)
