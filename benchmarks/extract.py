"""Extraction: how fast patches are read and encoded, and whether memory stays constant.

python benchmarks/extract.py [--slides FOLDER] [--patches 600] [--sizes 1000 10000 50000]

Reading, without the network: synthetic pyramids (JPEG if imagecodecs is installed, else deflate)
and the slides of FOLDER (default: $GIMP_FAST_REALDATA/slides), patches of 256 pixels at 0.5 µm, by
gimp_fast in 1, 2 and 4 threads, beside the loop that everybody writes: read_region, convert,
reduce. All readers must return the same pixels before they are timed. Two hashing threads show how
much of the machine was free; many short turns (--patches 64 --repeats 100) find free moments.
Memory: `extract` from slide to file, in a fresh process, with an encoder that costs nothing, on
slides of more and more patches. The patches are 64 pixels of 2 µm, so that slide, mask and overlay
are as large as with 256 pixels of 0.5 µm. Writes results/<device>-extract.json.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import openslide
from _common import add_shared_options, peak_memory_mib, time_interleaved, write_results

from gimp_fast.wsi import open_wsi
from gimp_fast.wsi.encoder import load_encoder
from gimp_fast.wsi.extraction import extract
from gimp_fast.wsi.grid import PatchPlan, foreground, plan_patches
from gimp_fast.wsi.options import (
    EncoderOptions,
    ExtractOptions,
    GridOptions,
    TissueOptions,
)
from gimp_fast.wsi.overview import read_overview, reduce
from gimp_fast.wsi.patches import read_batches
from gimp_fast.wsi.resolution import read_overrides
from gimp_fast.wsi.slide_files import find_slides
from gimp_fast.wsi.tissue import find_tissue

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from builders.synthetic_slide import write_synthetic_slide

THREADS = (1, 2, 4)
CHANNELS = 1024
_BYTES = bytes(20 << 20)
OVERRIDES = read_overrides("0.25", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=Path, help="real slides to read as well")
    parser.add_argument("--patches", type=int, default=600, help="of each synthetic slide")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--batch", type=int, default=16, help="patches per batch of the network")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    add_shared_options(parser, device="of the network")
    arguments = parser.parse_args()
    real = arguments.slides
    if real is None and "GIMP_FAST_REALDATA" in os.environ:
        real = Path(os.environ["GIMP_FAST_REALDATA"]) / "slides"
    folder = Path(tempfile.mkdtemp(prefix="gimp-fast-extract-", dir=arguments.folder))
    try:
        slides = synthetic_slides(folder, arguments.patches)
        slides |= {path.stem: path for path in find_slides([real])} if real else {}
        reading = [
            time_reading(name, path, arguments.patches, arguments.repeats)
            for name, path in slides.items()
        ]
        memory = [measure_extract(folder, number) for number in arguments.sizes]
    finally:
        shutil.rmtree(folder)
    encoding = time_encoder(arguments.device, arguments.batch, arguments.repeats)
    if not arguments.no_write:
        facts = {"cores": len(os.sched_getaffinity(0)), "reading": reading, "memory": memory}
        facts |= {"encoding": encoding}
        print(f"wrote {write_results('extract', arguments.device, facts, arguments.results)}")


def synthetic_slides(folder: Path, patches: int) -> dict[str, Path]:
    """Slides like those of scanners: tiles of 256 and of 240 pixels, at 20x and at 40x."""
    compression = "jpeg" if importlib.util.find_spec("imagecodecs") else "deflate"
    columns = math.ceil(math.sqrt(2 * patches))
    size = columns * 256, math.ceil(patches / columns) * 256
    slides = {}
    for name, tile, mpp in (("20x", 256, 0.5), ("20x", 240, 0.5), ("40x", 240, 0.25)):
        width, height = (round(side * 0.5 / mpp) for side in size)
        label = f"synthetic {name}, {compression}, tiles of {tile}"
        slides[label] = write_synthetic_slide(
            folder / f"{name}-{tile}.tif", (width, height), [(0, 0, width, height)],
            mpp=mpp, tile=tile, compression=compression,
        )  # fmt: skip
    return slides


def time_reading(name: str, path: Path, patches: int, repeats: int) -> dict[str, object]:
    """Patches per second of every reader, after a check that all read the same pixels."""
    plan, coords = chosen(path, patches)
    readers: dict[str, Callable[[], float]] = {
        "plain loop": functools.partial(plain, path, plan, coords)
    }
    for threads in THREADS:
        readers[f"gimp_fast, {threads} threads"] = functools.partial(
            ours, path, plan, coords, threads
        )
    sums = {reader: read() for reader, read in readers.items()}
    if len(set(sums.values())) > 1:
        raise SystemExit(f"{name}: the readers return different pixels: {sums}")
    control = {
        f"control, {threads} threads": functools.partial(hashing, threads) for threads in (1, 2)
    }
    timed = time_interleaved(readers | control, device="cpu", repeats=repeats, warmup=0)
    turns = {"median": "median_ms", "fastest": "min_ms"}
    rates = {
        reader: {turn: 1e3 * len(coords) / timed[reader][key] for turn, key in turns.items()}
        for reader in readers
    }
    one, two = (timed[name] for name in control)
    free = {turn: one[key] / two[key] for turn, key in turns.items()}
    print(f"{name}: {len(coords)} patches, {plan.read_size} pixels of level {plan.level}")
    for reader, rate in rates.items():
        print(
            f"  {reader:<22} {rate['median']:6.0f} patches/s, fastest turn {rate['fastest']:6.0f}"
        )
    print(
        f"  hashing, 2 threads: {free['median']:.2f} times 1 thread, fastest {free['fastest']:.2f}"
    )
    return {
        "slide": name,
        "patches": len(coords),
        "read_size": plan.read_size,
        "level": plan.level,
        "patches_per_s": rates,
        "control_2_threads_to_1": free,
        "timed": timed,
    }


def chosen(path: Path, patches: int) -> tuple[PatchPlan, np.ndarray]:
    """The patches that `extract` chooses and that lie wholly inside the slide."""
    with open_wsi(path) as slide:
        facts = slide.facts
        plan = plan_patches(facts, GridOptions(), OVERRIDES.of(path))
        picture, finer = read_overview(slide, plan.level0_mpp, 16.0)
    mask = find_tissue(reduce(picture, finer), 16.0, TissueOptions()).mask
    coords = foreground(facts, plan, mask, 0.25)
    inside = (coords + plan.size_level0 <= [facts.width, facts.height]).all(-1)
    return plan, coords[inside][:patches]


def plain(path: Path, plan: PatchPlan, coords: np.ndarray) -> float:
    """The sum of all pixels, read one patch after the other."""
    total, side = 0, (plan.read_size, plan.read_size)
    with openslide.OpenSlide(path) as slide:
        for x, y in coords.tolist():
            region = slide.read_region((x, y), plan.level, side).convert("RGB")
            if plan.read_size != plan.patch_size:
                region = region.reduce(plan.read_size // plan.patch_size)
            total += int(np.asarray(region)[::16].sum())
    return total


def ours(path: Path, plan: PatchPlan, coords: np.ndarray, threads: int) -> float:
    with open_wsi(path) as slide:
        batches = read_batches(slide, plan, coords, 64, threads)
        return sum(int(batch[:, ::16].sum()) for batch in batches)


def hashing(threads: int) -> None:
    """Work that scales with the free cores, and with nothing else."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: hashlib.sha256(_BYTES).digest(), range(8)))


def time_encoder(device: str, batch: int, repeats: int) -> dict[str, object]:
    """Patches per second of the truncated ResNet50 in every precision of the device."""
    patches = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), np.uint8)
    precisions = ("fp32", "bf16", "fp16") if device == "cuda" else ("fp32", "bf16")
    calls = {
        precision: functools.partial(
            load_encoder(EncoderOptions(random_weights=True, device=device, precision=precision)),
            patches,
        )
        for precision in precisions
    }
    timed = time_interleaved(calls, device=device, repeats=repeats, budget_s=30)
    rates = {name: batch / (row["median_ms"] / 1e3) for name, row in timed.items()}
    for precision, rate in rates.items():
        print(f"network in {precision}: {rate:.1f} patches/s")
    return {"batch": batch, "patches_per_s": rates, "timed": timed}


class StandIn:
    """An encoder of as many channels as the real one, at no cost."""

    name, dim, weights, precision = "stand-in", CHANNELS, "none", "fp32"
    facts: ClassVar[dict[str, str]] = {}

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        return np.repeat(patches[:, :1, 0, 0].astype(np.float32), CHANNELS, 1)


def measure_extract(folder: Path, patches: int) -> dict[str, float]:
    """Peak memory and time from slide to file, in a fresh process."""
    columns = math.ceil(math.sqrt(patches))
    size = columns * 64, math.ceil(patches / columns) * 64
    path = folder / f"{patches}.tif"
    write_synthetic_slide(path, size, [(0, 0, *size)], mpp=2.0, tile=256)
    start = time.perf_counter()
    peak = peak_memory_mib(prepare_extract, path, folder / "out", device="cpu")
    seconds = time.perf_counter() - start
    path.unlink()
    with (folder / "out" / "found.txt").open(encoding="utf-8") as file:
        found = int(file.read())
    print(f"{found} patches: {peak:.0f} MiB, {seconds:.1f} s with the start of the process")
    return {"patches": found, "peak_mib": peak, "seconds": seconds}


def prepare_extract(path: Path, out: Path) -> Callable[[], None]:
    """Importable by the measured process."""
    grid = GridOptions(target_mpp=2.0, patch_size=64)
    options = ExtractOptions(out, grid=grid, batch_size=64, workers=2)

    def call() -> None:
        (outcome,) = extract([path], options, StandIn())
        if outcome.status != "done":
            raise RuntimeError(str(outcome.faults))
        (out / "found.txt").write_text(str(outcome.patches), encoding="utf-8")

    return call


if __name__ == "__main__":
    main()
