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
from gimp_fast.files.atomic import write_text
from gimp_fast.files.safe_text import guarded_table
from gimp_fast.heatmaps.attribution import Attribution
from gimp_fast.heatmaps.draw_slide import SlideMap, write_montage, write_overlay
from gimp_fast.heatmaps.gene_maps import fragment_table, gene_table, write_gene_bars
from gimp_fast.heatmaps.gene_symbols import with_symbol
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.heatmaps.patch_tables import origin_of, patch_table, write_csv, write_geojson
from gimp_fast.heatmaps.places import PIXELS, PatchPlaces, patch_places
from gimp_fast.heatmaps.protocols import ExplainedModel, SlideImage
from gimp_fast.heatmaps.scales import STANDS_OUT, Spread, colour_scale
from gimp_fast.runs import layout

_TILE = 160  # pixels of a patch in the montage
_BARS = 20  # genes and fragments that are drawn


@dataclass(frozen=True)
class PatientMaps:
    """One patient's prediction and weights: what all files of the patient share.

    Attributes:
        bag: the patient's patches; None without a slide.
        expression: (G,) scaled, as the model read it; None without RNA.
        found: weights and probabilities.
        attribution: what the weights are, in words.
        symbols: of the model's genes, ``""`` where none is known.
    """

    trained: ExplainedModel
    cohort: Cohort
    case_id: str
    bag: Bag | None
    expression: np.ndarray | None
    found: Attribution
    attribution: str
    symbols: tuple[str, ...] = ()

    @property
    def predicted(self) -> str:
        """The class; of another target, its first number and what that is, ``risk 0.42``."""
        if self.trained.classes:
            return self.trained.classes[int(self.found.predictions.argmax())]
        return f"{self.trained.columns[0]} {self.found.predictions[0]:.3g}"

    @property
    def label(self) -> str | None:
        """The class of the patient, where it is known."""
        if not self.trained.classes:
            return None
        return self.cohort.class_of(self.case_id, self.trained.asked)

    @property
    def truth(self) -> str | None:
        """The class of the patient, or the time or number that was predicted, where it is known."""
        target = self.cohort.targets.get(self.trained.asked)
        if self.trained.classes or target is None:
            return self.label
        return target.words(self.case_id)

    @property
    def title(self) -> str:
        text = f"predicted {self.predicted}"
        if self.trained.classes:
            text += f" ({self.found.predictions.max():.2f})"
        return text if self.label is None else f"{text}, true class {self.label}"

    @property
    def mark(self) -> str:
        """Opens the headings of pictures whose model or patient is generated."""
        return "SYNTHETIC · " if self.trained.synthetic or self.cohort.synthetic else ""

    def record(self) -> dict[str, Any]:
        """The patient's record in ``heatmaps.json``, without slides and genes."""
        pairs = zip(self.trained.columns, self.found.predictions.tolist(), strict=True)
        return {
            "case_id": self.case_id,
            "label": self.label,
            "truth": self.truth,
            "prediction": self.predicted,
            "probabilities": {name: round(value, 6) for name, value in pairs},
            "attention": self.spread and self.spread.record(),
        }

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Weights of all patches, as :func:`patch_table` needs them; ties share a percentile."""
        attention = self.found.patches
        even = float(np.abs(attention).mean()) or 1.0
        percentile = 100 * (pd.Series(attention).rank() - 0.5) / len(attention)
        columns = {"attention": attention, "times_even": attention / even, "percentile": percentile}
        return pd.DataFrame(columns)

    @cached_property
    def spread(self) -> Spread | None:
        """How much the weights of the patient's patches differ; None without patches."""
        if self.found.patches is None or not len(self.found.patches):
            return None
        return Spread.of(self.weights["times_even"].to_numpy())

    def weights_of(self, slide: SlideEntry) -> pd.DataFrame:
        start = sum(self.bag.lengths[: self.bag.slides.index(slide)])
        return self.weights.iloc[start : start + slide.num_patches]


def write_slide(
    maps: PatientMaps,
    slide: SlideEntry,
    image: SlideImage | None,
    options: HeatmapOptions,
    folder: Path,
) -> dict[str, Any]:
    """The record of one slide, whose files are written; without an image, tissue is grey."""
    mpp = None if image is None else image.mpp
    places = patch_places(slide, maps.cohort, patch_size=options.patch_size, mpp=mpp)
    table = patch_table(slide.slide_id, places, maps.weights_of(slide))
    by_rank, notes = table.sort_values("rank"), list(places.notes)
    highest = by_rank.head(options.top)
    marked = (highest["times_even"] >= STANDS_OUT).to_numpy(bool)
    top = highest[marked]
    write_csv(table.sort_values("row"), folder / layout.PATCH_TABLE)
    write_csv(highest.assign(marked=marked.astype(int)), folder / layout.TOP_TABLE)
    files = {"patches": layout.PATCH_TABLE, "top": layout.TOP_TABLE}
    remark = _remark(maps, len(top), len(highest))
    notes += [f"{remark[:1].upper()}{remark[1:]}."] if remark else []
    origin = None
    if places.coords is not None and slide.num_patches:
        if places.unit != PIXELS:
            image = None
        files |= _draw(maps, table, top.index.to_numpy(), places, remark, image, options, folder)
        if options.geojson != "none" and places.unit != PIXELS:
            notes.append("No GeoJSON: it needs coordinates in pixels.")
        elif options.geojson != "none":
            rows, kind = (top, "annotation") if options.geojson == "top" else (by_rank, "detection")
            origin = origin_of(options.geojson_origin, image)
            written = write_geojson(rows, folder / layout.GEOJSON, kind, origin)
            files["geojson"] = layout.GEOJSON
            notes.append(f"GeoJSON: {origin.words}.")
            if written < len(rows):
                notes.append(f"GeoJSON holds the {written:,} highest of {len(rows):,} patches.")
    total = float(np.abs(maps.found.patches).sum()) or 1.0
    return {
        "slide_id": slide.slide_id,
        "num_patches": slide.num_patches,
        "share_of_patient": round(float(np.abs(table["attention"].to_numpy()).sum()) / total, 6),
        "patch_size": places.size,
        "unit": places.unit,
        "highest_times_even": float(f"{table['times_even'].max():.6g}") if len(table) else None,
        "num_marked": len(top),
        "geojson_origin": origin and {"name": origin.name, "offset": [origin.x, origin.y]},
        "files": files,
        "notes": notes,
    }


def _remark(maps: PatientMaps, found: int, asked: int) -> str:
    """A sentence, without a full stop, if the map is flat or fewer patches stand out than asked."""
    if maps.spread is not None and maps.spread.flat:
        return f"{maps.spread.words}; no patch is marked"
    if found == asked:
        return ""
    least = f"{STANDS_OUT:g} times an even share"
    if not found:
        return f"none of the {asked} highest patches has {least}, and none is marked"
    return f"of the {asked} highest patches, {found} with {least} or more are marked"


def _draw(
    maps: PatientMaps,
    table: pd.DataFrame,
    top: np.ndarray,
    places: PatchPlaces,
    remark: str,
    image: SlideImage | None,
    options: HeatmapOptions,
    folder: Path,
) -> dict[str, str]:
    """The files of pictures of a slide, by kind, which are written."""
    slide_id, title = table["slide_id"].iloc[0], f"{maps.case_id}: {maps.title}"
    scale = colour_scale(options.scale, maps.spread, maps.weights)
    heading = f"{maps.mark}{slide_id}\n{title}"
    if maps.spread.flat:
        heading += f"\nEFFECTIVELY FLAT{maps.spread.words.removeprefix('effectively flat')}"
    drawn = SlideMap(
        heading=heading,
        attribution=maps.attribution,
        places=places,
        values=scale.places(table),
        top=top,
        scale=scale,
        remark="" if maps.spread.flat else remark,
        image=image,
    )
    write_overlay(drawn, folder / layout.OVERLAY, folder / layout.THUMBNAIL)
    files = {"overlay": layout.OVERLAY, "thumbnail": layout.THUMBNAIL}
    if image is not None and len(top):
        tiles = [image.region(*places.coords[row], places.size, _TILE) for row in top]
        patches = table.loc[top].itertuples()
        captions = [f"#{patch.rank}  {patch.times_even:.1f} × even" for patch in patches]
        write_montage(tiles, captions, f"{slide_id}: {title}", folder / layout.MONTAGE)
        files["montage"] = layout.MONTAGE
    return files


def write_genes(maps: PatientMaps, options: HeatmapOptions, folder: Path) -> dict[str, Any]:
    """The record of the genes of a patient with RNA, whose files are written."""
    fragments = fragment_table(maps.trained, maps.found, maps.symbols)
    genes = gene_table(maps.trained, maps.found, maps.expression, fragments, maps.symbols)
    text = guarded_table(genes).to_csv(index=False, float_format="%.6g")
    write_text(folder / layout.GENES, text)
    first = genes.drop_duplicates("gene_id").head(_BARS)
    names = [with_symbol(*gene) for gene in zip(first["gene_id"], first["gene_name"], strict=True)]
    gradients = first.set_index(pd.Index(names))["gradient_input"]
    attention = fragments.head(_BARS).set_index("name")["times_even"]
    title = f"{maps.mark}{maps.case_id}: {maps.title}"
    write_gene_bars(title, attention, gradients, folder / layout.GENE_BARS)
    notes = []
    if not any(maps.symbols):
        notes.append("Genes have ids alone; --gene-symbols FILE shows their symbols too.")
    return {
        "files": {"genes": layout.GENES, "figure": layout.GENE_BARS},
        "top_genes": list(gradients.index[: options.top]),
        "top_fragments": list(attention.index[: options.top]),
        "notes": notes,
    }
