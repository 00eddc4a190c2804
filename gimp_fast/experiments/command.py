"""The command: ``python -m gimp_fast.experiments table1 --data cohort --out results``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gimp_fast.cli import Parser, command
from gimp_fast.experiments.catalog import EXPERIMENTS, experiment
from gimp_fast.experiments.classes.paper import DELTAS
from gimp_fast.experiments.survival.rows import SURVIVAL
from gimp_fast.tasks.cluster import HELP, METAVAR

EXIT_SOME_FAILED = 1


def build_parser() -> Parser:
    parser = Parser(
        "experiments",
        description="Reproduce the paper's tables and figures on a cohort that `prepare` wrote, or "
        "compare models of survival on one cohort or several: train every row on every split, and "
        "write tables, figures and a page.",
        epilog="The same command resumes after an interruption. Finished runs are not trained "
        "again;\ntables with the same --out share them.\n"
        "OUT/<table>/ holds report.html, table.md, table.csv, table.tex, results.json, figures/.\n"
        "Exit codes: 0 done, 1 some runs failed, 2 bad input, 75 stopped by a signal.",
    )
    add = parser.add_argument
    add(
        "experiments",
        nargs="+",
        choices=EXPERIMENTS,
        metavar="TABLE",
        help=f"what to make, one or more of {', '.join(EXPERIMENTS)}",
    )
    add(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="COHORT",
        help="cohort folder; several for survival",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the results and runs")
    add(
        "--splits",
        nargs="+",
        default=[],
        metavar="NAME",
        help="splits of the cohort, by name or pattern, e.g. 'random_*'; default: all. Splits "
        "whose names differ only in their number are reported together",
    )
    add(
        "--target",
        metavar="NAME",
        help="of survival: the target; default: the only target of survival of the cohort",
    )
    add(
        "--covariates",
        nargs="*",
        metavar="NAME",
        help="of survival: what rows with covariates read; default: all covariates of the cohort",
    )
    add("--seeds", type=_positive, default=1, metavar="N", help="seeds 0 to N − 1; default: 1")
    add(
        "--preset", default="paper", metavar="NAME", help="paper (default), small, survival or demo"
    )
    add("--config", type=Path, metavar="YAML", help="settings that replace those of the preset")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of all runs, e.g. --set finetune.lr=3e-4; may be repeated",
    )
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="ROW",
        help="only these rows, or all rows of a method; see --dry-run",
    )
    add(
        "--deltas",
        nargs="+",
        type=_not_negative,
        default=list(DELTAS),
        metavar="D",
        help=f"margins of `delta`; default: {' '.join(map(str, DELTAS))}",
    )
    add(
        "--jobs",
        type=_positive,
        metavar="N",
        help="runs at a time; default: one for each GPU, or, without GPUs, one for each core. If "
        "there are several, each has one CPU thread",
    )
    add("--scheduler", metavar=METAVAR, help=f"{HELP}. Each run has one CPU thread")
    add(
        "--tune",
        type=_positive,
        metavar="N",
        help="choose the settings of every row on the validation patients of each split, by N "
        "trials of each with the first seed; needs Optuna",
    )
    add(
        "--resamples",
        type=_positive,
        default=20_000,
        metavar="N",
        help="bootstrap resamples of the intervals; default: 20000",
    )
    add("--keep-checkpoints", action="store_true", help="keep the weights of every run")
    add("--dry-run", action="store_true", help="print rows and runs; train and write nothing")
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text}; expected 1 or more")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}; expected a number of 0 or more")
    return value


@command
def main(argv: Sequence[str]) -> int | None:
    """The exit code of ``gimp-fast experiments`` with these arguments; by default sys.argv."""
    args = build_parser().parse_args(argv)

    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data import open_cohort
    from gimp_fast.errors import GimpError, counted
    from gimp_fast.experiments.carry_out import Asked
    from gimp_fast.experiments.classes import command as of_classes
    from gimp_fast.experiments.plan import Shared
    from gimp_fast.experiments.survival import command as of_survival
    from gimp_fast.files.locks import claim

    names = tuple(dict.fromkeys(args.experiments))
    survival = SURVIVAL in names
    if survival and len(names) > 1:
        raise GimpError(
            "survival: its rows and options are others; make it by a command of its own"
        )
    if not survival and (args.target or args.covariates or len(args.data) > 1):
        raise GimpError("--target, --covariates and several cohorts are for the table 'survival'")
    asked = Asked(
        tables=tuple(experiment(name, args.deltas) for name in names),
        only=tuple(args.only),
        splits=tuple(args.splits),
        seeds=tuple(range(args.seeds)),
        trials=args.tune,
        jobs=args.jobs,
        scheduler=args.scheduler,
        runs=args.out / "runs",
        keep=args.keep_checkpoints,
        words=shlex.join(["python", "-m", "gimp_fast.experiments", *argv]),
        resamples=args.resamples,
    )
    cohorts = [open_cohort(path) for path in args.data]
    shared = Shared.of(args.preset, args.config, args.set)
    if survival:
        works = of_survival.prepared(asked, cohorts, shared, args.target, args.covariates)
        make = of_survival.make_table
    else:
        works = of_classes.prepared(asked, cohorts, shared)
        make = of_classes.make_tables
    if args.dry_run:
        print("\n".join(line for work in works for line in work.describe()))
        return 0
    for work in works:
        work.check()
    began = time.perf_counter()
    with claim(asked.runs):
        done, wanted, failed = make(asked, works, args.out)
    print(f"{done} of {wanted} runs in {time.perf_counter() - began:.0f} s")
    if failed:
        print(f"{counted(failed, 'run')} failed; the same command tries again", file=sys.stderr)
        return EXIT_SOME_FAILED
    return 0
