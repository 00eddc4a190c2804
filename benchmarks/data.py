"""Reading windows: TRIDENT h5, CLAM h5, pt, and the packed store, beside numpy.memmap and memory.

python benchmarks/data.py [--slides 12] [--patches 15000] [--window 6000] [--folder /fast/disk]

Writes the same synthetic slides in every format, and reads random windows of each, cold (after
dropping the files from the system's cache) and warm. Then opens a synthetic packed cohort of 2,000
slides and 60,660 genes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from _common import add_shared_options, write_results

from gimp_fast.data.prepare.cohort_writer import CohortContents, write_cohort
from gimp_fast.data.prepare.join_slides import slide_row
from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.data.store.writer import PackedSlide, write_store
from gimp_fast.data.tables.labels import LabelRow

MEMORY, MEMMAP = "memory copy", "numpy.memmap copy"
FIRST = "store fp16, first read"
Read = Callable[[int, int], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=12)
    parser.add_argument("--patches", type=int, default=15_000)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--window", type=int, default=6000)
    parser.add_argument("--reads", type=int, default=40, help="windows a round")
    parser.add_argument("--rounds", type=int, default=7, help="warm rounds; cold ones are 3")
    parser.add_argument("--index-slides", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    add_shared_options(parser, device="no difference")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gimp-fast-data-", dir=arguments.folder))
    try:
        rates = measure_windows(folder, arguments)
        index = measure_index(folder, arguments.index_slides)
    finally:
        shutil.rmtree(folder)
    report(rates, index)
    if not arguments.no_write:
        sizes = ("slides", "patches", "channels", "window", "reads", "rounds")
        facts = {name: getattr(arguments, name) for name in sizes}
        facts |= {"file_system": file_system(arguments.folder), "windows": rates, "index": index}
        print(f"\nwrote {write_results('data', 'cpu', facts, arguments.results)}")


def measure_windows(folder: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    """Windows and bytes a second of every reader, cold and warm."""
    shape = (arguments.patches, arguments.channels)
    files = write_files(folder, arguments.slides, shape)
    readers, item = open_readers(folder, files, shape, arguments.window)
    check(readers, arguments.window, shape)
    rng = np.random.default_rng(0)
    draws = [
        [
            (int(rng.integers(arguments.slides)), int(rng.integers(shape[0] - arguments.window)))
            for _ in range(arguments.reads)
        ]
        for _ in range(max(arguments.rounds, len(readers)))
    ]
    rates: dict[str, dict] = {}
    for kind, rounds in (("cold", 3), ("warm", arguments.rounds)):
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        if kind == "warm":
            for read in readers.values():
                run(read, draws[0])
        for turn in range(rounds):
            # In turns, so that a noisy moment affects all readers; with other windows for each, as
            # rows that one reader has just read are fast for the next.
            for place, (name, read) in enumerate(readers.items()):
                windows = draws[(turn + place) % len(draws)]
                if kind == "cold":
                    drop_caches(folder)
                if kind == "cold" or name == FIRST:  # a store that has verified no block
                    read = open_readers(folder, files, shape, arguments.window)[0][name]
                seconds[name].append(run(read, windows))
        for name, taken in seconds.items():
            per_second = arguments.reads / statistics.median(taken)
            size = arguments.window * shape[1] * item[name]
            rates.setdefault(name, {})[kind] = {
                "windows_per_s": per_second,
                "gb_per_s": per_second * size / 1e9,
                "slowest_windows_per_s": arguments.reads / max(taken),
            }
    return rates


def run(read: Read, windows: list[tuple[int, int]]) -> float:
    """Seconds for all windows."""
    start = time.perf_counter()
    for slide, first in windows:
        read(slide, first)
    return time.perf_counter() - start


def write_files(folder: Path, slides: int, shape: tuple[int, int]) -> list[str]:
    """The same synthetic features in every format."""
    for name in ("trident", "clam", "pt", "raw"):
        (folder / name).mkdir()
    packed = []
    for number in range(slides):
        features = np.random.default_rng(number).standard_normal(shape, np.float32)
        name = f"slide-{number:04d}"
        with h5py.File(folder / "trident" / f"{name}.h5", "w") as h5:
            h5.create_dataset("features", data=features, chunks=(1, shape[1]))
        with h5py.File(folder / "clam" / f"{name}.h5", "w") as h5:
            h5.create_dataset("features", data=features, chunks=(32, shape[1]))
        torch.save(torch.from_numpy(features), folder / "pt" / f"{name}.pt")
        features.tofile(folder / "raw" / name)
        packed.append(PackedSlide(name, folder / "clam" / f"{name}.h5", shape[0], ""))
    for dtype in ("fp32", "bf16", "fp16"):
        write_store(folder / f"store-{dtype}", packed, dtype=dtype, feature_dim=shape[1])
    os.sync()  # only clean pages can be dropped
    return [slide.slide_id for slide in packed]


def open_readers(
    folder: Path, names: list[str], shape: tuple[int, int], window: int
) -> tuple[dict[str, Read], dict[str, int]]:
    """Readers of a window into new memory, and the bytes of a number in their files."""
    source = np.random.default_rng(0).standard_normal((window + 1, shape[1]), np.float32)
    maps = [np.memmap(folder / "raw" / name, np.float32, "r", shape=shape) for name in names]
    stores = {dtype: FeatureStore(folder / f"store-{dtype}") for dtype in ("fp32", "bf16", "fp16")}

    def memory(slide: int, first: int) -> np.ndarray:
        return source[first % 2 : first % 2 + window].copy()

    def memmap(slide: int, first: int) -> np.ndarray:
        return np.array(maps[slide][first : first + window])

    def file(kind: str, suffix: str) -> Read:
        def read(slide: int, first: int) -> np.ndarray:
            with open_slide(folder / kind / f"{names[slide]}{suffix}") as opened:
                return opened.read(first, first + window)

        return read

    def store(dtype: str) -> Read:
        return lambda slide, first: stores[dtype].tensor(names[slide], first, first + window)

    readers = {
        MEMORY: memory,
        MEMMAP: memmap,
        "store fp32": store("fp32"),
        "store bf16": store("bf16"),
        "store fp16": store("fp16"),
        FIRST: store("fp16"),
        "pt": file("pt", ".pt"),
        "CLAM h5": file("clam", ".h5"),
        "TRIDENT h5": file("trident", ".h5"),
    }
    item = {name: 2 if "16" in name else 4 for name in readers}
    return readers, item


def check(readers: dict[str, Read], window: int, shape: tuple[int, int]) -> None:
    """Assert that every reader returns the right rows, before it is timed."""
    first = shape[0] - window
    expected = torch.from_numpy(np.array(readers[MEMMAP](1, first)))
    for name, read in readers.items():
        if name == MEMORY:
            continue
        found = torch.as_tensor(read(1, first))
        assert torch.equal(found, expected.to(found.dtype)), name


def drop_caches(folder: Path) -> None:
    """Drop the system's cache of these files, which needs no privilege."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


INDEX = """
import resource, sys, time
from gimp_fast.data import open_cohort

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

start = time.perf_counter()
before = resident()
cohort = open_cohort(sys.argv[1])
seconds = time.perf_counter() - start
print(len(cohort.store.slide_ids), len(cohort.gene_ids), seconds, resident() - before, resident())
"""


def measure_index(folder: Path, slides: int, genes: int = 60_660) -> dict[str, float]:
    """Seconds and memory to open a packed cohort of many slides, measured in a new process."""
    features, rows = folder / "one.h5", 2
    with h5py.File(features, "w") as h5:
        h5["features"] = np.zeros((rows, 1024), np.float32)
        h5["coords"] = np.zeros((rows, 2), np.int64)
    scan, with_rna = scan_slide(features), min(100, slides)
    cases = [f"TCGA-00-{n:04d}" for n in range(slides)]
    labels = [LabelRow(case, f"{case}-01Z-00-DX1.{n:032x}", "AB"[n % 2], "")
              for n, case in enumerate(cases)]  # fmt: skip
    patients = [
        {"case_id": row.case_id, "label": row.label, "has_rna": str(int(n < with_rna)),
         "num_slides": "1", "num_patches": str(rows)} for n, row in enumerate(labels)
    ]  # fmt: skip
    names = [{"gene_id": f"ENSG{n:011d}.1", "gene_name": f"GENE{n}", "gene_type": "protein_coding"}
             for n in range(genes)]  # fmt: skip
    contents = CohortContents(
        name="index",
        synthetic=True,
        classes=("A", "B"),
        feature_dim=1024,
        encoder="synthetic",
        mpp=0.5,
        patch_size=256,
        patch_order="file",
        pack="fp16",
        expression_info={"transform": "as given"},
        gene_sets={},
        missing_genes=(),
        patients=patients,
        slides=[slide_row(row, scan) for row in labels],
        genes=names,
        dropped=[],
        dropped_genes=[],
        splits={"split_0": [{"case_id": case, "split": "train"} for case in cases]},
        expression=np.zeros((with_rna, genes), np.float32),
    )
    write_cohort(folder / "index", contents)
    done = subprocess.run(
        [sys.executable, "-c", INDEX, str(folder / "index")],
        capture_output=True,
        text=True,
        check=True,
    )
    found, genes, seconds, added, resident = done.stdout.split()
    return {
        "slides": int(found),
        "genes": int(genes),
        "open_s": float(seconds),
        "added_mib": int(added) / 2**20,
        "process_mib": int(resident) / 2**20,
    }


def file_system(folder: Path | None) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder or tempfile.gettempdir())],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def report(rates: dict[str, dict], index: dict[str, float]) -> None:
    base = rates[MEMMAP]["warm"]["gb_per_s"]
    trident = rates["TRIDENT h5"]["warm"]["windows_per_s"]
    print(f"{'':<23} {'cold':>22} {'warm':>22}   of memmap   × TRIDENT")
    for name, row in rates.items():
        cells = [
            f"{row[kind]['windows_per_s']:9.0f}/s {row[kind]['gb_per_s']:6.1f} GB/s"
            for kind in ("cold", "warm")
        ]
        share = row["warm"]["gb_per_s"] / base
        times = row["warm"]["windows_per_s"] / trident
        print(f"{name:<23} {cells[0]:>22} {cells[1]:>22}   {share:9.0%}   {times:9.1f}")
    print(
        f"\ncohort of {index['slides']} slides and {index['genes']} genes: opened in "
        f"{index['open_s'] * 1e3:.0f} ms, {index['added_mib']:.0f} MiB "
        f"({index['process_mib']:.0f} MiB the process)"
    )


if __name__ == "__main__":
    main()
