"""What heatmaps need of a trained model and of slide images, which are handed to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from gimp_fast.data import Cohort
from gimp_fast.data.cohort_truth import Asked
from gimp_fast.models import PatientModel


class ExplainedModel(Protocol):
    """A trained model; :class:`gimp_fast.TrainedModel` describes the members."""

    source: Path
    model: PatientModel
    method: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    asked: Asked
    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    trained_on: dict[str, Any]
    synthetic: bool
    uses_slides: bool
    uses_genes: bool
    device: torch.device

    def columns_in(
        self, cohort: Cohort, case_ids: Sequence[str] | None = None
    ) -> np.ndarray | None: ...

    def reader_of(self, cohort: Cohort, columns: np.ndarray | None) -> Any: ...


class SlideImage(Protocol):
    """An open image of a slide.

    Attributes:
        size: width and height of level 0.
        mpp: micrometres per pixel of level 0; None where not recorded.
        bounds: left, top, width and height of the part that QuPath opens, in pixels of level 0;
            None for a picture that is not the slide itself.
    """

    size: tuple[int, int]
    mpp: float | None
    bounds: tuple[int, int, int, int] | None

    def thumbnail(self, longest: int) -> np.ndarray:
        """(h, w, 3) uint8, the whole slide, its longest side at most ``longest``."""

    def region(self, x: float, y: float, side: float, pixels: int) -> np.ndarray:
        """(pixels, pixels, 3) uint8 of a square of level 0; white beyond the slide."""

    def close(self) -> None: ...


class ImageFolder(Protocol):
    """A folder of slide images, such as :class:`gimp_fast.wsi.images.SlideImages`."""

    folder: Path

    def open(self, slide_id: str) -> SlideImage | None:
        """The image of a slide; None if the folder has none."""
