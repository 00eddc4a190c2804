"""Reads patches ahead of their use, in threads: OpenSlide and the codecs release Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from gimp_fast.wsi.grid import PatchPlan
from gimp_fast.wsi.slide import WholeSlide

_AHEAD = 2  # batches that are read while another is used


def read_patch(slide: WholeSlide, plan: PatchPlan, x: int, y: int) -> np.ndarray:
    """One patch, (P, P, 3) uint8; x, y is its top left corner in pixels of level 0."""
    pixels = slide.read(int(x), int(y), plan.level, plan.read_size, plan.read_size)
    if plan.read_size == plan.patch_size:
        return pixels
    picture = Image.fromarray(pixels)
    factor, rest = divmod(plan.read_size, plan.patch_size)
    if not rest and factor > 1:
        return np.asarray(picture.reduce(factor))  # the mean, as in the levels of a pyramid
    side = plan.patch_size
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


def read_batches(
    slide: WholeSlide, plan: PatchPlan, coords: np.ndarray, batch_size: int, workers: int
) -> Generator[np.ndarray]:
    """Patches in the order of the coordinates.

    Args:
        slide: open; shared by the threads.
        plan: how to read them.
        coords: (N, 2) x, y of the top left corners in pixels of level 0.
        batch_size: B; the last batch may be smaller.
        workers: threads.

    Yields:
        (B, P, P, 3) uint8. At most three batches exist at a time. Close the generator before the
        slide.
    """
    side = plan.patch_size
    pending: deque[tuple[np.ndarray, list[Future]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-patches")

    def begin(corners: np.ndarray) -> None:
        batch = np.empty((len(corners), side, side, 3), np.uint8)
        # Each thread takes a run of neighbours, which share tiles of the slide.
        runs = np.array_split(np.arange(len(corners)), min(workers, len(corners)))
        jobs = [pool.submit(_fill, slide, plan, corners, batch, run) for run in runs]
        pending.append((batch, jobs))

    def finish() -> np.ndarray:
        batch, jobs = pending.popleft()
        for job in jobs:
            job.result()
        return batch

    try:
        for start in range(0, len(coords), batch_size):
            begin(coords[start : start + batch_size])
            if len(pending) > _AHEAD:
                yield finish()
        while pending:
            yield finish()
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(
    slide: WholeSlide, plan: PatchPlan, corners: np.ndarray, batch: np.ndarray, rows: np.ndarray
) -> None:
    for row in rows:
        batch[row] = read_patch(slide, plan, *corners[row])
