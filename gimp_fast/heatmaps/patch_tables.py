"""The patches of one slide's heatmap as a table, as csv, and as polygons for QuPath."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from gimp_fast.files.atomic import write_text
from gimp_fast.files.safe_text import guarded_table
from gimp_fast.heatmaps.options import BOUNDS, SLIDE
from gimp_fast.heatmaps.places import PIXELS, PatchPlaces
from gimp_fast.heatmaps.protocols import SlideImage

GEOJSON_LIMIT = 50_000  # polygons: 12 MB, which QuPath opens in seconds
# Percentiles that separate the classes of patches in QuPath.
CLASS_BOUNDS = (50, 75, 90, 99)
_NAMESPACE = uuid.UUID("8a6b1f5e-5e0c-5d65-9c39-3f1a9f2d7c11")


def patch_table(slide_id: str, places: PatchPlaces, weights: pd.DataFrame) -> pd.DataFrame:
    """One row per patch of a slide, in the order in which the model reads them.

    Args:
        slide_id: of the slide.
        places: of its N patches.
        weights: N rows: ``attention``; ``times_even``, attention in multiples of an even share;
            ``percentile`` in 0 … 100 among the patches of the patient.

    Returns:
        The columns of ``patches.csv``. ``rank`` is 1 for the highest patch of the slide; places
        that are not known are NA.
    """
    coords, x, y = places.coords, pd.NA, pd.NA
    if coords is not None:
        if places.unit == PIXELS and np.array_equal(coords, coords.round()):
            coords = coords.astype(np.int64)
        x, y = coords.T
    return pd.DataFrame(
        {
            "slide_id": slide_id,
            "row": pd.NA if places.file_rows is None else places.file_rows,
            "x": x,
            "y": y,
            "patch_size": pd.NA if coords is None else places.size,
            "unit": pd.NA if coords is None else places.unit,
            **weights.reset_index(drop=True),
            "rank": weights["attention"].rank(ascending=False, method="first").to_numpy(int),
        },
        index=range(len(weights)),
    )


def write_csv(table: pd.DataFrame, file: Path) -> None:
    rounded = guarded_table(table).round({"percentile": 3})
    write_text(file, rounded.to_csv(index=False, float_format="%.6g"))


@dataclass(frozen=True)
class Origin:
    """The point of a slide that polygons count from.

    Attributes:
        name: ``"bounds"`` or ``"slide"``; ``"unknown"`` if it is not known where the bounds are,
            and the whole slide is taken.
        x, y: in pixels of level 0 from the corner of the whole slide.
        words: the same in a sentence without a full stop.
    """

    name: str
    x: int
    y: int
    words: str


def origin_of(asked: str, image: SlideImage | None) -> Origin:
    """The origin of polygons.

    QuPath opens the bounds of a slide alone, unless it is started with ``--no-crop``.

    Args:
        asked: one of ``ORIGINS``.
        image: of the slide; None, or a picture without bounds, if the slide is not there.
    """
    if asked == SLIDE:
        return Origin(SLIDE, 0, 0, "polygons count from the corner of the whole slide")
    if image is None or image.bounds is None:
        return Origin(
            "unknown",
            0,
            0,
            "polygons count from the corner of the whole slide; whether QuPath opens a part of it "
            "alone (.mrxs, .scn) is not known without the slide: give it with --slide-images",
        )
    x, y = image.bounds[:2]
    if not (x or y):
        return Origin(BOUNDS, 0, 0, "polygons count from the corner of the slide")
    return Origin(
        BOUNDS,
        x,
        y,
        f"polygons count from the slide's bounds at ({x}, {y}), as QuPath opens it; for QuPath "
        "with --no-crop use --geojson-origin slide",
    )


def write_geojson(table: pd.DataFrame, file: Path, kind: str, origin: Origin) -> int:
    """Write patches as polygons in pixels of level 0, for File → Import objects in QuPath.

    Every polygon that this package exports is written here.

    Args:
        table: patches, the highest first; those beyond ``GEOJSON_LIMIT`` are left out.
        file: to write.
        kind: ``"annotation"`` or ``"detection"``, QuPath's type of the objects.
        origin: of the coordinates; the file states it in its ``properties``.

    Returns:
        How many were written.
    """
    rows = table.head(GEOJSON_LIMIT).itertuples()
    collection = {
        "type": "FeatureCollection",
        "properties": {
            "origin": origin.name,
            "offset": [origin.x, origin.y],
            "unit": "pixels of level 0",
            "about": origin.words,
        },
        "features": [_feature(patch, kind, origin) for patch in rows],
    }
    write_text(file, json.dumps(collection, separators=(",", ":")))
    return len(collection["features"])


def _feature(patch: Any, kind: str, origin: Origin) -> dict[str, Any]:
    place = f"{float(patch.x)} {float(patch.y)}"
    x, y, side = float(patch.x) - origin.x, float(patch.y) - origin.y, patch.patch_size
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    name, colour = patch_class(patch.percentile)
    properties = {
        "objectType": kind,
        "classification": {"name": name, "color": colour},
        "measurements": {
            "Attention": patch.attention,
            "Times even": patch.times_even,
            "Percentile": patch.percentile,
            "Rank": patch.rank,
        },
    }
    if kind == "annotation":
        properties["name"] = f"#{patch.rank}"
    return {
        "type": "Feature",
        # A patch has the same id in every file, so that QuPath recognises it.
        "id": str(uuid.uuid5(_NAMESPACE, f"{patch.slide_id} {place}")),
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": properties,
    }


def patch_class(percentile: float) -> tuple[str, list[int]]:
    """Name and colour of a patch's class; QuPath can show and hide classes."""
    edges = (0, *CLASS_BOUNDS, 100)
    place = int(np.searchsorted(CLASS_BOUNDS, percentile, side="right"))
    colour = matplotlib.colormaps["plasma"](place / len(CLASS_BOUNDS))[:3]
    name = f"Attention {edges[place]}-{edges[place + 1]} %"
    return name, [round(255 * part) for part in colour]
