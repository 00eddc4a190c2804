"""From slides to feature files: one slide at a time, its patches in batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gimp_fast.data.slides import open_slide
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.parallel import available_cores
from gimp_fast.wsi.feature_file import (
    PatchEncoder,
    read_coords,
    settings_of,
    write_coords,
    write_features,
)
from gimp_fast.wsi.grid import PatchPlan, PatchSet, foreground, plan_of_size, plan_patches
from gimp_fast.wsi.options import ExtractOptions
from gimp_fast.wsi.overlay import draw_overlay, write_overlay
from gimp_fast.wsi.overview import read_overview, reduce
from gimp_fast.wsi.patches import read_batches
from gimp_fast.wsi.readers import open_wsi
from gimp_fast.wsi.resolution import Override, level0_mpp, number
from gimp_fast.wsi.slide import SlideFacts, WholeSlide
from gimp_fast.wsi.slide_files import slide_id_of
from gimp_fast.wsi.tissue import Tissue, find_tissue

OnBatch = Callable[[int], None]  # called with the number of patches after each batch


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

    @property
    def slide_id(self) -> str:
        return slide_id_of(self.path)


def extract(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: OnBatch = lambda patches: None,
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
            _extract_one(outcome, options, encoder, on_batch)
        except FaultError as error:
            outcome.faults = error.faults
        outcome.seconds = time.perf_counter() - start
        yield outcome


def _extract_one(
    outcome: Outcome, options: ExtractOptions, encoder: PatchEncoder | None, on_batch: OnBatch
) -> None:
    override = options.overrides.of(outcome.path)
    settings = settings_for(options, encoder, override)
    folder = "patches" if encoder is None else "h5_files"
    target = options.out / folder / f"{outcome.slide_id}.h5"
    if target.exists() and not options.overwrite:
        outcome.patches = _rows_of_present(target, settings, encoder is not None)
        outcome.status = "present"
        return
    with open_wsi(outcome.path) as slide:
        outcome.reader = slide.facts.reader
        choose = _choose_patches if options.coords is None else _given_patches
        patches, tissue, picture = choose(slide, options, override)
        outcome.plan, outcome.tissue, coords = patches.plan, tissue, patches.coords
        if options.overlay:
            picture = draw_overlay(picture, tissue and tissue.mask, patches)
            write_overlay(options.out / "overlays" / f"{outcome.slide_id}.png", picture)
        if not len(coords):
            raise FaultError.of("no-tissue", outcome.path, *_no_patches(tissue, options))
        provenance: dict[str, object] = {"settings": settings}
        if tissue is not None:
            least = options.grid.min_tissue
            provenance |= {"min_tissue": least, "saturation": tissue.threshold}
        if encoder is None:
            write_coords(target, patches, provenance)
        else:
            workers = options.workers or available_cores()
            batches = read_batches(slide, patches.plan, coords, options.batch_size, workers)
            features = _encode(outcome.path, encoder, batches, on_batch)
            write_features(target, patches, encoder, features, provenance)
    outcome.patches, outcome.status = len(coords), "done"


def settings_for(
    options: ExtractOptions, encoder: PatchEncoder | None, override: Override | None
) -> dict[str, object]:
    """Everything that changes the content of a file: one with other settings is not finished."""
    settings: dict[str, object] = {
        "patch_size": options.grid.patch_size,
        "override_mpp": override.mpp if override else None,
        "coords": "given" if options.coords else "tissue",
    }
    if not options.coords:
        settings |= {"grid": asdict(options.grid), "tissue": asdict(options.tissue)}
    if encoder is not None:
        settings |= {"encoder": encoder.name, "precision": encoder.precision}
    return settings


def _rows_of_present(target: Path, settings: dict[str, object], features: bool) -> int:
    """Rows of a file that an earlier run made with these settings; FaultError if with others."""
    made_with = settings_of(target)
    expected = "the settings of this run; --overwrite replaces it, another --out keeps both"
    if made_with is None:
        raise FaultError.of("other-settings", target, "a file from another program", expected)
    differences = [
        f"{key} {made_with.get(key)} (now {settings.get(key)})"
        for key in sorted({*made_with, *settings})
        if made_with.get(key) != settings.get(key)
    ]
    if differences:
        raise FaultError.of("other-settings", target, "; ".join(differences), expected)
    if not features:
        return len(read_coords(target)[0])
    with open_slide(target) as slide:
        return slide.info.num_patches


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
    picture, _ = read_overview(slide, plan.level0_mpp, options.tissue.mpp)
    return PatchSet(facts, plan, coords, "file"), None, picture


def _given_size(path: Path, attributes: dict[str, object], facts: SlideFacts) -> int:
    """Side of the patches of a coordinate file in pixels of level 0."""
    size = number(attributes.get("patch_size_level0"))
    if size is None and (size := number(attributes.get("patch_size"))):  # CLAM: pixels of a level
        level = int(number(attributes.get("patch_level")) or 0)
        if not 0 <= level < len(facts.levels):
            expected = f"one of the {len(facts.levels)} levels of {facts.path.name}"
            raise FaultError.of("coords", path, f"patch_level {level}", expected)
        size *= facts.levels[level].downsample
    if not size or size < 1:
        expected = "'patch_size_level0', or 'patch_size' and 'patch_level'"
        raise FaultError.of("coords", path, f"attributes {sorted(attributes)}", expected)
    return round(size)


def _no_patches(tissue: Tissue | None, options: ExtractOptions) -> tuple[str, str]:
    """What was found and expected of a slide without patches."""
    if tissue is None:
        return "no coordinates", "at least one patch"
    found = f"tissue on {tissue.fraction:.2%} of the slide (saturation above {tissue.threshold:g})"
    if tissue.dropped:
        found += f", and {tissue.dropped:.2%} in parts below --min-part"
    least = options.grid.min_tissue
    return found, f"a patch with at least {least:.0%} tissue; see the overlay, --saturation"


def _encode(
    path: Path, encoder: PatchEncoder, batches: Generator[np.ndarray], on_batch: OnBatch
) -> Generator[np.ndarray]:
    """Features, batch by batch; FaultError if they are not finite."""
    with contextlib.closing(batches):
        for batch in batches:
            features = encoder(batch)
            if not np.isfinite(features).all():
                found = f"NaN or ∞ from a network in {encoder.precision}"
                expected = "finite features; fp16 overflows above 65,504, bf16 and fp32 do not"
                raise FaultError.of("features-not-finite", path, found, expected)
            yield features
            on_batch(len(batch))
