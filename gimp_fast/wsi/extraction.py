"""From slides to feature files: one slide at a time, its patches in batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gimp_fast.errors import Fault, FaultError, counted
from gimp_fast.tasks.processes import available_cores
from gimp_fast.wsi.feature_file import (
    PatchEncoder,
    read_coords,
    rows_of,
    write_coords,
    write_features,
)
from gimp_fast.wsi.finished import check_settings, settings_for
from gimp_fast.wsi.grid import PatchPlan, PatchSet, foreground, plan_of_size, plan_patches
from gimp_fast.wsi.options import ExtractOptions
from gimp_fast.wsi.overlay import draw_overlay, write_overlay
from gimp_fast.wsi.overview import read_overview, reduce
from gimp_fast.wsi.patches import read_batches
from gimp_fast.wsi.readers import open_wsi
from gimp_fast.wsi.resolution import Override, level0_mpp, number, resolution_cautions
from gimp_fast.wsi.slide import SlideFacts, WholeSlide
from gimp_fast.wsi.slide_files import slide_id_of
from gimp_fast.wsi.tissue import Tissue, find_tissue

OnBatch = Callable[[int], None]  # called with the number of patches after each batch
OnStage = Callable[[str, str], None]  # called with a slide id and what is done with it now
_MUCH_PALE = 0.25  # of the area of the tissue


@dataclass
class Outcome:
    """The outcome of one slide."""

    path: Path
    status: str = "failed"  # "done", or "present": made by an earlier run
    patches: int = 0  # rows of its file
    plan: PatchPlan | None = None  # of its patches; None if it failed before, or is present
    tissue: Tissue | None = None  # None also if the patches were given
    reader: str = ""  # library and format
    seconds: float = 0.0
    faults: tuple[Fault, ...] = ()  # why it failed
    cautions: tuple[str, ...] = ()  # what to look at before its patches are used

    @property
    def slide_id(self) -> str:
        return slide_id_of(self.path)


def extract(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: OnBatch = lambda patches: None,
    on_stage: OnStage = lambda slide_id, stage: None,
) -> Iterator[Outcome]:
    """Write the file of every slide; a slide that fails does not stop the others.

    Yields the outcome of each slide, in order. Without an encoder, writes coordinates alone.

    Raises:
        GimpError: no slide can succeed: the disk is full, or the GPU too small.
    """
    for path in slides:
        outcome = Outcome(path)
        start = time.perf_counter()
        try:
            _extract_one(outcome, options, encoder, on_batch, on_stage)
        except FaultError as error:
            outcome.faults = error.faults
        outcome.seconds = time.perf_counter() - start
        yield outcome


def _extract_one(
    outcome: Outcome,
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: OnBatch,
    on_stage: OnStage,
) -> None:
    override = options.overrides.of(outcome.path)
    settings = settings_for(options, encoder)
    folder = "patches" if encoder is None else "h5_files"
    target = options.out / folder / f"{outcome.slide_id}.h5"
    if target.exists() and not options.overwrite:
        check_settings(target, settings, outcome.path, override)
        outcome.patches = _rows_of(target, encoder is not None)
        outcome.status = "present"
        return
    on_stage(outcome.slide_id, "looking for tissue" if options.coords is None else "opening")
    with open_wsi(outcome.path) as slide:
        outcome.reader = slide.facts.reader
        choose = _choose_patches if options.coords is None else _given_patches
        patches, tissue, picture = choose(slide, options, override)
        outcome.plan, outcome.tissue, coords = patches.plan, tissue, patches.coords
        outcome.cautions = cautions_of(patches, tissue)
        if options.overlay:
            picture = draw_overlay(picture, tissue and tissue.mask, patches)
            write_overlay(options.out / "overlays" / f"{outcome.slide_id}.png", picture)
        if not len(coords):
            raise FaultError.of("no-tissue", outcome.path, *_no_patches(outcome, options))
        provenance: dict[str, object] = {"settings": settings}
        if tissue is not None:
            least = options.grid.min_tissue
            provenance |= {"min_tissue": least, "saturation": tissue.threshold}
        if encoder is None:
            write_coords(target, patches, provenance)
        else:
            on_stage(outcome.slide_id, f"encoding {counted(len(coords), 'patch', 'patches')}")
            workers = options.workers or available_cores()
            batches = read_batches(slide, patches.plan, coords, options.batch_size, workers)
            features = _encode(outcome.path, encoder, batches, on_batch)
            write_features(target, patches, encoder, features, provenance)
    outcome.patches, outcome.status = len(coords), "done"


def cautions_of(patches: PatchSet, tissue: Tissue | None) -> tuple[str, ...]:
    """What to look at before the patches are used, in sentences without a full stop."""
    plan = patches.plan
    cautions = list(resolution_cautions(patches.facts, plan.level0_mpp, plan.mpp_source))
    if tissue is None:
        return tuple(cautions)
    if tissue.pens > tissue.fraction:
        cautions.append(
            f"marks of pens on {tissue.pens:.1%} of the slide were left out, more than there is "
            "tissue; if they are tissue in a blue or green stain, use --no-skip-pens"
        )
    if tissue.pale > _MUCH_PALE * tissue.fraction:
        cautions.append(
            f"pale parts, {tissue.pale:.1%} of the slide, are below the saturation of "
            f"{tissue.threshold:g} that was used; --saturation 8 takes them: see the overlay"
        )
    return tuple(cautions)


def _rows_of(target: Path, features: bool) -> int:
    """Rows of a finished file."""
    if not features:
        return len(read_coords(target)[0])
    return rows_of(target)


def _choose_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None
) -> tuple[PatchSet, Tissue | None, np.ndarray]:
    """Patches of tissue; the tissue; and a picture of the slide, (h, w, 3) uint8."""
    facts, plan = slide.facts, plan_patches(slide.facts, options.grid, override)
    picture, finer = read_overview(slide, plan.level0_mpp, options.tissue.mpp)
    small = reduce(picture, finer)
    tissue = find_tissue(small, plan.level0_mpp * facts.width / small.shape[1], options.tissue)
    coords = foreground(facts, plan, tissue.mask, options.grid.min_tissue)
    return PatchSet(facts, plan, coords, "row"), tissue, picture


def _given_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None
) -> tuple[PatchSet, Tissue | None, np.ndarray]:
    """As ``_choose_patches``, but the patches of a coordinate file in its order, and no tissue."""
    facts, patch_size = slide.facts, options.grid.patch_size
    path = options.coords / f"{slide_id_of(facts.path)}.h5"
    coords, attributes = read_coords(path)
    size = _given_size(path, attributes, facts)
    if size < patch_size:
        expected = f"--patch-size {size} or less: patches are never enlarged"
        raise FaultError.of("resolution-too-low", path, f"{size} pixels of level 0", expected)
    plan = plan_of_size(facts, size, patch_size, *level0_mpp(facts, override))
    outside = ((coords < 0) | (coords >= [facts.width, facts.height])).any(-1)
    if outside.any():
        row = int(outside.argmax())
        found = f"row {row} at {coords[row].tolist()}"
        expected = f"corners inside {facts.width} × {facts.height} pixels"
        raise FaultError.of("coords", path, found, expected)
    _check_repeats(path, coords)
    picture, _ = read_overview(slide, plan.level0_mpp, options.tissue.mpp)
    return PatchSet(facts, plan, coords, "file"), None, picture


def _check_repeats(path: Path, coords: np.ndarray) -> None:
    """FaultError if most corners are there twice: a damaged file may ask for millions of them."""
    corners = len(np.unique(coords, axis=0))
    if 2 * corners < len(coords):
        found = f"{len(coords)} rows with {counted(corners, 'corner')} among them"
        raise FaultError.of("coords", path, found, "each corner once")


def _given_size(path: Path, attributes: dict[str, object], facts: SlideFacts) -> int:
    """Side of the patches of a coordinate file in pixels of level 0."""
    size = number(attributes.get("patch_size_level0"))
    if size is None and (size := number(attributes.get("patch_size"))):  # CLAM: pixels of a level
        level = int(number(attributes.get("patch_level")) or 0)
        if not 0 <= level < len(facts.levels):
            expected = f"one of {counted(len(facts.levels), 'level')} of {facts.path.name}"
            raise FaultError.of("coords", path, f"patch_level {level}", expected)
        size *= facts.levels[level].downsample
    if not size or size < 1:
        expected = "'patch_size_level0', or 'patch_size' and 'patch_level'"
        raise FaultError.of("coords", path, f"attributes {sorted(attributes)}", expected)
    return round(size)


def _no_patches(outcome: Outcome, options: ExtractOptions) -> tuple[str, str]:
    """What was found and expected of a slide without patches."""
    tissue = outcome.tissue
    if tissue is None:
        return "no coordinates", "at least one patch"
    found = f"tissue on {tissue.fraction:.2%} of the slide (saturation above {tissue.threshold:g})"
    if not tissue.fraction:
        found = f"no tissue: nothing has a saturation above {tissue.threshold:g}"
    advice = "--saturation"
    if tissue.dropped:
        found = (
            f"tissue in parts below --min-part alone, on {tissue.dropped:.2%} of the slide; the "
            f"largest has {tissue.largest_dropped_um2 / 1e6:.2g} mm²"
        )
        # A little less than the part, in two digits.
        advice = f"--min-part {0.9 * tissue.largest_dropped_um2 / 1e6:.2g}"
    if tissue.pale:
        found += f"; {tissue.pale:.2%} of the slide is paler tissue"
        advice = "--saturation 8"
    if tissue.pens:
        found += f"; {tissue.pens:.2%} of the slide has the colours of pens"
        advice += " and --no-skip-pens"
    least = options.grid.min_tissue
    return found, (
        f"a patch with at least {least:.0%} tissue; see the overlay and {advice}, for this slide "
        f"alone with --slides {outcome.path}"
    )


def _encode(
    path: Path, encoder: PatchEncoder, batches: Generator[np.ndarray], on_batch: OnBatch
) -> Generator[np.ndarray]:
    """Features, batch by batch; FaultError if they are not finite."""
    with contextlib.closing(batches):
        for batch in batches:
            features = encoder(batch)
            if not np.isfinite(features).all():
                found = f"NaN or ∞ from a network in {encoder.precision}"
                expected = (
                    "finite features; fp16 overflows above 65,504, bf16 and fp32 do not: "
                    f"--precision bf16, for this slide alone with --slides {path}"
                )
                raise FaultError.of("features-not-finite", path, found, expected)
            yield features
            on_batch(len(batch))
