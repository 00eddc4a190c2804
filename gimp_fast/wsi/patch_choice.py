"""Which patches of a slide are taken: those of its tissue, or those of a file of coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gimp_fast.errors import FaultError, counted
from gimp_fast.wsi.feature_file import read_coords
from gimp_fast.wsi.grid import PatchSet, foreground, plan_of_size, plan_patches
from gimp_fast.wsi.options import ExtractOptions
from gimp_fast.wsi.overview import read_overview, reduce
from gimp_fast.wsi.resolution import Override, level0_mpp, number, resolution_cautions
from gimp_fast.wsi.slide import SlideFacts, WholeSlide
from gimp_fast.wsi.slide_files import slide_id_of
from gimp_fast.wsi.tissue import Tissue, find_tissue

_MUCH_PALE = 0.25  # of the area of the tissue


def choose_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None
) -> tuple[PatchSet, Tissue | None, np.ndarray]:
    """Patches of tissue; the tissue; and a picture of the slide, (h, w, 3) uint8."""
    facts, plan = slide.facts, plan_patches(slide.facts, options.grid, override)
    picture, finer = read_overview(slide, plan.level0_mpp, options.tissue.mpp)
    small = reduce(picture, finer)
    tissue = find_tissue(small, plan.level0_mpp * facts.width / small.shape[1], options.tissue)
    coords = foreground(facts, plan, tissue.mask, options.grid.min_tissue)
    return PatchSet(facts, plan, coords, "row"), tissue, picture


def given_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None
) -> tuple[PatchSet, Tissue | None, np.ndarray]:
    """As ``choose_patches``, but the patches of a coordinate file in its order, and no tissue."""
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


def no_patches(path: Path, tissue: Tissue | None, options: ExtractOptions) -> tuple[str, str]:
    """What was found and expected of a slide without patches."""
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
        f"alone with --slides {path}"
    )
