"""``python -m gimp_fast.train``: genes → pretrain → finetune → evaluate, on a cohort folder.

python -m gimp_fast.train --data cohort --out runs/first
python -m gimp_fast.train --preset demo --out runs/demo        # the embedded synthetic cohort
python -m gimp_fast.train --out runs/first --resume
python -m gimp_fast.train --data cohort --fit 24GB --dry-run   # what will training need?
torchrun --nproc-per-node 4 -m gimp_fast.train --data cohort --out runs/first
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.cli import Parser, command
from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    from gimp_fast.data import Cohort
    from gimp_fast.training import TrainConfig

SYNTHETIC_FOLDER = "synthetic"


def build_parser() -> Parser:
    parser = Parser(
        "train",
        description="Train GiMP, or a comparator, on a cohort that `prepare` wrote, and evaluate "
        "it on the test patients. Without --data it trains on an embedded synthetic cohort.",
        epilog="SIGTERM and SIGUSR1 save the state and end with exit code 75, Ctrl-C with 130;\n"
        "--resume continues. A second Ctrl-C ends at once.\n"
        "Under torchrun, all ranks share each batch: a batch size counts all of them together.\n"
        "--method, --target, --split, --modalities and --seed are short for --set KEY=VALUE,\n"
        "--harmonise for --set gene_harmonise=VALUE.\n"
        "The run folder holds config.yaml, environment.json, metrics.jsonl, metrics.json, "
        "predictions.csv,\nembeddings.npz, checkpoints/, tensorboard/, figures/ and report.html.",
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="COHORT", help="cohort folder; default: synthetic patients")
    add("--out", type=Path, metavar="RUN", help="folder of the run; default: runs/<date>-<time>")
    add(
        "--preset",
        metavar="NAME",
        help="configuration in the package: demo, paper, small (few genes, bags of a few hundred "
        "rows) or survival (some hundred patients); default: paper, or demo without --data",
    )
    add("--config", type=Path, metavar="YAML", help="file with fields that override the preset")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one field, e.g. --set finetune.lr=3e-4; may be repeated",
    )
    add(
        "--method",
        metavar="NAME",
        help="model to train instead of gimp: a comparator such as abmil, clam_sb, transmil, snn, "
        "mcat or mgca; default: gimp",
    )
    add(
        "--target",
        nargs="+",
        metavar="NAME",
        help="target of the cohort to predict, or several for one model, with weights if they "
        "should count differently (os burden:0.5); the labels are called classification; default: "
        "the labels",
    )
    add(
        "--covariates",
        nargs="+",
        metavar="NAME",
        help="clinical covariates of the cohort that the model reads; default: none",
    )
    add(
        "--harmonise",
        choices=("none", "rank", "quantile"),
        help="put each patient's genes on one scale by their order, fitted on training patients, "
        "so that new patients may have another unit; default: none",
    )
    add("--split", metavar="NAME", help="split of the cohort; default: its only one")
    add("--modalities", choices=("both", "slide", "rna"), help="default: what the method reads")
    add("--seed", type=int, help="of everything that is random; default: 0")
    add(
        "--stages",
        nargs="+",
        choices=("genes", "pretrain", "slides", "finetune"),
        help="run only these, each from what an earlier stage left in --out; default: all",
    )
    add(
        "--resume",
        action="store_true",
        help="continue the run in --out after its last checkpoint, with its configuration; "
        "start it if there is none",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the model's parameters and the memory that each stage will need, measured on "
        "small steps; train nothing, write nothing",
    )
    add(
        "--fit",
        metavar="SIZE",
        help="set pretrain.batch_size to the largest that fits into this memory, e.g. 24GB, 8GiB",
    )
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.out is None:
        parser.error("--resume needs --out, the run folder to continue")
    if args.resume and args.fit and not args.dry_run:
        parser.error("--fit would change the batches of the run that --resume continues")
    out = args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")

    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data.synthetic.patients import SYNTHETIC_TARGETS
    from gimp_fast.ops import available_backends
    from gimp_fast.ops.backends import choose_device
    from gimp_fast.runs.folder import RunFolder
    from gimp_fast.training.claim import check_folder
    from gimp_fast.training.distributed import is_first_rank
    from gimp_fast.training.task import check_target
    from gimp_fast.verbs import train_model

    config = _configuration(args, out)
    choose_device(config.device)  # for its error, before anything is written
    if args.dry_run:
        return _dry_run(config, args.fit)
    if args.fit:
        config = _fitted(config, args.fit)
    check_folder(RunFolder(out), config, resume=args.resume)
    if config.data is None and "WORLD_SIZE" in os.environ:
        raise GimpError("under torchrun, give --data: the synthetic cohort is made by one process")
    if config.data is None:
        for name in config.target_names:
            check_target(name, SYNTHETIC_TARGETS)  # before the patients are generated
    data = _synthetic_cohort(out, config.seed) if config.data is None else Path(config.data)
    if is_first_rank():
        backends = [name for name, status in available_backends().items() if status == "available"]
        print(f"operators: {', '.join(backends)} (`gimp-fast doctor` says why not the others)")
    train_model(data, out, config, resume=args.resume, stages=args.stages)
    return 0


def _configuration(args: argparse.Namespace, out: Path) -> TrainConfig:
    from gimp_fast.runs import layout
    from gimp_fast.training.claim import resumed_config
    from gimp_fast.training.config import asked_values, load_config

    # Their texts are values as they are: a split may be called 0 or no.
    names = ("method", "split", "modalities", "seed")
    fields = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.harmonise is not None:
        fields["gene_harmonise"] = args.harmonise
    for name in ("target", "covariates"):
        if getattr(args, name) is not None:
            fields[name] = [n for text in getattr(args, name) for n in text.split(",") if n]
    if args.resume and (out / layout.CONFIG).exists():
        asked = asked_values(args.preset, args.config, args.set, fields)
        config, ignored = resumed_config(out, asked)
        print("\n".join(ignored), end="\n" if ignored else "", file=sys.stderr)
    else:
        preset = args.preset or ("demo" if args.data is None else "paper")
        config = load_config(preset, args.config, args.set, fields)
    if args.data is not None:
        config = config.model_copy(update={"data": str(args.data.resolve())})
    return config


def _dry_run(config: TrainConfig, budget: str | None) -> None:
    from gimp_fast.data import open_cohort
    from gimp_fast.training.memory import memory_report

    with tempfile.TemporaryDirectory() as folder:
        cohort = open_cohort(config.data or _synthetic_cohort(Path(folder), config.seed))
        if budget:
            config = _with_fitted_batch(config, cohort, budget)
        print("\n".join(memory_report(config, cohort, _announce)))


def _fitted(config: TrainConfig, budget: str) -> TrainConfig:
    from gimp_fast.data import open_cohort

    if config.data is None:
        raise GimpError("--fit needs --data, the cohort to train on, except with --dry-run")
    if "WORLD_SIZE" in os.environ:
        raise GimpError(
            "--fit: does not work under torchrun, where ranks share a batch; find the batch of one "
            "GPU with --dry-run, and set pretrain.batch_size to it times the number of ranks"
        )
    return _with_fitted_batch(config, open_cohort(config.data), budget)


def _with_fitted_batch(config: TrainConfig, cohort: Cohort, budget: str) -> TrainConfig:
    from gimp_fast.training.memory import fitted_batch

    _announce("measuring small steps of stage 'pretrain' for --fit")
    fitted = fitted_batch(config, cohort, budget)
    print(f"--fit {budget}: {fitted}")
    pretrain = config.pretrain.model_copy(update={"batch_size": fitted.size})
    return config.model_copy(update={"pretrain": pretrain})


def _announce(text: str) -> None:
    """Say what is being done, apart from the results on standard output."""
    print(f"{text} …", file=sys.stderr, flush=True)


def _synthetic_cohort(out: Path, seed: int) -> Path:
    """The embedded cohort in the run folder, generated unless it is there."""
    from gimp_fast.data.synthetic.patients import SyntheticConfig, prepare_synthetic
    from gimp_fast.files.locks import claim

    print(
        "No --data was given: this run trains on SYNTHETIC patients, generated with seed "
        f"{seed}; its metrics say nothing about real ones."
    )
    folder = out / SYNTHETIC_FOLDER
    with claim(out):
        if not (folder / "cohort" / "cohort.json").exists():
            # An interrupted run may have left part of it; the folder holds nothing else.
            shutil.rmtree(folder, ignore_errors=True)
            prepare_synthetic(folder, SyntheticConfig(seed=seed), progress=True)
    return folder / "cohort"


if __name__ == "__main__":
    raise SystemExit(main())
