"""From slides to feature files: one slide after the other, patches in batches, nothing kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from gimp_fast.data.slides import open_slide
from gimp_fast.errors import Fault, FaultError
from gimp_fast.files.atomic import atomic_file
from gimp_fast.wsi import open_wsi
from gimp_fast.wsi.choice import Overrides, slide_id_of
from gimp_fast.wsi.feature_file import (
    FeatureFile,
    read_coords,
    settings_of,
    write_coords,
)
from gimp_fast.wsi.grid import (
    GridOptions,
    Override,
    PatchPlan,
    foreground,
    level0_mpp,
    plan_of_size,
    plan_patches,
)
from gimp_fast.wsi.overlay import draw_overlay, write_overlay
from gimp_fast.wsi.overview import read_overview, reduce
from gimp_fast.wsi.patches import read_batches
from gimp_fast.wsi.slide import WholeSlide, number
from gimp_fast.wsi.tissue import Tissue, TissueOptions, find_tissue


class PatchEncoder(Protocol):
    """What extraction needs of an encoder; see ``gimp_fast.wsi.encoder.Encoder``."""

    name: str
    dim: int
    weights: str
    precision: str

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(B, P, P, 3) uint8 -> (B, C) float32."""


@dataclass(frozen=True)
class ExtractOptions:
    """What is made of each slide, and where it is put.

    Attributes:
        out: folder; gets ``h5_files`` or ``patches``, and ``overlays``.
        grid: which patches.
        tissue: how tissue is found.
        overrides: what the user says of resolutions.
        coords: folder of coordinate files, by slide id, to use instead of looking for tissue.
        batch_size: patches a call of the encoder.
        workers: threads that read.
        overlay: whether a picture is drawn of each slide.
        overwrite: make anew what is there already.
    """

    out: Path
    grid: GridOptions = field(default_factory=GridOptions)
    tissue: TissueOptions = field(default_factory=TissueOptions)
    overrides: Overrides = field(default_factory=Overrides)
    coords: Path | None = None
    batch_size: int = 64
    workers: int = 1
    overlay: bool = True
    overwrite: bool = False


@dataclass
class Outcome:
    """What became of one slide.

    Attributes:
        path: the slide; ``slide_id``: its name in tables.
        status: ``done``, ``present`` (made by an earlier run) or ``failed``.
        patches: rows of its file.
        plan: how they were read; None if it did not come to that, or an earlier run did.
        tissue: fraction of the slide that is tissue; ``threshold``: the saturation used.
        reader: library and format.
        seconds: taken.
        faults: why it failed.
    """

    path: Path
    slide_id: str
    status: str = "failed"
    patches: int = 0
    plan: PatchPlan | None = None
    tissue: float | None = None
    threshold: float | None = None
    reader: str = ""
    seconds: float = 0.0
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class _Patches:
    plan: PatchPlan
    coords: np.ndarray  # (N, 2) int64
    order: str
    tissue: Tissue | None
    picture: np.ndarray | None  # (h, w, 3) uint8, where an overlay is wanted


def extract(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: Callable[[int], None] = lambda patches: None,
) -> Iterator[Outcome]:
    """Make the file of every slide; one that fails does not stop the others.

    Args:
        slides: paths.
        options: see there.
        encoder: None for files of coordinates alone.
        on_batch: told the number of patches after each batch.

    Yields:
        An outcome a slide, in their order.

    Raises:
        GimpError: nothing further can be made: the disk is full, the GPU too small.
    """
    for path in slides:
        outcome = Outcome(path, slide_id_of(path))
        start = time.perf_counter()
        try:
            _extract_one(outcome, options, encoder, on_batch)
        except FaultError as error:
            outcome.status, outcome.faults = "failed", error.faults
        outcome.seconds = time.perf_counter() - start
        yield outcome


def _extract_one(
    outcome: Outcome,
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: Callable[[int], None],
) -> None:
    override = options.overrides.of(outcome.path)
    settings = settings_for(options, encoder, override)
    folder = "patches" if encoder is None else "h5_files"
    target = options.out / folder / f"{outcome.slide_id}.h5"
    if target.exists() and not options.overwrite:
        outcome.patches = _present(target, settings, encoder is not None)
        outcome.status = "present"
        return
    with open_wsi(outcome.path) as slide:
        outcome.reader = slide.facts.reader
        chosen = _choose_patches(slide, options, override, outcome.slide_id)
        outcome.plan = chosen.plan
        made: dict[str, object] = {"settings": settings}
        if chosen.tissue is not None:
            outcome.tissue, outcome.threshold = chosen.tissue.fraction, chosen.tissue.threshold
            made |= {"min_tissue": options.grid.min_tissue, "saturation": chosen.tissue.threshold}
        if chosen.picture is not None:
            _draw(options.out / "overlays" / f"{outcome.slide_id}.png", slide, chosen)
        if not len(chosen.coords):
            raise FaultError.of("no-tissue", outcome.path, *_nothing_found(chosen, options))
        if encoder is None:
            write_coords(target, slide.facts, chosen.plan, chosen.coords, made)
        else:
            _write_features(target, slide, chosen, options, encoder, made, on_batch)
    outcome.patches, outcome.status = len(chosen.coords), "done"


def settings_for(
    options: ExtractOptions, encoder: PatchEncoder | None, override: Override | None
) -> dict[str, object]:
    """All that changes what a file holds; a file made with other settings is not taken for done."""
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


def _present(target: Path, settings: dict[str, object], features: bool) -> int:
    """Rows of a file that an earlier run made with these settings; FaultError if with others."""
    made_with = settings_of(target)
    expected = "the settings of this run; --overwrite makes it anew, another --out keeps both"
    if made_with is None:
        raise FaultError.of("other-settings", target, "a file that something else made", expected)
    differing = [
        f"{key} {made_with.get(key)} (now {settings.get(key)})"
        for key in sorted({*made_with, *settings})
        if made_with.get(key) != settings.get(key)
    ]
    if differing:
        raise FaultError.of("other-settings", target, "; ".join(differing), expected)
    if not features:
        return len(read_coords(target)[0])
    with open_slide(target) as slide:
        return slide.info.num_patches


def _choose_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None, slide_id: str
) -> _Patches:
    if options.coords is not None:
        return _given_patches(slide, options, override, options.coords / f"{slide_id}.h5")
    plan = plan_patches(slide.facts, options.grid, override)
    picture, finer = read_overview(slide, plan.level0_mpp, options.tissue.mpp)
    small = reduce(picture, finer)
    mpp = plan.level0_mpp * slide.facts.width / small.shape[1]
    tissue = find_tissue(small, mpp, options.tissue)
    coords = foreground(slide.facts, plan, tissue.mask, options.grid.min_tissue)
    return _Patches(plan, coords, "row", tissue, picture if options.overlay else None)


def _given_patches(
    slide: WholeSlide, options: ExtractOptions, override: Override | None, path: Path
) -> _Patches:
    """Patches of a coordinate file of CLAM, TRIDENT, or this command; in the order of the file."""
    coords, said = read_coords(path)
    facts, wanted = slide.facts, options.grid.patch_size
    size = _given_size(path, said, slide)
    if size < wanted:
        expected = f"--patch-size {size} or less: pixels are not invented"
        raise FaultError.of("resolution-too-low", path, f"{size} pixels of level 0", expected)
    plan = plan_of_size(facts, size, wanted, *level0_mpp(facts, override))
    outside = ((coords < 0) | (coords >= [facts.width, facts.height])).any(-1)
    if outside.any():
        row = int(outside.argmax())
        found = f"row {row} at {coords[row].tolist()}"
        expected = f"corners inside {facts.width} × {facts.height} pixels"
        raise FaultError.of("coords", path, found, expected)
    picture = read_overview(slide, plan.level0_mpp, options.tissue.mpp)[0]
    return _Patches(plan, coords, "file", None, picture if options.overlay else None)


def _given_size(path: Path, said: dict[str, object], slide: WholeSlide) -> int:
    """Side of the patches of a coordinate file in pixels of level 0."""
    size = number(said.get("patch_size_level0"))
    if size is None and (size := number(said.get("patch_size"))):  # CLAM: in pixels of a level
        level, levels = int(number(said.get("patch_level")) or 0), slide.facts.levels
        if not 0 <= level < len(levels):
            expected = f"one of the {len(levels)} levels of {slide.facts.path.name}"
            raise FaultError.of("coords", path, f"patch_level {level}", expected)
        size *= levels[level].downsample
    if not size or size < 1:
        expected = "'patch_size_level0', or 'patch_size' and 'patch_level'"
        raise FaultError.of("coords", path, f"attributes {sorted(said)}", expected)
    return round(size)


def _draw(path: Path, slide: WholeSlide, chosen: _Patches) -> None:
    mask = None if chosen.tissue is None else chosen.tissue.mask
    picture = draw_overlay(chosen.picture, mask, slide.facts, chosen.plan, chosen.coords)
    write_overlay(path, picture)


def _nothing_found(chosen: _Patches, options: ExtractOptions) -> tuple[str, str]:
    if chosen.tissue is None:
        return "no coordinates", "one patch or more"
    tissue, least = chosen.tissue, options.grid.min_tissue
    found = f"tissue on {tissue.fraction:.2%} of the slide (saturation above {tissue.threshold:g})"
    if tissue.dropped:
        found += f", and {tissue.dropped:.2%} in parts below --min-part"
    return found, f"a patch with {least:.0%} of tissue or more; see the overlay, --saturation"


def _write_features(
    target: Path,
    slide: WholeSlide,
    chosen: _Patches,
    options: ExtractOptions,
    encoder: PatchEncoder,
    made: dict[str, object],
    on_batch: Callable[[int], None],
) -> None:
    made = made | {"weights": encoder.weights, "precision": encoder.precision}
    with atomic_file(target) as partial, h5py.File(partial, "w") as file:
        out = FeatureFile(file, target, chosen.coords, encoder.dim)
        out.describe(slide.facts, chosen.plan, chosen.order, encoder.name, made)
        batches = read_batches(
            slide, chosen.plan, chosen.coords, options.batch_size, options.workers
        )
        # Closed here, whatever happens: its threads must have ended before the slide is closed.
        with contextlib.closing(batches):
            for patches in batches:
                features = encoder(patches)
                if not np.isfinite(features).all():
                    found = f"NaN or ∞ from a network in {encoder.precision}"
                    expected = "finite features; fp16 ends at 65,504, bf16 and fp32 do not"
                    path = slide.facts.path
                    raise FaultError.of("features-not-finite", path, found, expected)
                out.append(features)
                on_batch(len(patches))
