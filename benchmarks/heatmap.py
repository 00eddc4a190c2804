"""A heatmap of the longest slide of the paper's cohorts, from features on disk to files.

python benchmarks/heatmap.py

An untrained GiMP of the paper's size (d = 512, 8 heads, M = 256, 1024 channels) in a fresh process
reads 148,569 patches from an HDF5 file, predicts, rolls CLS attention out, and writes csv, GeoJSON
and pictures. Weights do not change time or memory. Writes results/<device>-heatmap.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from _common import MIB, _proc_mib, add_shared_options, write_results

from gimp_fast.data import open_cohort
from gimp_fast.heatmaps.attribution import attribute
from gimp_fast.heatmaps.make import make_heatmaps
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.inference import TrainedModel
from gimp_fast.models import PatientInputs, build

CLASSES = ("A", "B")
CASE = "CASE-0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="+", default=[6000, 50_000, 148_569])
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="sizes at which nothing is measured")
    add_shared_options(parser)
    args = parser.parse_args()
    if args.smoke:
        args.patches, args.channels, args.dim, args.repeats = [50, 400], 16, 32, 1
    rows = []
    for patches in args.patches:
        rows.append(_row(patches, args))
        print(_line(rows[-1]), flush=True)
    facts = {
        "model": {"dim": args.dim, "heads": 8, "num_landmarks": 256, "layers": 2},
        "channels": args.channels,
        "results": rows,
    }
    if not args.no_write:
        print(f"wrote {write_results('heatmap', args.device, facts, args.results)}")
    return 0


def _row(patches: int, args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of the repeats and the largest peak, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        _write_cohort(Path(folder), patches, args.channels)
        measured = [_measured(Path(folder), args) for _ in range(args.repeats)]
    names = ("read_s", "attribute_s", "files_s", "command_s")
    row = {name: float(np.median([run[name] for run in measured])) for name in names}
    peak = max(run["peak_mib"] for run in measured)
    return {"patches": patches, "repeats": len(measured), **row, "peak_mib": peak}


def _measured(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, folder, args.dim, args.device))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    return answer


def _measure(sender: Any, folder: Path, dim: int, device: str) -> None:
    """Whole calls first, whose peak counts the process with torch and all; then their parts."""
    cohort = open_cohort(folder / "cohort")
    trained = _model(cohort, dim, device)
    begin = time.perf_counter()
    options = HeatmapOptions(out=folder / "maps", geojson="all", overwrite=True)
    summary = make_heatmaps(trained, cohort, [CASE], options)
    whole = time.perf_counter() - begin
    if summary["failures"]:
        raise RuntimeError(summary["failures"])
    peak = _proc_mib("self/status", "VmHWM")
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / MIB
    begin = time.perf_counter()
    patches = cohort.bag(CASE).tensor().to(device)
    read = time.perf_counter() - begin
    inputs = PatientInputs.of(patches)
    del patches  # so that attribute can free them
    begin = time.perf_counter()
    attribute(trained, inputs, give_up_patches=True)
    model = time.perf_counter() - begin
    parts = {"read_s": read, "attribute_s": model, "files_s": whole - read - model}
    sender.send(parts | {"command_s": whole, "peak_mib": peak})


def _model(cohort, dim: int, device: str) -> TrainedModel:
    torch.manual_seed(0)
    config = {
        "num_outputs": 2, "feature_dim": cohort.feature_dim, "num_genes": 0, "modalities": "slide",
        "dim": dim, "heads": 8, "num_landmarks": 256,
    }  # fmt: skip
    model = build("gimp", config)
    facts = {
        "method": "gimp",
        "model": model.config.model_dump(mode="json"),
        "cohort": {
            "name": "untrained", "synthetic": True, "fingerprint": cohort.fingerprint, "split": "",
            "classes": list(CLASSES), "gene_ids": [], "gene_names": [], "expression": {},
            "expression_transform": "none", "encoder": cohort.encoder, "mpp": cohort.mpp,
            "patch_size": cohort.patch_size, "patch_order": cohort.patch_order,
        },
    }  # fmt: skip
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return TrainedModel(tensors, facts, Path("untrained"), device=device)


def _write_cohort(folder: Path, patches: int, channels: int) -> None:
    """One patient, prepared as users prepare theirs: patches of a round piece of tissue."""
    (folder / "slides").mkdir()
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(patches * 4 / np.pi))) + 2
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    far = np.linalg.norm(grid - side / 2, axis=1)
    coords = grid[np.sort(np.argsort(far, kind="stable")[:patches])]
    chunks = (min(32, patches), channels)
    with h5py.File(folder / "slides" / f"{CASE}.h5", "w") as file:
        features = file.create_dataset("features", (patches, channels), "f4", chunks=chunks)
        for start in range(0, patches, 8192):
            stop = min(start + 8192, patches)
            features[start:stop] = rng.normal(size=(stop - start, channels))
        file["coords"] = (coords * 256).astype(np.int64)
    command = [sys.executable, "-m", "gimp_fast.prepare", "--slides", folder / "slides"]
    command += ["--allow-missing-modality", "--no-labels", "--out", folder / "cohort"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _line(row: dict[str, Any]) -> str:
    seconds = f"{row['command_s']:.1f} s ({row['attribute_s']:.1f} s the model)"
    return f"{row['patches']:>8,} patches: {seconds}, {row['peak_mib']:.0f} MiB of the process"


if __name__ == "__main__":
    sys.exit(main())
