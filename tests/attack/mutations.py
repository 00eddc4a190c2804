"""Takes a mutation for a file, by its format, a seed and a number."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attack import mutate_archives, mutate_h5, mutate_json, mutate_tables, mutate_tiff, mutate_torch
from attack.mutate_bytes import BYTES, LINES
from attack.target import Target

OfBytes = Callable[[bytes, random.Random, bytes], bytes]
OfFile = Callable[[Path, random.Random, "Context"], None]


@dataclass(frozen=True)
class Context:
    """What a mutation may refer to: a file that nobody may read, and the bytes of another file."""

    secret: Path
    other: bytes


def _of_file(change: OfBytes) -> OfFile:
    def mutation(path: Path, rng: random.Random, context: Context) -> None:
        path.write_bytes(change(path.read_bytes(), rng, context.other))

    mutation.__name__ = change.__name__
    return mutation


_BYTES, _LINES = tuple(map(_of_file, BYTES)), tuple(map(_of_file, LINES))
_TABLE = tuple(map(_of_file, mutate_tables.TABLE))
_JSON, _YAML = tuple(map(_of_file, mutate_json.JSON)), tuple(map(_of_file, mutate_json.YAML))
_GZ = tuple(_of_file(mutate_tables.inside_gzip(change)) for change in mutate_tables.TABLE)
# Kind of a file -> the share of its own mutations, and these; damage to bytes has the rest.
KINDS: dict[str, tuple[float, tuple[OfFile, ...]]] = {
    "h5": (0.6, mutate_h5.H5),
    "pt": (0.7, mutate_torch.PT),
    "zarr": (0.7, mutate_archives.ZARR),
    "zip": (0.6, mutate_archives.ZIP),
    "npz": (0.6, mutate_archives.NPZ),
    "npy": (0.5, tuple(map(_of_file, mutate_archives.NPY))),
    "safetensors": (0.6, mutate_torch.SAFETENSORS),
    "tiff": (0.6, mutate_tiff.TIFF),
    "csv": (0.85, (*_TABLE, *_LINES)),
    "tsv": (0.85, (*_TABLE, *_LINES)),
    "gz": (0.7, (*_GZ, _of_file(mutate_tables.gzip_bomb))),
    "lines": (0.8, _LINES),
    "json": (0.85, _JSON),
    "yaml": (0.85, (*_YAML, *_YAML, *_LINES)),
    "parquet": (0.0, ()),
    "picture": (0.0, ()),
}  # fmt: skip
_BY_ENDING = {
    ".json": "json",
    ".jsonl": "json",
    ".yaml": "yaml",
    ".csv": "csv",
    ".tsv": "tsv",
    ".npz": "npz",
}


def choose(
    target: Target, inputs: Path, seed: int, index: int
) -> tuple[Path, OfFile, random.Random]:
    """The file, the mutation and its random numbers; the same for the same arguments."""
    rng = random.Random(f"{seed}/{target.name}/{index}")
    files = sorted(
        {file for pattern in target.files for file in inputs.glob(pattern) if file.is_file()}
    )
    file = rng.choice(files)
    kind = _BY_ENDING[file.suffix] if target.kind == "text" else target.kind
    share, own = KINDS[kind]
    return file, rng.choice(own if own and rng.random() < share else _BYTES), rng
