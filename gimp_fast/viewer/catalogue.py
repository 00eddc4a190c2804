"""What a page is told at the start: patients, scales and colours; not the patches."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from gimp_fast import __version__
from gimp_fast.heatmaps.options import EVEN, PERCENTILE
from gimp_fast.heatmaps.scales import STANDS_OUT, even_ticks
from gimp_fast.viewer.folders import Case, MapFolder
from gimp_fast.viewer.patches import FLOATS, INTEGERS

COLOURS = ("viridis", "cividis", "magma")  # readable without red and green; the first is shown
LISTED = 16  # of the highest patches of a slide, those that are listed


def catalogue(
    folders: Sequence[MapFolder], *, has_images: bool = False, offline: bool = False
) -> dict[str, Any]:
    """The start of a page, for JSON.

    ``cases`` has the patients of all folders by id; in each, ``maps`` has an entry for each folder,
    None where the folder lacks the patient. ``slides`` lists the ids of all slides once.
    """
    by_case = [{case.case_id: case for case in folder.patients} for folder in folders]
    case_ids = sorted(set().union(*by_case))
    slides = slide_ids(folders)
    numbers = {slide_id: number for number, slide_id in enumerate(slides)}
    cases = [
        {
            "case_id": case_id,
            "maps": [
                _case(folder, of.get(case_id), numbers)
                for folder, of in zip(folders, by_case, strict=True)
            ],
        }
        for case_id in case_ids
    ]
    return {
        "version": __version__,
        "offline": offline,
        "has_images": has_images,
        "synthetic": any(folder.model.synthetic for folder in folders),
        "listed": LISTED,
        "stands_out": STANDS_OUT,
        "columns": {"floats": FLOATS, "integers": INTEGERS},
        "colours": {name: _steps(name) for name in COLOURS},
        "scales": _scales(),
        "folders": [
            _folder(folder, name) for folder, name in zip(folders, _names(folders), strict=True)
        ],
        "slides": slides,
        "cases": cases,
    }


def slide_ids(folders: Sequence[MapFolder]) -> list[str]:
    """The ids of the slides of all folders, sorted; a page names a slide by its place here."""
    return sorted({s.slide_id for f in folders for case in f.patients for s in case.slides})


def _names(folders: Sequence[MapFolder]) -> list[str]:
    """Short names, or whole paths where two are alike."""
    names = [folder.name for folder in folders]
    is_clear = len(set(names)) == len(names)
    return names if is_clear else [str(folder.path) for folder in folders]


def _folder(folder: MapFolder, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "method": folder.model.method,
        "target": folder.model.target,
        "is_classes": bool(folder.model.classes),
        "cohort": folder.cohort,
        "attribution": folder.attribution,
    }


def _case(folder: MapFolder, case: Case | None, numbers: dict[str, int]) -> dict[str, Any] | None:
    if case is None:
        return None
    record = case.model_dump(include={"prediction", "probabilities", "attention"})
    is_flat = case.attention is not None and case.attention.flat
    is_even = is_flat or folder.settings.get("scale") == EVEN
    slides = [
        slide.model_dump(exclude={"folder", "files"}) | {"number": numbers[slide.slide_id]}
        for slide in case.slides
    ]
    return record | {
        "truth": case.label if case.label is not None else case.truth,
        "scale": EVEN if is_even else PERCENTILE,
        "slides": slides,
        "has_genes": case.genes is not None,
    }


def _steps(name: str) -> str:
    """Base64 of the (256, 3) uint8 colours of a map."""
    colours = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return base64.b64encode(np.round(colours * 255).astype(np.uint8).tobytes()).decode("ascii")


def _scales() -> dict[str, dict[str, Any]]:
    """What places on the bar, 0 … 100, stand for: the column of the place, and the ticks."""
    places, texts = even_ticks()
    quarters = [0, 25, 50, 75, 100]
    return {
        PERCENTILE: {
            "label": "Percentile",
            "column": "percentile",
            "ticks": quarters,
            "texts": [f"{place} %" for place in quarters],
        },
        EVEN: {
            "label": "Times an even share",
            "column": "even_place",
            "ticks": places,
            "texts": texts,
        },
    }
