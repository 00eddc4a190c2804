"""Damage to HDF5 files through the library: what a file says about itself."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np
from attack.mutate_bytes import NASTY


def _arrays(h5: h5py.File) -> list[str]:
    names: list[str] = []
    h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _take(h5: h5py.File, rng: random.Random) -> tuple[str, np.ndarray, dict]:
    """A random array: its name, values and attributes; it is removed from the file."""
    name = rng.choice(_arrays(h5))
    values, attributes = h5[name][()], dict(h5[name].attrs)
    del h5[name]
    return name, values, attributes


def attribute(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    owner = h5[rng.choice([*_arrays(h5), "/"])]
    names = [*owner.attrs, "patch_size", "patch_size_level0", "target_magnification", "unit",
    "encoder",
             "tile_size_um", "encoding-type", "encoding-version", "_index", "shape",
             "mpp"]  # fmt: skip
    name = rng.choice(names)
    if rng.random() < 0.15 and name in owner.attrs:
        del owner.attrs[name]
        return
    texts = [text.replace("\x00", "") for text in NASTY]
    value = rng.choice((
        rng.choice(texts), 0, -1, 1 << 40, 1e-30, np.nan, np.inf, np.float16(1), [1, 2],
        np.zeros(1000),
        np.zeros((0,)), b"\xff\xfe", np.bool_(True), h5py.Empty("f"), ["a", "b"], owner.ref,
    ))  # fmt: skip
    owner.attrs[name] = value


def number_type(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, attributes = _take(h5, rng)
    kind = rng.choice(("<f2", ">f4", "<f8", "i1", "u1", "<i8", "<u8", ">i2", "?", "S4", "c8", "O"))
    try:
        h5[name] = (
            values.astype(kind) if kind != "O" else np.array([str(v) for v in values.flat], "O")
        )
    except (TypeError, ValueError):
        h5[name] = np.zeros(3, kind)
    h5[name].attrs.update(attributes)


def shape(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, attributes = _take(h5, rng)
    rows = len(values) if values.ndim else 1
    forms = [values.ravel(), values[:0], values[:1], values[None], values.T, values[: rows // 2],
    values[..., :1],
             values[..., None], np.concatenate([values, values]) if values.ndim else values[None],
             values.reshape(-1)[:1].reshape(()), values[..., :0]]  # fmt: skip
    h5[name] = rng.choice(forms)
    h5[name].attrs.update(attributes)


def odd_values(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, attributes = _take(h5, rng)
    values = np.array(values)
    if values.dtype.kind in "fiu" and values.size:
        odd = (
            (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45)
            if values.dtype.kind == "f"
            else (-1, 0, 1 << 30, -(1 << 30))
        )
        with np.errstate(all="ignore"):
            values.reshape(-1)[rng.randrange(values.size) :][: rng.choice((1, 1, 100))] = (
                rng.choice(odd)
            )
    h5[name] = values
    h5[name].attrs.update(attributes)


def declared_only(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    """Rows that were never written, and very many of them."""
    name, values, attributes = _take(h5, rng)
    rows = rng.choice((len(values) if values.ndim else 1, 10_000, 10**9, 10**15))
    tail = values.shape[1:] or (4,)
    kind = values.dtype if values.dtype != object else "f4"
    chunks = rng.choice((True, (min(rows, 64), *tail)))
    options = (
        {"chunks": chunks, "maxshape": (None, *tail)} if rng.random() < 0.6 or rows > 1e6 else {}
    )
    array = h5.create_dataset(name, (rows, *tail), kind, **options)
    if rng.random() < 0.5 and values.ndim == len(array.shape):
        array[: min(rows, len(values) if values.ndim else 1) // 2] = values[
            : min(rows, len(values)) // 2
        ]
    array.attrs.update(attributes)


def filters(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, attributes = _take(h5, rng)
    options = rng.choice(({"compression": "lzf"}, {"compression": "gzip", "shuffle": True},
    {"fletcher32": True},
                          {"scaleoffset": 0 if values.dtype.kind in "iu" else 2},
                          {"chunks": (1,) * values.ndim}))  # fmt: skip
    try:
        h5.create_dataset(name, data=values, **options)
    except (TypeError, ValueError):
        h5[name] = values
    h5[name].attrs.update(attributes)


def bomb(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    """Gigabytes of zeros in kilobytes."""
    name, values, attributes = _take(h5, rng)
    width = values.shape[1] if values.ndim > 1 else 4
    rows = rng.choice((1 << 16, 1 << 20))
    kind = values.dtype if values.dtype.kind in "fiu" else "f4"
    array = h5.create_dataset(name, (rows, width), kind, compression="gzip", chunks=(rows, width))
    array.id.write_direct_chunk((0, 0), _zeros(rows * width * array.dtype.itemsize))
    array.attrs.update(attributes)


def _zeros(size: int) -> bytes:
    import zlib

    deflate, pieces, block = zlib.compressobj(1), [], bytes(1 << 20)
    for _ in range(size >> 20):
        pieces.append(deflate.compress(block))
    return b"".join([*pieces, deflate.compress(bytes(size & ((1 << 20) - 1))), deflate.flush()])


def elsewhere(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    """The values lie in another file, which is the user's secret."""
    name, values, attributes = _take(h5, rng)
    kind = values.dtype if values.dtype.kind in "fiu" else np.dtype("f4")
    form = (20, 16) if values.ndim < 2 or values.shape[1] != 2 else (20, 2)
    way = rng.choice(("external", "external", "link", "soft", "virtual", "raw-link"))
    path = rng.choice((str(secret), f"../../../{secret.name}", secret.name))
    if way == "external":
        size = int(np.prod(form)) * kind.itemsize
        pieces = (
            [(path, 0, size)]
            if rng.random() < 0.7
            else [(path, 0, size // 2), (path, size // 2, h5py.h5f.UNLIMITED)]
        )
        h5.create_dataset(name, form, kind, external=pieces)
        h5[name].attrs.update(attributes)
    elif way in ("link", "raw-link"):
        other = secret.with_name("other.h5")
        h5[name] = h5py.ExternalLink(
            str(other) if way == "link" else path, name if way == "link" else "/"
        )
    elif way == "soft":
        h5[name] = h5py.SoftLink(rng.choice(("/nowhere", f"/{name}", "/", "../x")))
    else:
        layout = h5py.VirtualLayout(form, kind)
        layout[:] = h5py.VirtualSource(path, name, form)
        h5.create_virtual_dataset(name, layout)


def renamed(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name = rng.choice(_arrays(h5))
    h5.move(
        name,
        rng.choice(
            ("feats", "features", "coords", "x", "a/b/features", "é", "<b>", "A" * 1000, "\x1b[31m")
        )
        + "",
    )


def group_instead(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, _ = _take(h5, rng)
    h5.create_group(name)["values"] = values


def links_in_a_circle(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    h5[f"loop{rng.randrange(9)}"] = h5["/"]


def many_items(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    for n in range(2000):
        h5.create_group(f"group{n}")


def compound(h5: h5py.File, rng: random.Random, secret: Path) -> None:
    name, values, attributes = _take(h5, rng)
    kind = rng.choice((np.dtype([("a", "f4"), ("b", "i4")]), h5py.vlen_dtype(np.float32),
    h5py.enum_dtype({"A": 1}),
                       h5py.string_dtype(), np.dtype("V8"), h5py.ref_dtype))  # fmt: skip
    h5.create_dataset(name, (max(1, len(values) if values.ndim else 1),), kind)
    h5[name].attrs.update(attributes)


def user_block(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(rng.choice((b"\0", b"x")) * 512 + data)


CHANGES = (
    attribute, attribute, attribute, number_type, shape, shape, odd_values, declared_only,
    declared_only,
    filters, bomb, elsewhere, elsewhere, elsewhere, renamed, group_instead, links_in_a_circle,
    many_items,
    compound,
)  # fmt: skip


def h5_mutation(change):
    """A mutation of a file from one of an open HDF5 file."""

    def mutation(path: Path, rng: random.Random, context) -> None:
        other = context.secret.with_name("other.h5")
        with h5py.File(path, "r+") as h5:
            change(h5, rng, context.secret)
        assert other.exists()

    mutation.__name__ = change.__name__
    return mutation


H5 = tuple(map(h5_mutation, CHANGES))
