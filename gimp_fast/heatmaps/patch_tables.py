"""The tables of one slide's heatmap: patches as csv, and as polygons for QuPath."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

GEOJSON_LIMIT = 50_000  # polygons: 12 MB, which QuPath opens in seconds
# Percentiles that separate the classes of patches in QuPath.
CLASS_BOUNDS = (50, 75, 90, 99)
_NAMESPACE = uuid.UUID("8a6b1f5e-5e0c-5d65-9c39-3f1a9f2d7c11")


@dataclass(frozen=True)
class PatchTable:
    """The patches of a slide, one in each row of every array.

    Attributes:
        slide_id: of the slide.
        file_rows: (N,) row in the feature file; None where not known.
        coords: (N, 2) upper left corners; None where not known.
        size: side of a patch, in ``unit``, ``"px"`` of level 0 or ``"um"``.
        attention: (N,) as the model gives it.
        share: (N,) attention in multiples of an even share.
        percentile: (N,) in 0 … 100 among the patches of the patient.
        rank: (N,) 1 for the highest of the slide.
    """

    slide_id: str
    file_rows: np.ndarray | None
    coords: np.ndarray | None
    size: float
    unit: str
    attention: np.ndarray
    share: np.ndarray
    percentile: np.ndarray
    rank: np.ndarray

    def frame(self) -> pd.DataFrame:
        """All columns; in the order of the feature file where it is known."""
        known = self.coords is not None
        whole = known and self.unit == "px" and np.array_equal(self.coords, self.coords.round())
        coords = self.coords.astype(np.int64) if whole else self.coords
        frame = pd.DataFrame(
            {
                "slide_id": self.slide_id,
                "row": pd.NA if self.file_rows is None else self.file_rows,
                "x": coords[:, 0] if known else pd.NA,
                "y": coords[:, 1] if known else pd.NA,
                "patch_size": f"{self.size:g}" if known else pd.NA,
                "unit": self.unit if known else pd.NA,
                "attention": self.attention,
                "times_even": self.share,
                "percentile": self.percentile.round(3),
                "rank": self.rank,
            },
            index=range(len(self.attention)),
        )
        return frame if self.file_rows is None else frame.sort_values("row")

    def highest(self, count: int) -> np.ndarray:
        """Rows of the patches of most attention, the highest first."""
        return np.argsort(self.rank, kind="stable")[:count]


def write_csv(table: PatchTable, file: Path, rows: np.ndarray | None = None) -> None:
    """Write all patches, or only those of ``rows``, in their order."""
    frame = table.frame()
    if rows is not None:
        frame = frame.loc[rows]
    frame.to_csv(file, index=False, float_format="%.6g")


def write_geojson(table: PatchTable, file: Path, rows: np.ndarray, kind: str) -> int:
    """Write patches as polygons in pixels of level 0, for File → Import objects in QuPath.

    Args:
        table: with coordinates in pixels.
        file: to write.
        rows: patches, the highest first; those beyond ``GEOJSON_LIMIT`` are left out.
        kind: ``"annotation"`` or ``"detection"``, QuPath's type of the objects.

    Returns:
        How many were written.
    """
    rows = rows[:GEOJSON_LIMIT]
    features = [_feature(table, row, kind) for row in rows.tolist()]
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    file.write_text(text, encoding="utf-8")
    return len(features)


def _feature(table: PatchTable, row: int, kind: str) -> dict[str, Any]:
    (x, y), side = (float(value) for value in table.coords[row]), table.size
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    name, colour = patch_class(table.percentile[row])
    properties = {
        "objectType": kind,
        "classification": {"name": name, "color": colour},
        "measurements": {
            "Attention": float(table.attention[row]),
            "Times even": float(table.share[row]),
            "Percentile": float(table.percentile[row]),
            "Rank": int(table.rank[row]),
        },
    }
    if kind == "annotation":
        properties["name"] = f"#{int(table.rank[row])}"
    return {
        "type": "Feature",
        # A patch has the same id in every file, so that QuPath recognises it.
        "id": str(uuid.uuid5(_NAMESPACE, f"{table.slide_id} {x} {y}")),
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
