"""Damage to tensors in files: pickles, views, and safetensors' header."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from attack.mutate_archives import ZIP, _members, _write
from attack.mutate_bytes import BYTES
from attack.mutate_json import JSON, TEXT, TREE


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payload(rng: random.Random) -> bytes:
    """A pickle that writes the file ``pwned``, of any protocol."""
    protocol = rng.randrange(6)
    calls = [
        _Call(exec, "open('pwned', 'w').write('x')"),
        _Call(eval, "open('pwned', 'w')"),
        _Call(Path.touch, Path("pwned")),
    ]
    if protocol == 0 and rng.random() < 0.5:
        return rng.choice(
            (
                b"cos\nsystem\n(S'touch pwned'\ntR.",
                b"(S'touch pwned'\nios\nsystem\n.",
                b"cbuiltins\nexec\n(V1\ntR.",
            )
        )
    return pickle.dumps(rng.choice(calls), protocol)


def bare_payload(path: Path, rng: random.Random, context) -> None:
    path.write_bytes(payload(rng))


def pickle_in_archive(path: Path, rng: random.Random, context) -> None:
    if not zipfile.is_zipfile(path):
        bare_payload(path, rng, context)
        return
    members = _members(path)
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = payload(rng)
    _write(path, list(members.items()))


def pickle_opcodes(path: Path, rng: random.Random, context) -> None:
    """One opcode of the pickle is another, or is there twice, or not."""
    data, name, members = path.read_bytes(), "", {}
    if zipfile.is_zipfile(path):
        members = _members(path)
        name = next(name for name in members if name.endswith("data.pkl"))
        data = members[name]
    starts = [at for _, _, at in pickletools.genops(data)]
    at = rng.choice(starts)
    new = rng.choice([code.code.encode("latin1") for code in pickletools.opcodes])
    way = rng.randrange(3)
    data = (
        data[:at] + new + data[at + 1 :],
        data[:at] + new + data[at:],
        data[:at] + data[at + 1 :],
    )[way]
    if name:
        members[name] = data
        _write(path, list(members.items()))
    else:
        path.write_bytes(data)


def _save(path: Path, content, rng: random.Random) -> None:
    torch.save(
        content,
        path,
        _use_new_zipfile_serialization=rng.random() < 0.7,
        pickle_protocol=rng.choice((2, 2, 3, 4, 5)),
    )


def tensors(path: Path, rng: random.Random, context) -> None:
    """Types, layouts and values that are no features."""
    base = torch.randn(20, 16, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))
    one = torch.zeros(1)
    makers = (
        lambda: base.half(), lambda: base.bfloat16(), lambda: base.double(), lambda: base.int(),
        lambda: base > 0,
        lambda: base.to(torch.complex64), lambda: base.to(torch.float8_e4m3fn),
        lambda: base.to_sparse(),
        lambda: base.to_sparse_csr(), lambda: base.to("meta"),
        lambda: torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
        lambda: base.t(), lambda: base[::2], lambda: base[:0], lambda: base[0],
        lambda: base[None], lambda: base[:, :0],
        lambda: one.expand(10**9, 16), lambda: one.expand(1, 10**9),
        lambda: one.as_strided((10**6, 16), (0, 0)),
        lambda: base.as_strided((19, 16), (1, 1)), lambda: base.as_strided((300, 16), (1, 1)),
        lambda: base.flip(0),
        lambda: base.clone().fill_(float("nan")), lambda: base.clone().fill_(1e38),
        lambda: base.requires_grad_(),
        lambda: torch.nn.Parameter(base), lambda: torch.nested.nested_tensor([base, base[:3]]),
        lambda: torch.tensor(1.0),
        lambda: torch.empty(0), lambda: base.conj(), lambda: torch.zeros(20, 16, 2).permute(2, 0,
        1),
        lambda: base.to(torch.complex64).conj(), lambda: torch._neg_view(base),
        lambda: base.storage(), lambda: base.numpy(),
    )  # fmt: skip
    tensor = rng.choice(makers)()
    coords = torch.stack([torch.arange(20) % 5, torch.arange(20) // 5], 1) * 256
    places = rng.choice((
        coords, coords.bfloat16(), coords.double(), coords.to_sparse(), coords.to("meta"),
        coords[:3], coords.t(), one,
        one.expand(20, 2), None, coords.tolist(), "x", coords.bool(), torch.full((20, 2),
        float("nan")), coords.to(torch.uint8),
        coords.to(torch.complex64), torch.nested.nested_tensor([one]), -coords, coords * 2**40,
        coords.numpy(),
    ))  # fmt: skip
    contents = (
        tensor, {"features": tensor}, {"features": base.detach(), "coords": places},
        {"features": tensor, "coords": places},
        {"feats": tensor, "coords": places}, [tensor], (tensor, places),
        OrderedDict(features=tensor), {0: tensor},
        {"features": {"features": tensor}}, {"features": tensor, "x": [1, {"a": None}]},
        {"features": None}, {}, None, 5, "text",
        {"features": tensor, "Features": tensor}, [[[tensor]]], {"a": tensor, "b": tensor},
        {"coords": places},
    )  # fmt: skip
    _save(path, rng.choice(contents), rng)


def module(path: Path, rng: random.Random, context) -> None:
    _save(
        path,
        rng.choice(
            (
                torch.nn.Linear(2, 2),
                torch.nn.Linear,
                np.zeros(3),
                {"a": {1, 2}},
                Path("x"),
                range(3),
            )
        ),
        rng,
    )


def deep(path: Path, rng: random.Random, context) -> None:
    """Lists in lists, below what Python's stack holds."""
    depth = rng.choice((900, 5000, 100_000))
    data = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    if rng.random() < 0.5 and zipfile.is_zipfile(path):
        members = _members(path)
        name = next(name for name in members if name.endswith("data.pkl"))
        members[name] = data
        _write(path, list(members.items()))
    else:
        path.write_bytes(data)


def references(path: Path, rng: random.Random, context) -> None:
    """A pickle of a few bytes that stands for 2³⁰ tuples, or for gigabytes of text."""
    laughs = (
        b"\x80\x02("
        + b"".join(b"q" + bytes((n,)) + b"h" + bytes((n,)) + b"\x86" for n in range(40))
        + b"."
    )
    long = b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x" * 100
    path.write_bytes(
        rng.choice(
            (
                laughs,
                long,
                b"\x80\x04\x8b" + struct.pack("<i", -1) + b".",
                b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
                b"\x80\x02r" + b"\xff" * 4 + b".",
            )
        )
    )


PT = (
    pickle_in_archive, bare_payload, pickle_opcodes, pickle_opcodes, pickle_opcodes, tensors,
    tensors, tensors, tensors,
    tensors, module, deep, references, *ZIP,
)  # fmt: skip


def safetensors_header(path: Path, rng: random.Random, context) -> None:
    """The header says something else about the same bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    way = rng.randrange(5)
    if way == 0:
        text = rng.choice(TEXT)(header, rng)
    elif way == 1:
        text = json.dumps(rng.choice(TREE)(header, rng))
    else:
        name = rng.choice(list(header))
        entry = header[name]
        if name == "__metadata__":
            key = rng.choice(list(entry))
            inner = rng.choice(JSON)(entry[key].encode(), rng, context.other)
            entry[key] = inner.decode("utf-8", "replace")
        else:
            start, stop = entry["data_offsets"]
            key, value = rng.choice((
                ("dtype", rng.choice(("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X",
                1))),
                ("shape", rng.choice(([], [1], [-1], [1 << 62, 4], entry["shape"][::-1],
                [*entry["shape"], 1], [0], "x", [1.5]))),
                ("data_offsets", rng.choice(([start, stop + 4], [start + 4, stop], [0, 1 << 60],
                [stop, start], [-4, 4], [], [start], "x"))),
                ("extra", 1),
            ))  # fmt: skip
            entry[key] = value
        text = json.dumps(header)
    encoded = text.encode("utf-8", "surrogateescape")[: 1 << 22]
    size = rng.choice(
        (len(encoded),) * 6 + (0, 1 << 40, len(encoded) - 1, len(encoded) + 8, (1 << 64) - 1)
    )
    path.write_bytes(struct.pack("<Q", size) + encoded + rest)


def safetensors_swapped(path: Path, rng: random.Random, context) -> None:
    """Two tensors of one form have each other's values."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    a = rng.choice(entries)
    b = rng.choice(
        [
            entry
            for entry in entries
            if entry["shape"] == a["shape"] and entry["dtype"] == a["dtype"]
        ]
    )
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def safetensors_renamed(path: Path, rng: random.Random, context) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = list(header)
    name = rng.choice(names)
    new = rng.choice(
        (
            *names,
            "",
            "x",
            name + "x",
            "../" + name,
            "\x00",
            "\x1b[31m",
            "A" * 10_000,
            "features/",
            "coords/x",
        )
    )
    header = {(new if key == name else key): value for key, value in header.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def safetensors_values(path: Path, rng: random.Random, context) -> None:
    """One bit of the values, where a checksum alone can see it."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[rng.randrange(start, len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


SAFETENSORS = (safetensors_header, safetensors_header, safetensors_header, safetensors_swapped,
safetensors_renamed,
               safetensors_values, safetensors_values)  # fmt: skip
__all__ = ["BYTES", "PT", "SAFETENSORS", "io", "payload"]
