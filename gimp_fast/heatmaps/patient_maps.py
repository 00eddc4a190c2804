"""Writes the files of one slide's heatmap and of one patient's genes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gimp_fast.data import Cohort
from gimp_fast.data.bag import Bag, SlideEntry
from gimp_fast.heatmaps.attribution import Attribution
from gimp_fast.heatmaps.draw_slide import SlideMap, SlideView, write_montage, write_overlay
from gimp_fast.heatmaps.gene_maps import GeneBars, fragment_table, gene_table, write_gene_bars
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.heatmaps.patch_tables import PatchTable, write_csv, write_geojson
from gimp_fast.heatmaps.places import PIXELS, PatchPlaces, patch_places
from gimp_fast.heatmaps.protocols import ExplainedModel, SlideImage
from gimp_fast.runs import layout

_VIEW = 2400  # pixels of the longer side of the slide behind a map
_TILE = 160  # pixels of a patch in the montage
_BARS = 20  # genes and fragments that are drawn


@dataclass(frozen=True)
class PatientMaps:
    """One patient's prediction and weights: what all files of the patient share.

    Attributes:
        trained: the model.
        cohort: the patient's cohort.
        bag: the patient's patches; None without a slide.
        case_id: of the patient.
        found: weights and probabilities.
        attribution: what the weights are, in words.
    """

    trained: ExplainedModel
    cohort: Cohort
    bag: Bag | None
    case_id: str
    found: Attribution
    attribution: str

    @property
    def predicted(self) -> str:
        return self.trained.classes[int(self.found.probabilities.argmax())]

    @property
    def label(self) -> str | None:
        """The class of the patient, where it is known."""
        if not self.cohort.has_label(self.case_id):
            return None
        return self.cohort.classes[self.cohort.label(self.case_id)]

    @property
    def title(self) -> str:
        text = f"predicted {self.predicted} ({self.found.probabilities.max():.2f})"
        return text if self.label is None else f"{text}, true class {self.label}"

    @property
    def synthetic(self) -> bool:
        return self.trained.synthetic or self.cohort.synthetic

    def record(self) -> dict[str, Any]:
        """The patient's record in ``heatmaps.json``, without slides and genes."""
        pairs = zip(self.trained.classes, self.found.probabilities.tolist(), strict=True)
        return {
            "case_id": self.case_id,
            "label": self.label,
            "prediction": self.predicted,
            "probabilities": {name: round(value, 6) for name, value in pairs},
        }

    @cached_property
    def percentiles(self) -> np.ndarray:
        """(T,) in 0 … 100 among all patches of the patient; equal weights share a percentile."""
        weights = self.found.patches
        return 100 * (pd.Series(weights).rank().to_numpy() - 0.5) / len(weights)

    def table(self, slide: SlideEntry, places: PatchPlaces) -> PatchTable:
        """The patches of one slide."""
        start = sum(self.bag.lengths[: self.bag.slides.index(slide)])
        rows = slice(start, start + slide.num_patches)
        weights = self.found.patches
        even = float(np.abs(weights).mean()) or 1.0
        ranks = np.empty(slide.num_patches, np.int64)
        ranks[np.argsort(-weights[rows], kind="stable")] = np.arange(1, slide.num_patches + 1)
        return PatchTable(
            slide_id=slide.slide_id,
            file_rows=places.file_rows,
            coords=places.coords,
            size=places.size,
            unit=places.unit,
            attention=weights[rows],
            share=weights[rows] / even,
            percentile=self.percentiles[rows],
            rank=ranks,
        )


def write_slide(
    maps: PatientMaps,
    slide: SlideEntry,
    image: SlideImage | None,
    options: HeatmapOptions,
    folder: Path,
    image_folder: Path | None = None,
) -> dict[str, Any]:
    """The record of one slide, whose files are written.

    Args:
        maps: of the patient.
        slide: one of the bag's, with at least one patch.
        image: of the slide; None draws tissue in grey.
        options: what to write.
        folder: where.
        image_folder: where an image was looked for; the record mentions it if there was none.
    """
    mpp = None if image is None else image.mpp
    places = patch_places(slide, maps.cohort, patch_size=options.patch_size, mpp=mpp)
    table, notes = maps.table(slide, places), list(places.notes)
    top = table.highest(options.top)
    write_csv(table, folder / layout.PATCH_TABLE)
    write_csv(table, folder / layout.TOP_TABLE, top)
    files = {"patches": layout.PATCH_TABLE, "top": layout.TOP_TABLE}
    if places.coords is not None and slide.num_patches:
        drawn = _slide_map(maps, table, places, top, image)
        write_overlay(drawn, folder / layout.OVERLAY, folder / layout.THUMBNAIL)
        files |= {"overlay": layout.OVERLAY, "thumbnail": layout.THUMBNAIL}
        if image is not None and places.unit == PIXELS and len(top):
            _montage(table, top, image, drawn, folder / layout.MONTAGE)
            files["montage"] = layout.MONTAGE
        files |= _geojson(table, top, options, folder / layout.GEOJSON, notes)
    if image_folder is not None and image is None:
        notes.append(f"{image_folder} has no image of this slide: tissue is drawn in grey.")
    total = float(np.abs(maps.found.patches).sum()) or 1.0
    return {
        "slide_id": slide.slide_id,
        "num_patches": slide.num_patches,
        "share_of_patient": round(float(np.abs(table.attention).sum()) / total, 6),
        "patch_size": places.size,
        "unit": places.unit,
        "files": files,
        "notes": notes,
    }


def _slide_map(
    maps: PatientMaps,
    table: PatchTable,
    places: PatchPlaces,
    top: np.ndarray,
    image: SlideImage | None,
) -> SlideMap:
    view = None
    if image is not None and places.unit == PIXELS:
        pixels = image.thumbnail(_VIEW)
        height, width = pixels.shape[:2]
        view = SlideView(pixels, (image.size[0] / width, image.size[1] / height))
    return SlideMap(
        slide_id=table.slide_id,
        title=f"{maps.case_id}: {maps.title}",
        attribution=maps.attribution,
        coords=places.coords,
        size=places.size,
        unit=places.unit,
        percentile=table.percentile,
        top=top,
        mpp=places.mpp,
        view=view,
        synthetic=maps.synthetic,
    )


def _montage(
    table: PatchTable, top: np.ndarray, image: SlideImage, drawn: SlideMap, file: Path
) -> None:
    tiles = [image.region(*table.coords[row], table.size, _TILE) for row in top]
    captions = [f"#{table.rank[row]}  {table.share[row]:.1f} × even" for row in top]
    write_montage(tiles, captions, f"{drawn.slide_id}: {drawn.title}", file)


def _geojson(
    table: PatchTable, top: np.ndarray, options: HeatmapOptions, file: Path, notes: list[str]
) -> dict[str, str]:
    if options.geojson == "none":
        return {}
    if table.unit != PIXELS:
        notes.append("No GeoJSON: it needs coordinates in pixels.")
        return {}
    rows, kind = top, "annotation"
    if options.geojson == "all":
        rows, kind = table.highest(len(table.rank)), "detection"
    written = write_geojson(table, file, rows, kind)
    if written < len(rows):
        notes.append(f"GeoJSON holds the {written:,} highest of {len(rows):,} patches.")
    return {"geojson": file.name}


def write_genes(
    maps: PatientMaps, expression: np.ndarray, options: HeatmapOptions, folder: Path
) -> dict[str, Any]:
    """The record of one patient's genes, whose files are written.

    Args:
        maps: of the patient, who has RNA.
        expression: (G,) scaled, as the model read it.
        options: what to write.
        folder: where.
    """
    trained = maps.trained
    genes = gene_table(trained, maps.found, expression)
    fragments = fragment_table(trained, maps.found)
    genes.to_csv(folder / layout.GENES, index=False, float_format="%.6g")
    first = genes.drop_duplicates("gene_id").head(_BARS)
    names = [name or id for id, name in zip(first["gene_id"], first["gene_name"], strict=True)]
    bars = GeneBars(
        title=f"{maps.case_id}: {maps.title}",
        fragments=list(fragments["name"].head(_BARS)),
        attention=fragments["times_even"].head(_BARS).to_numpy(float),
        genes=names,
        gradients=first["gradient_input"].to_numpy(float),
        synthetic=maps.synthetic,
    )
    write_gene_bars(bars, folder / layout.GENE_BARS)
    return {
        "files": {"genes": layout.GENES, "figure": layout.GENE_BARS},
        "top_genes": names[: options.top],
        "top_fragments": bars.fragments[: options.top],
    }
