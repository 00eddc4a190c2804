"""Patches are read in order, ahead, and no more of them than a few batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from builders.slides import slide_facts
from PIL import Image

from gimp_fast.errors import FaultError
from gimp_fast.wsi.grid import PatchPlan
from gimp_fast.wsi.patches import read_batches, read_patch
from gimp_fast.wsi.slide import WholeSlide

FACTS = slide_facts((10_000, 10_000))


class Numbered(WholeSlide):
    """Every pixel of a region is its x / 8 and y / 8; counts what was read."""

    def __init__(self):
        super().__init__(FACTS)
        self.count, self.lock, self.threads = 0, threading.Lock(), set()

    def read(self, x, y, level, width, height):
        with self.lock:
            self.count += 1
            self.threads.add(threading.current_thread().name)
        if x == 999:
            raise FaultError.of("unreadable-slide", self.facts.path, "a broken tile", "none")
        return np.full((height, width, 3), (x // 8, y // 8, 7), np.uint8)


def plan(patch_size=8, read_size=8) -> PatchPlan:
    return PatchPlan(patch_size, read_size, 0, read_size, 0.5, 0.5, "test")


def grid(number: int) -> np.ndarray:
    return np.array([(8 * (n % 20), 8 * (n // 20)) for n in range(number)], np.int64).reshape(-1, 2)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 100])
def test_batches_keep_the_order(number, workers):
    coords = grid(number)
    batches = list(read_batches(Numbered(), plan(), coords, 8, workers))
    assert [len(batch) for batch in batches] == [8] * (number // 8) + [number % 8] * (
        number % 8 > 0
    )
    seen = np.concatenate([*batches, np.empty((0, 8, 8, 3), np.uint8)])[:, 3, 4, :2]
    assert (seen == coords // 8).all()


def test_no_more_is_read_ahead_than_two_batches():
    slide = Numbered()
    batches = read_batches(slide, plan(), grid(400), 10, 2)
    for used in range(1, 20):
        next(batches)
        assert slide.count <= 10 * (used + 2)
    batches.close()


def test_a_fault_of_a_thread_reaches_the_caller_and_ends_the_threads():
    coords = grid(64)
    coords[37, 0] = 999
    before = threading.active_count()
    with pytest.raises(FaultError, match="a broken tile"):
        list(read_batches(Numbered(), plan(), coords, 8, 3))
    assert threading.active_count() == before


def test_patches_of_another_size_are_resampled():
    class Noise(WholeSlide):
        def read(self, x, y, level, width, height):
            return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    slide = Noise(FACTS)
    pixels = slide.read(0, 0, 0, 32, 32)
    assert (read_patch(slide, plan(32, 32), 0, 0) == pixels).all()
    means = pixels.reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(read_patch(slide, plan(16, 32), 0, 0) - means).max() <= 0.5
    odd = Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR)
    assert (read_patch(slide, plan(20, 32), 0, 0) == np.asarray(odd)).all()
