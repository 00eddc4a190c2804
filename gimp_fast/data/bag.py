"""All patches of a patient as one run of rows, from feature files or from a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.base import check_range
from gimp_fast.data.slides.prepared import PreparedFile
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FileRows:
    """Rows (N, C) of a feature file.

    Attributes:
        permutation: (N,) brings the rows into the cohort's order; None for that of the file.
        prepared: what the file was; it is compared before each read.
    """

    path: Path
    shape: tuple[int, int]
    permutation: np.ndarray | None = None
    prepared: PreparedFile | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, C) float32."""
        self.check()
        with open_slide(self.path) as file:
            found = (file.info.num_patches, file.info.feature_dim)
            if found != self.shape:
                raise GimpError(
                    f"{self.path}: found features of shape {found}; expected {self.shape} as when "
                    "the cohort was prepared. Run `prepare` again."
                )
            if self.permutation is None:
                return file.read(start, stop)
            return file.read_rows(self.permutation[start:stop].astype(np.int64))

    def tensor(self, start: int, stop: int) -> torch.Tensor:
        """(stop - start, C) as stored: float16, bfloat16 or float32."""
        import torch

        return torch.from_numpy(self.read(start, stop))

    def coords(self) -> np.ndarray | None:
        """(N, 2), or None if unknown."""
        self.check()
        with open_slide(self.path) as file:
            coords = file.coords()
        if coords is None:
            return None
        return coords[:, :2] if self.permutation is None else coords[self.permutation, :2]

    def check(self) -> None:
        """GimpError unless the file is the one that was prepared."""
        if self.prepared is not None:
            self.prepared.check()


@dataclass(frozen=True)
class StoreRows:
    """Rows of a slide in a packed store, where they have the order of the cohort."""

    store: FeatureStore
    slide_id: str

    def check(self) -> None:
        """Nothing: a store compares its checksums whenever it is read."""

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.store.read(self.slide_id, start, stop)

    def tensor(self, start: int, stop: int) -> torch.Tensor:
        return self.store.tensor(self.slide_id, start, stop)

    def coords(self) -> np.ndarray | None:
        return self.store.coords(self.slide_id)


@dataclass(frozen=True)
class SlideEntry:
    """One slide of a bag; ``path`` is the feature file that was prepared."""

    slide_id: str
    path: Path
    num_patches: int
    rows: FileRows | StoreRows


@dataclass(frozen=True)
class Bag:
    """All patches of a patient: slides in slide_id order, each in the cohort's patch order."""

    case_id: str
    slides: tuple[SlideEntry, ...]
    feature_dim: int

    @property
    def slide_ids(self) -> tuple[str, ...]:
        return tuple(slide.slide_id for slide in self.slides)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each slide."""
        return tuple(slide.num_patches for slide in self.slides)

    @property
    def num_patches(self) -> int:
        return sum(self.lengths)

    def check(self) -> None:
        """GimpError unless all files are those that were prepared."""
        for slide in self.slides:
            slide.rows.check()

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Contiguous rows of the concatenated slides; opens only the files it needs.

        Args:
            start: first row.
            stop: one past the last row; None for the end.

        Returns:
            (stop - start, C) float32.

        Raises:
            GimpError: a slide file is gone, unreadable, or not the one that was prepared.
            ValueError: the range is not inside 0 … num_patches.
        """
        parts = [entry.rows.read(*span) for entry, *span in self._spans(start, stop)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self.feature_dim), np.float32), *parts])

    def tensor(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """As ``read``, in the type of the store: half the bytes if it is fp16 or bf16.

        Returns:
            (stop - start, C) float16, bfloat16 or float32.
        """
        import torch

        parts = [entry.rows.tensor(*span) for entry, *span in self._spans(start, stop)]
        return torch.cat(parts) if parts else torch.empty(0, self.feature_dim)

    def coords(self) -> list[np.ndarray | None]:
        """Patch positions (N, 2) of each slide, in the order of its rows; None if unknown."""
        return [slide.rows.coords() for slide in self.slides]

    def _spans(self, start: int, stop: int | None) -> list[tuple[SlideEntry, int, int]]:
        """The slides that a range touches, and the rows of each."""
        start, stop = check_range(start, stop, self.num_patches)
        spans, offset = [], 0
        for slide in self.slides:
            first, last = max(start, offset), min(stop, offset + slide.num_patches)
            if first < last:
                spans.append((slide, first - offset, last - offset))
            offset += slide.num_patches
        return spans
