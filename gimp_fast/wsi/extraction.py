"""From slides to feature files: while one is encoded, the patches of the next one are chosen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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
from gimp_fast.wsi.grid import PatchPlan, PatchSet
from gimp_fast.wsi.options import ExtractOptions
from gimp_fast.wsi.overlay import draw_overlay, write_overlay
from gimp_fast.wsi.patch_choice import cautions_of, choose_patches, given_patches, no_patches
from gimp_fast.wsi.patches import read_batches
from gimp_fast.wsi.readers import open_wsi
from gimp_fast.wsi.slide import WholeSlide
from gimp_fast.wsi.slide_files import slide_id_of
from gimp_fast.wsi.tissue import Tissue

OnBatch = Callable[[int], None]  # called with the number of patches after each batch
OnStage = Callable[[str, str], None]  # called with a slide id and what is done with it now


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


@dataclass
class _Ready:
    """A slide whose patches are chosen. It is open unless there is nothing left to do."""

    outcome: Outcome
    target: Path  # its file
    slide: WholeSlide | None = None
    patches: PatchSet | None = None
    provenance: dict[str, object] = field(default_factory=dict)

    def close(self) -> None:
        if self.slide is not None:
            self.slide.close()


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
    first = "looking for tissue" if options.coords is None else "opening"
    with _prepared_ahead(slides, options, encoder) as coming:
        for path, preparing in coming:
            on_stage(slide_id_of(path), first)
            ready = preparing()
            outcome = ready.outcome
            if ready.slide is not None:
                start = time.perf_counter()
                with contextlib.closing(ready):
                    try:
                        _write(ready, options, encoder, on_batch, on_stage)
                    except FaultError as error:
                        outcome.faults = error.faults
                outcome.seconds += time.perf_counter() - start
            yield outcome


@contextlib.contextmanager
def _prepared_ahead(
    slides: Sequence[Path], options: ExtractOptions, encoder: PatchEncoder | None
) -> Iterator[Iterator[tuple[Path, Callable[[], _Ready]]]]:
    """Slides in order; each with what waits for it, and lets the next one be prepared."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="next-slide")
    begun: list[Future[_Ready]] = []
    paths = iter(slides)

    def begin() -> None:
        for path in paths:
            begun.append(pool.submit(_prepare, path, options, encoder))
            return

    def wait() -> _Ready:
        future = begun.pop()
        try:
            return future.result()
        finally:
            begin()

    begin()
    try:
        yield ((path, wait) for path in slides)
    finally:
        for future in begun:
            if not future.cancel() and future.exception() is None:
                future.result().close()
        pool.shutdown()


def _prepare(path: Path, options: ExtractOptions, encoder: PatchEncoder | None) -> _Ready:
    """Find out what is to be done with a slide; faults are in its outcome."""
    start = time.perf_counter()
    outcome = Outcome(path)
    folder = "patches" if encoder is None else "h5_files"
    ready = _Ready(outcome, options.out / folder / f"{outcome.slide_id}.h5")
    try:
        _choose(ready, options, encoder)
    except FaultError as error:
        outcome.faults = error.faults
        ready.close()
        ready.slide = None
    except BaseException:
        ready.close()
        raise
    outcome.seconds = time.perf_counter() - start
    return ready


def _choose(ready: _Ready, options: ExtractOptions, encoder: PatchEncoder | None) -> None:
    """Open the slide, choose its patches and draw them, unless its file is there already."""
    outcome, target = ready.outcome, ready.target
    override = options.overrides.of(outcome.path)
    settings = settings_for(options, encoder)
    if target.exists() and not options.overwrite:
        check_settings(target, settings, outcome.path, override)
        outcome.patches = _rows_of(target, encoder is not None)
        outcome.status = "present"
        return
    slide = ready.slide = open_wsi(outcome.path)
    outcome.reader = slide.facts.reader
    choose = choose_patches if options.coords is None else given_patches
    patches, tissue, picture = choose(slide, options, override)
    ready.patches = patches
    outcome.plan, outcome.tissue = patches.plan, tissue
    outcome.cautions = cautions_of(patches, tissue)
    if options.overlay:
        picture = draw_overlay(picture, tissue and tissue.mask, patches)
        write_overlay(options.out / "overlays" / f"{outcome.slide_id}.png", picture)
    if not len(patches.coords):
        raise FaultError.of("no-tissue", outcome.path, *no_patches(outcome.path, tissue, options))
    ready.provenance["settings"] = settings
    if tissue is not None:
        least = options.grid.min_tissue
        ready.provenance |= {"min_tissue": least, "saturation": tissue.threshold}


def _write(
    ready: _Ready,
    options: ExtractOptions,
    encoder: PatchEncoder | None,
    on_batch: OnBatch,
    on_stage: OnStage,
) -> None:
    """Write the file of an open slide."""
    outcome, patches, provenance = ready.outcome, ready.patches, ready.provenance
    coords = patches.coords
    if encoder is None:
        write_coords(ready.target, patches, provenance)
    else:
        on_stage(outcome.slide_id, f"encoding {counted(len(coords), 'patch', 'patches')}")
        workers = options.workers or available_cores()
        batches = read_batches(ready.slide, patches.plan, coords, options.batch_size, workers)
        features = _encode(outcome.path, encoder, batches, on_batch)
        write_features(ready.target, patches, encoder, features, provenance)
    outcome.patches, outcome.status = len(coords), "done"


def _rows_of(target: Path, features: bool) -> int:
    """Rows of a finished file."""
    if not features:
        return len(read_coords(target)[0])
    return rows_of(target)


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
