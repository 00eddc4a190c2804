"""Models of survival of one cohort on the patients of the others.

python benchmarks/survival_cohorts.py --data FOLDER --out DIR --preset survival --keep-checkpoints
python benchmarks/survival_transfer.py --data FOLDER --runs DIR/site/runs --out DIR/transfer

The models of one row and seed, one for each split of a cohort, are validated together on every
other cohort, whose genes are aligned to theirs: all its patients are new. The diagonal is the mean
C-index of the models on their own test patients.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from _common import RESULTS, origin
from survival_cohorts import COHORTS, prepare_cohort

from gimp_fast import validate_model
from gimp_fast.files.atomic import write_text
from gimp_fast.runs.records import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="as of survival_cohorts.py")
    add("--runs", type=Path, required=True, help="the folder `runs` of its results")
    add("--out", type=Path, required=True, help="folder of the aligned cohorts")
    add("--row", default="gimp")
    add("--seed", type=int, default=0)
    add("--resamples", type=int, default=2000)
    add("--results", help=f"result file, below {RESULTS}, without suffix; default: only print")
    args = parser.parse_args()
    models = models_of(args.runs, args.row, args.seed)
    found: dict[str, dict[str, Any]] = {}
    for trained, runs in models.items():
        own = [Run(run).metrics.test.model_dump()["c_index"]["value"] for run in runs]
        found[trained] = {trained: {"value": statistics.fmean(own), "splits": len(own)}}
        for other in COHORTS:
            if other == trained:
                continue
            cohort = args.out / f"{other}-genes-of-{trained}"
            if prepare_cohort(args.data / f"tcga_{other}", cohort, ["--genes-of", str(runs[0])]):
                raise SystemExit(1)
            score = validate_model(runs, cohort, resamples=args.resamples).scores["c_index"]
            found[trained][other] = vars(score.new)
            print(f"{trained} on {other}: {score.new}", flush=True)
    facts = {"row": args.row, "seed": args.seed, "resamples": args.resamples, "c_index": found}
    text = "\n".join(table(found))
    print(text)
    if args.results:
        file = RESULTS / args.results
        write_text(file.with_suffix(".json"), json.dumps(origin("cpu") | facts, indent=1) + "\n")
        write_text(file.with_suffix(".md"), f"# Models of one cohort on the others\n\n{text}\n")


def models_of(runs: Path, row: str, seed: int) -> dict[str, list[Path]]:
    """Cohort -> the runs of a row that still have their weights, one for each split."""
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(runs.glob(f"{row}-*")):
        run = Run(folder)
        if not (run.is_recorded and run.checkpoint("finetune").is_file()):
            continue
        if (run.record.row, run.record.seed) == (row, seed):
            found[Path(run.config["data"]).name].append(folder)
    return {cohort: found[cohort] for cohort in COHORTS if cohort in found}


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of Markdown: a row for each cohort of training, a column for each that is predicted."""
    lines = ["| trained on | " + " | ".join(name.upper() for name in COHORTS) + " |"]
    lines.append("|---" * (len(COHORTS) + 1) + "|")
    for trained, scores in found.items():
        cells = [cell(scores.get(other)) for other in COHORTS]
        lines.append(f"| {trained.upper()} | " + " | ".join(cells) + " |")
    return lines


def cell(score: dict[str, Any] | None) -> str:
    if score is None:
        return ""
    if "low" not in score:
        return f"*{score['value']:.3f}*"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


if __name__ == "__main__":
    main()
