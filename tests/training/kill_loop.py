"""Kills a training run again and again, resumes it, and compares its end with that of a quiet run.

python tests/training/kill_loop.py --kills 20

Each time, at random: kill -9 at a random moment, kill -9 while a checkpoint is being written, or
SIGTERM, after which the run must have saved its state and ended with code 75. On a CPU the weights,
metrics and predictions must be the same to the bit.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from gimp_fast.cli import EXIT_STOPPED
from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic
from gimp_fast.files.atomic import PARTIAL
from gimp_fast.runs.checkpoint import load_checkpoint

# Many short steps, and a checkpoint after each: every moment is one between two saves.
SETTINGS = [
    "model.dim=32", "model.heads=2", "model.num_landmarks=8", "model.gene_fragments=8",
    "model.gene_groups=4", "model.head_hidden=16", "genes.epochs=4", "genes.batch_size=4",
    "pretrain.epochs=4", "pretrain.window=64", "pretrain.batch_size=4", "finetune.epochs=4",
    "finetune.batch_size=4", "finetune.modality_dropout=0.2", "bootstrap=50", "threads=1",
    "save_minutes=0.0001", "device=cpu",
]  # fmt: skip
WAYS = ("kill", "kill while saving", "SIGTERM")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gimp-fast-kills-") as folder:
        return loop(Path(folder), arguments.kills, random.Random(arguments.seed))


def loop(folder: Path, kills: int, rng: random.Random) -> int:
    """0 if the killed run ends as the quiet one does; says how many kills of each way hit."""
    config = SyntheticConfig(num_patients=40, feature_dim=8, num_genes=60, median_patches=60)
    prepare_synthetic(folder / "data", config)
    quiet = folder / "quiet"
    start = time.perf_counter()
    if finish(folder, quiet):
        return 1
    duration = time.perf_counter() - start
    hits, killed = dict.fromkeys(WAYS, 0), folder / "killed-0"
    while sum(hits.values()) < kills:
        way = rng.choice(WAYS)
        outcome = interrupt(folder, killed, way, rng.uniform(0.3, 0.6) * duration)
        print(f"{killed.name} {way}: {outcome}", flush=True)
        hits[way] += outcome == "hit"
        if outcome == "wrong" or (outcome == "finished" and not same(quiet, killed)):
            return 1
        if outcome == "finished":
            killed = folder / f"killed-{int(killed.name.split('-')[1]) + 1}"
    if finish(folder, killed) or not same(quiet, killed):
        return 1
    print(f"{hits}: every run ended as the quiet one")
    return 0


def same(quiet: Path, killed: Path) -> bool:
    differing = differences(quiet, killed)
    if differing:
        print(f"{killed.name} differs from the quiet run in {', '.join(differing)}")
    return not differing


def command(folder: Path, out: Path) -> list[str]:
    argv = [sys.executable, "-m", "gimp_fast.train", "--data", str(folder / "data" / "cohort")]
    argv += ["--out", str(out), "--preset", "paper", "--resume"]
    return argv + [part for setting in SETTINGS for part in ("--set", setting)]


def finish(folder: Path, out: Path) -> int:
    done = subprocess.run(
        command(folder, out), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout + done.stderr)
    return done.returncode


def interrupt(folder: Path, out: Path, way: str, seconds: float) -> str:
    """``hit``, ``finished`` before it could be, or ``wrong``."""
    process = subprocess.Popen(
        command(folder, out), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.perf_counter() + seconds
    while process.poll() is None and time.perf_counter() < deadline:
        time.sleep(0.001)
    while way == "kill while saving" and process.poll() is None:
        if list((out / "checkpoints").glob(f".*{PARTIAL}")):
            break
    process.send_signal(signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
    printed, _ = process.communicate()
    if process.returncode == 0:
        return "finished"
    # Before it has begun to train, Python's own answer to SIGTERM ends it.
    expected = (EXIT_STOPPED, -signal.SIGTERM) if way == "SIGTERM" else (-signal.SIGKILL,)
    if process.returncode in expected:
        return "hit"
    print(printed.decode())
    return "wrong"


def differences(a: Path, b: Path) -> list[str]:
    """Files of two runs that differ; the time that things took does not count."""
    names = ("metrics.json", "predictions.csv")
    differing = [name for name in names if (a / name).read_bytes() != (b / name).read_bytes()]
    for name in ("genes", "pretrain", "finetune", "last"):
        (tensors, state), (others, other_state) = (
            load_checkpoint(x / "checkpoints" / f"{name}.safetensors") for x in (a, b)
        )
        same = tensors.keys() == others.keys() and state == other_state
        if not same or not all(torch.equal(tensors[k], others[k]) for k in tensors):
            differing.append(f"{name}.safetensors")
    rows = [
        [json.loads(line) | {"seconds": 0, "times": {}} for line in (x / "metrics.jsonl").open()]
        for x in (a, b)
    ]
    return differing + (["metrics.jsonl"] if rows[0] != rows[1] else [])


if __name__ == "__main__":
    sys.exit(main())
