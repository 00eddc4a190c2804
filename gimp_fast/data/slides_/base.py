"""Readers of slide feature files: CLAM, TRIDENT and STAMP ``.h5``, and tensor ``.pt``.

``open_slide(path)`` gives one interface for all of them. Every fault of a file is a FaultError
that names it. A ``.pt`` is only ever read with ``weights_only=True``: it never runs code.
"""

from __future__ import annotations

import contextlib
import pickle
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from gimp_fast.errors import Fault, FaultError

SUFFIXES = (".h5", ".pt")
FEATURE_DATASETS = ("features", "feats")
_H5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)
# What the restricted unpickler says of a pickle that names code outside its short list.
_UNSAFE_SIGNS = ("nsupported global", "nsupported GLOBAL", "nsupported class", "Trying to ")
# What the restricted unpickler raises on arbitrary bytes.
_PT_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a feature file without reading its rows.

    Attributes:
        path: the file.
        format: ``clam-h5``, ``trident-h5``, ``stamp-h5`` or ``pt``.
        dataset: HDF5 dataset or dictionary key of the features; empty for a bare tensor.
        num_patches: rows N.
        feature_dim: channels C; 0 where an empty file does not tell.
        dtype: as stored; ``read`` always gives float32.
        has_coords: whether the file holds patch coordinates.
        encoder: name of the network that made the features, where recorded.
        mpp: micrometres per pixel of the encoded patches, where recorded.
        patch_size: side of the encoded patches in pixels, where recorded.
    """

    path: Path
    format: str
    dataset: str
    num_patches: int
    feature_dim: int
    dtype: str
    has_coords: bool
    encoder: str | None = None
    mpp: float | None = None
    patch_size: int | None = None


class SlideFile:
    """An open feature file; a context manager. Use ``open_slide`` to get one."""

    def __init__(self, info: SlideInfo):
        self.info = info

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read contiguous rows, and no other part of the file.

        Args:
            start: first row.
            stop: one past the last row; None for the end.

        Returns:
            (stop - start, C) float32.

        Raises:
            FaultError: the file cannot be read.
            ValueError: the range is not inside 0 … num_patches.
        """
        start, stop = check_range(start, stop, self.info.num_patches)
        if start == stop:
            return np.empty((0, self.info.feature_dim), np.float32)
        return self._read(start, stop)

    def coords(self) -> np.ndarray | None:
        """Patch positions (N, 2) as stored (level-0 pixels; micrometres in STAMP), or None."""
        raise NotImplementedError

    def _read(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> SlideFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_range(start: int, stop: int | None, length: int) -> tuple[int, int]:
    """Resolve and check a row range; ValueError names what is wrong."""
    stop = length if stop is None else stop
    if not 0 <= start <= stop <= length:
        raise ValueError(f"rows {start}:{stop} are not inside 0:{length}")
    return start, stop


def open_slide(path: str | Path) -> SlideFile:
    """Open a feature file of any supported format.

    Args:
        path: a ``.h5`` or ``.pt`` file.

    Returns:
        The open file. Nothing but its header has been read.

    Raises:
        FaultError: the file is missing, unreadable, unsafe, or not a table of float features.
    """
    path = Path(path)
    if not path.is_file():
        raise _fault("missing-file", path, "no such file", "a feature file (.h5 or .pt)")
    if path.suffix == ".h5":
        return _H5Slide(path)
    if path.suffix == ".pt":
        return _PtSlide(path)
    raise _fault("unknown-format", path, f"suffix '{path.suffix}'", " or ".join(SUFFIXES))


class _H5Slide(SlideFile):
    def __init__(self, path: Path):
        with contextlib.ExitStack() as undo, _h5_errors(path):
            self._file = undo.enter_context(h5py.File(path, "r"))
            self._features = _find_features(path, self._file)
            self._coords = self._file.get("coords")
            super().__init__(_describe_h5(path, self._file, self._features, self._coords))
            undo.pop_all()

    def _read(self, start: int, stop: int) -> np.ndarray:
        with _h5_errors(self.info.path):
            rows = _index(self._features, start, stop)
        with np.errstate(over="ignore"):  # beyond float32 becomes infinity, which checks report
            return rows.astype(np.float32, copy=False)

    def coords(self) -> np.ndarray | None:
        if not self.info.has_coords:
            return None
        with _h5_errors(self.info.path):
            return _index(self._coords, 0, self.info.num_patches)

    def close(self) -> None:
        self._file.close()


def _index(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    return dataset[0, start:stop] if dataset.ndim == 3 else dataset[start:stop]


def _find_features(path: Path, file: h5py.File) -> h5py.Dataset:
    for name in FEATURE_DATASETS:
        if isinstance(file.get(name), h5py.Dataset):
            return file[name]
    names = ", ".join(f"'{name}'" for name in file) or "no datasets"
    if list(file) == ["coords"]:
        names = "only 'coords' (a patching file: coordinates without features)"
    raise _fault("no-features", path, names, "a dataset 'features' (CLAM, TRIDENT) or 'feats'")


def _describe_h5(path: Path, file: h5py.File, features: h5py.Dataset, coords: object) -> SlideInfo:
    name = features.name.lstrip("/")
    where = f"{path}[{name}]"
    rows, dim = _table_shape(where, features.shape)
    if features.dtype.kind != "f":
        raise _fault("feature-dtype", where, str(features.dtype), "floating-point features")
    # HDF5 gives zeros for rows that were declared and never written: an interrupted extraction.
    size, stored = features.size * features.dtype.itemsize, features.id.get_storage_size()
    compressed = features.id.get_create_plist().get_nfilters() > 0
    if features.external is None and (stored < size if not compressed else size > 0 == stored):
        found = f"{stored} of {size} bytes written"
        raise _fault("truncated-file", where, found, "every declared row to be stored")
    has_coords = isinstance(coords, h5py.Dataset) and coords.ndim >= 2
    if has_coords:
        _check_coords(f"{path}[coords]", coords.shape, rows)
    encoder, mpp, patch_size = _provenance(
        dict(file.attrs), dict(features.attrs), dict(coords.attrs) if has_coords else {}
    )
    kind = "stamp-h5" if name == "feats" else "trident-h5" if features.attrs else "clam-h5"
    return SlideInfo(
        path, kind, name, rows, dim, str(features.dtype), has_coords, encoder, mpp, patch_size
    )


def _table_shape(where: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(N, C) of a table stored as (N, C), (1, N, C), or (0,) for an empty slide."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if tuple(shape) == (0,):
        return 0, 0
    if len(shape) != 2 or shape[1] == 0:
        raise _fault("feature-shape", where, f"shape {tuple(shape)}", "(N, C) or (1, N, C)")
    return int(shape[0]), int(shape[1])


def _check_coords(where: str, shape: tuple[int, ...], rows: int) -> None:
    if tuple(shape)[-2] != rows or shape[-1] < 2:
        raise _fault("coords-shape", where, f"shape {tuple(shape)}", f"({rows}, 2)")


def _provenance(file: dict, features: dict, coords: dict) -> tuple[str | None, float | None, int]:
    """Encoder, micrometres per pixel and patch size from STAMP's or TRIDENT's attributes."""
    encoder = _text(features.get("encoder")) or _text(file.get("extractor"))
    patch_size = _number(coords.get("patch_size")) or _number(file.get("tile_size_px"))
    mpp = None
    side_um, magnification = (
        _number(file.get("tile_size_um")),
        _number(coords.get("target_magnification")),
    )
    if side_um and patch_size:
        mpp = side_um / patch_size
    elif magnification:
        mpp = 10.0 / magnification  # 40x is 0.25 µm a pixel by convention
    return encoder, mpp, int(patch_size) if patch_size else None


def _text(value: object) -> str | None:
    """An attribute as text; TRIDENT writes None as 'None'."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value not in ("", "None") else None


def _number(value: object) -> float | None:
    if isinstance(value, (int, float, np.number)) and np.isfinite(value) and value > 0:
        return float(value)
    return None


@contextlib.contextmanager
def _h5_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _H5_ERRORS as error:
        text = _one_line(error)
        kind = "truncated-file" if "truncated file" in text else "unreadable-file"
        raise _fault(kind, path, text, "a complete HDF5 file") from error


class _PtSlide(SlideFile):
    def __init__(self, path: Path):
        loaded = _load_pt(path)
        name, table, coords = _pick_tensors(path, loaded)
        where = f"{path}[{name}]" if name else str(path)
        rows, dim = _table_shape(where, tuple(table.shape))
        self._table = table.detach().reshape(rows, dim)
        self._coords = None if coords is None else coords.detach().reshape(-1, coords.shape[-1])
        if coords is not None:
            _check_coords(f"{path}[coords]", tuple(self._coords.shape), rows)
        dtype = str(table.dtype).removeprefix("torch.")
        super().__init__(SlideInfo(path, "pt", name, rows, dim, dtype, coords is not None))

    def _read(self, start: int, stop: int) -> np.ndarray:
        # clone: a window must outlive the memory map, and be writable
        return self._table[start:stop].float().clone().numpy()

    def coords(self) -> np.ndarray | None:
        return None if self._coords is None else self._coords.clone().numpy()


def _load_pt(path: Path) -> object:
    import torch

    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles, which are refused anyway
            # Files written before torch 1.6 are no zip archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except _PT_ERRORS as error:
        text = _one_line(error)
        if any(sign in str(error) for sign in _UNSAFE_SIGNS):
            found = "a pickle that asks to run code; it was not run"
            raise _fault("unsafe-pickle", path, found, "a plain tensor (torch.save)") from error
        kind = "truncated-file" if "central directory" in text else "unreadable-file"
        raise _fault(kind, path, text, "a tensor written by torch.save") from error


def _pick_tensors(path: Path, loaded: object) -> tuple:
    """(name, features, coords or None) from a bare tensor or a dictionary of tensors."""
    import torch

    name, table, coords = "", loaded, None
    if isinstance(loaded, dict):
        name = next((key for key in FEATURE_DATASETS if key in loaded), "")
        table, coords = loaded.get(name), loaded.get("coords")
    plain = isinstance(table, torch.Tensor) and table.layout == torch.strided
    if not plain or table.is_quantized or table.device.type != "cpu":
        raise _fault("no-features", path, _kind_of(loaded), "a bare tensor (N, C)")
    if not table.is_floating_point():
        raise _fault("feature-dtype", path, str(table.dtype), "floating-point features")
    if not isinstance(coords, torch.Tensor) or coords.ndim < 2:
        coords = None
    return name, table, coords


def _kind_of(loaded: object) -> str:
    if isinstance(loaded, dict):
        return f"a dictionary with keys {sorted(map(str, loaded))[:6]}"
    return f"a {type(loaded).__name__}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _fault(kind: str, where: str | Path, found: str, expected: str) -> FaultError:
    return FaultError([Fault(kind, str(where), found, expected)])
