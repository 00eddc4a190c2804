"""Reads patches ahead of their use, in threads: OpenSlide and the codecs release Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from gimp_fast.wsi.grid import PatchPlan
from gimp_fast.wsi.overview import reduce
from gimp_fast.wsi.slide import WholeSlide

_AHEAD = 2  # batches that are read while another is used


def read_patch(slide: WholeSlide, plan: PatchPlan, x: int, y: int) -> np.ndarray:
    """One patch, (P, P, 3) uint8; x, y is its top left corner in pixels of level 0."""
    pixels = slide.read(int(x), int(y), plan.level, plan.read_size, plan.read_size)
    side = plan.patch_size
    factor, rest = divmod(plan.read_size, side)
    if not rest:
        return reduce(pixels, factor)  # the mean, as in the levels of a pyramid
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def read_batches(
    slide: WholeSlide, plan: PatchPlan, coords: np.ndarray, batch_size: int, workers: int
) -> Generator[np.ndarray]:
    """Patches at (N, 2) corners in pixels of level 0, in their order; threads share the slide.

    Yields:
        (B, P, P, 3) uint8; the last batch may be smaller. At most three batches exist at a time.
        Close the generator before the slide.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-patches")
    pending: deque[tuple[np.ndarray, Iterator[None]]] = deque()

    def begin(corners: np.ndarray) -> None:
        batch = np.empty((len(corners), plan.patch_size, plan.patch_size, 3), np.uint8)

        def fill(rows: np.ndarray) -> None:
            for row in rows:
                batch[row] = read_patch(slide, plan, *corners[row])

        # Each thread takes a run of neighbours, which share tiles of the slide.
        runs = np.array_split(np.arange(len(corners)), min(workers, len(corners)))
        pending.append((batch, pool.map(fill, runs)))

    def finish() -> np.ndarray:
        batch, filled = pending.popleft()
        list(filled)  # waits, and raises what a thread raised
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
