"""Slide-only comparators on the classic multiple-instance sets, beside published figures.

python benchmarks/mil_sets.py --data FOLDER

FOLDER (default: $GIMP_FAST_REALDATA/mil) holds Musk1.npz and Elephant.npz with `features` (T, C),
`offsets` (B + 1,) and `label` (B,), as MIDatasets.jl gives them. Each model is cross-validated in
ten folds, once for each seed, all under one protocol: features standardised by the training folds,
Adam, cosine decay, a few bags a step; TransMIL, which is slow, for half the epochs. Prints a table,
mean and SD over the seeds, and writes results/cpu-mil_sets.json.

There are two accuracies, because publications differ: `last` is that of the last epoch at a
probability of one half; `best` is that of the best epoch and the best threshold, both chosen on the
test fold, as DSMIL's public code does. `best` is too high, most of all on folds of nine bags.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _common import add_shared_options, write_results
from sklearn.model_selection import StratifiedKFold

from gimp_fast import models
from gimp_fast.evaluation.rates import rates

# As printed: ABMIL by Ilse et al. 2018, to compare with `last`; DSMIL by Li et al. 2021, to compare
# with `best`.
PUBLISHED = {
    "Musk1": {"abmil": (0.892, 0.040), "abmil gated": (0.900, 0.050), "dsmil": (0.932, 0.023)},
    "Elephant": {"abmil": (0.868, 0.022), "abmil gated": (0.857, 0.027), "dsmil": (0.925, 0.007)},
}
WIDTH = {"dim": 128, "attention_dim": 64}
MODELS = {
    "mean_pool": ("mean_pool", {}),
    "abmil": ("abmil", WIDTH | {"gated": False}),
    "abmil gated": ("abmil", WIDTH),
    "dsmil": ("dsmil", {}),
    "clam_sb": ("clam_sb", WIDTH),
    "clam_mb": ("clam_mb", WIDTH),
    "transmil": ("transmil", {"dim": 64, "heads": 4}),
}
SHORTER = {"transmil": 2}  # times fewer epochs: a step takes it as long as all others together


@dataclass(frozen=True)
class Protocol:
    """How every model is trained."""

    epochs: int = 40
    bags_a_step: int = 4
    lr: float = 5e-4
    weight_decay: float = 5e-3
    folds: int = 10


class Bags(NamedTuple):
    """A set, or a part of it."""

    rows: tuple[torch.Tensor, ...]  # of each bag, (N_i, C)
    labels: torch.Tensor  # (B,)

    def pick(self, which: np.ndarray) -> Bags:
        return Bags(tuple(self.rows[i] for i in which), self.labels[torch.as_tensor(which)])

    def inputs(self) -> dict[str, torch.Tensor]:
        lengths = [len(rows) for rows in self.rows]
        return {
            "patches": torch.cat(self.rows),
            "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0).int(),
        }


def read(path: Path) -> Bags:
    with np.load(path, allow_pickle=False) as file:
        lengths = np.diff(file["offsets"]).tolist()
        return Bags(
            torch.from_numpy(file["features"]).float().split(lengths),
            torch.from_numpy(file["label"]).long(),
        )


def standardised(train: Bags, test: Bags) -> tuple[Bags, Bags]:
    rows = torch.cat(train.rows)
    mean, scale = rows.mean(0), rows.std(0).clamp_min(1e-6)
    return tuple(
        Bags(tuple((bag - mean) / scale for bag in part.rows), part.labels)
        for part in (train, test)
    )


def cross_validate(name: str, bags: Bags, protocol: Protocol, seed: int) -> dict[str, float]:
    """Means over the folds of one seed."""
    folds = StratifiedKFold(protocol.folds, shuffle=True, random_state=seed)
    measured = []
    for fold, (train, test) in enumerate(folds.split(bags.labels, bags.labels)):
        torch.manual_seed(1000 * seed + fold)
        measured.append(_fold(name, *standardised(bags.pick(train), bags.pick(test)), protocol))
    return {key: float(np.mean([each[key] for each in measured])) for key in measured[0]}


def _fold(name: str, train: Bags, test: Bags, protocol: Protocol) -> dict[str, float]:
    stem, settings = MODELS[name]
    sizes = {"num_outputs": 2, "feature_dim": train.rows[0].shape[1]}
    model = models.build(stem, sizes | settings)
    optimiser = torch.optim.Adam(
        model.parameters(), protocol.lr, weight_decay=protocol.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.epochs)
    inputs, curve = test.inputs(), []
    for _ in range(protocol.epochs):
        model.train()
        for which in torch.randperm(len(train.labels)).split(protocol.bags_a_step):
            step = train.pick(which.numpy())
            optimiser.zero_grad()
            model.loss(step.labels, models.PatientInputs.of(**step.inputs())).loss.mean().backward()
            optimiser.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            curve.append(model.predict(**inputs).numpy())
    labels = test.labels.numpy()
    return {
        "last": float(((curve[-1][:, 1] >= 0.5) == labels).mean()),
        "best": max(_at_the_best_threshold(scores[:, 1], labels) for scores in curve),
        "auc": rates(curve[-1], labels)["auc"],
    }


def _at_the_best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    thresholds = np.append(np.unique(scores), np.inf)
    return float(((scores[:, None] >= thresholds) == labels[:, None]).mean(0).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, default=2, help="repetitions of the ten folds")
    parser.add_argument("--epochs", type=int, default=Protocol.epochs)
    parser.add_argument("--bags-a-step", type=int, default=Protocol.bags_a_step)
    parser.add_argument("--lr", type=float, default=Protocol.lr)
    add_shared_options(parser, device="no difference: the models are small")
    args = parser.parse_args()
    folder = args.data
    if folder is None and "GIMP_FAST_REALDATA" in os.environ:
        folder = Path(os.environ["GIMP_FAST_REALDATA"]) / "mil"
    if folder is None:
        print("skipped: neither --data nor $GIMP_FAST_REALDATA")
        return 0
    torch.set_num_threads(1)  # the models are too small to share
    protocol = Protocol(epochs=args.epochs, bags_a_step=args.bags_a_step, lr=args.lr)
    _print("", "", "last", "best", "AUC", "published", "seconds")
    results = {
        name: {
            model: _row(name, model, read(folder / f"{name}.npz"), protocol, args.seeds)
            for model in args.models
        }
        for name in PUBLISHED
    }
    if not args.no_write:
        facts = {"protocol": asdict(protocol), "seeds": args.seeds, "results": results}
        print(f"wrote {write_results('mil_sets', 'cpu', facts, args.results)}")
    return 0


def _row(name: str, model: str, bags: Bags, protocol: Protocol, seeds: int) -> dict:
    """Measure and print one line: mean and SD over the seeds."""
    begin = time.perf_counter()
    protocol = replace(protocol, epochs=-(-protocol.epochs // SHORTER.get(model, 1)))
    runs = [cross_validate(model, bags, protocol, seed) for seed in range(seeds)]
    seconds = time.perf_counter() - begin
    row = {"runs": runs, "epochs": protocol.epochs, "seconds": seconds}
    for key in runs[0]:
        values = [run[key] for run in runs]
        row[key] = {"mean": float(np.mean(values)), "sd": float(np.std(values))}
    published = PUBLISHED[name].get(model)
    if published:
        row["published"] = {"mean": published[0], "sd": published[1]}
    cells = [f"{row[key]['mean']:.3f} ± {row[key]['sd']:.3f}" for key in ("last", "best", "auc")]
    beside = f"{published[0]:.3f} ± {published[1]:.3f}" if published else "–"
    _print(name, model, *cells, beside, f"{seconds:.0f}")
    return row


def _print(name: str, model: str, *cells: str) -> None:
    print(f"{name:10}{model:12}", *(f"{cell:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
