"""The command: ``python -m gimp_fast.experiments table1 --data cohort --out results``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gimp_fast.cli import Parser, command
from gimp_fast.experiments.paper import (
    DELTAS,
    EXPERIMENTS,
    chosen_rows,
    chosen_splits,
    experiment,
)

EXIT_SOME_FAILED = 1


def build_parser() -> Parser:
    parser = Parser(
        "experiments",
        description="Reproduce the paper's tables and figures on a cohort that `prepare` wrote: "
        "train every row on every split, and write tables, figures and a page.",
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
        help=f"what to reproduce, one or more of {', '.join(EXPERIMENTS)}",
    )
    add("--data", type=Path, required=True, metavar="COHORT", help="cohort folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the results and runs")
    add(
        "--splits",
        nargs="+",
        default=[],
        metavar="NAME",
        help="splits of the cohort, by name or pattern, e.g. 'random_*'; default: all. Splits "
        "whose names differ only in their number are reported together",
    )
    add("--seeds", type=_positive, default=1, metavar="N", help="seeds 0 to N − 1; default: 1")
    add("--preset", default="paper", metavar="NAME", help="paper (default), small or demo")
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
    args = build_parser().parse_args(argv)

    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data import open_cohort
    from gimp_fast.errors import GimpError
    from gimp_fast.experiments.execute import default_jobs, execute
    from gimp_fast.experiments.plan import Shared, describe, make_plan
    from gimp_fast.experiments.results import Call, summarise
    from gimp_fast.experiments.table_files import write_outputs
    from gimp_fast.experiments.tuning import tune
    from gimp_fast.files.locks import claim
    from gimp_fast.ops.backends import choose_device
    from gimp_fast.runs.environment import environment

    cohort = open_cohort(args.data)
    if not cohort.classes:
        raise GimpError(
            f"{args.data}: the cohort has no labels, and tables are of classes; `prepare` reads "
            "them from --labels, in the column --label-column"
        )
    tables = [experiment(name, args.deltas) for name in dict.fromkeys(args.experiments)]
    rows = chosen_rows(tables, args.only)
    splits = chosen_splits(cohort.split_names, args.splits)
    if not splits:
        raise GimpError(f"{args.data}: the cohort has no splits; `prepare` makes them")
    shared = Shared.of(args.preset, args.config, args.set)
    jobs, gpus = default_jobs(args.jobs, shared.on_cpu)
    seeds = range(args.seeds)
    threads = 1 if jobs > 1 else None
    asked = {"rows": rows, "splits": splits, "threads": threads}
    plan = make_plan(tables, cohort, shared, seeds=seeds, **asked)
    runs = args.out / "runs"
    if args.dry_run:
        print("\n".join(describe(tables, plan, runs, splits, seeds)))
        return 0
    if not plan.runs:
        reasons = "; ".join(f"{key}: {why}" for (_, key), why in plan.skipped.items())
        raise GimpError(f"no row of {', '.join(args.experiments)} can be trained: {reasons}")
    for device in {getattr(run.settings, "device", "cpu") for run in plan.runs}:
        choose_device(device)  # for its error, before anything is written
    if cohort.synthetic:
        print("SYNTHETIC patients: these results say nothing about real ones.")
    for (table, key), reason in plan.skipped.items():
        print(f"{table}: row {key} is left out: {reason}")
    began = time.perf_counter()
    carry_out = partial(
        execute, cohort=cohort, runs=runs, jobs=jobs, gpus=gpus, keep=args.keep_checkpoints
    )
    with claim(runs):
        tuning = None
        if args.tune:
            tuned, tuning = tune(
                tables, cohort, shared, **asked, seed=seeds[0], trials=args.tune, execute=carry_out,
                log=print,
            )  # fmt: skip
            plan = make_plan(tables, cohort, shared, seeds=seeds, **asked, tuned=tuned)
        finished, errors = carry_out(plan)
        words = shlex.join(["python", "-m", "gimp_fast.experiments", *argv])
        call = Call(
            cohort, tuple(splits), tuple(seeds), args.preset, shared.overrides, words,
            environment(), args.resamples, tuning,
        )  # fmt: skip
        for table in tables:
            print(f"{table.title}: computing intervals and drawing figures", flush=True)
            results = summarise(table, plan, finished, errors, call)
            page = write_outputs(results, args.out / table.name)
            print(f"{table.title}: {page}")
    print(f"{len(finished)} of {len(plan.runs)} runs in {time.perf_counter() - began:.0f} s")
    if errors:
        print(f"{len(errors)} runs failed; the same command retries them", file=sys.stderr)
        return EXIT_SOME_FAILED
    return 0
