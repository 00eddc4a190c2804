"""What is lost where patients lack RNA, or slides, over several splits, cohorts and seeds.

gimp-fast experiments … --keep-checkpoints --only gimp gimp_slide gimp_rna --out DIR
python benchmarks/missing_modality.py --out survival/missing \\
    --both DIR/runs/gimp-* --slides DIR/runs/gimp_slide-* --rna DIR/runs/gimp_rna-*

Runs of both modalities, of slides alone and of RNA alone belong together if they are of one cohort,
split and seed. On the test patients of each split who have both, the model of both is scored while
0 to 100 % of them lack one (the mean over draws of who does), and so are the models of one
modality. Scores are averaged over the splits of a cohort before anything is compared: on one split,
the better of two models is partly luck. `gimp-fast validate --missing` follows one model, with
intervals.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, origin

from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.experiments.rows import heading_of, split_groups
from gimp_fast.external.kinds import Kind, Sample
from gimp_fast.external.missing_curves import SHARES, Answers, lacking
from gimp_fast.external.patients import new_patients
from gimp_fast.external.validating import kind_of
from gimp_fast.files.atomic import write_text
from gimp_fast.inference.loading import load_one
from gimp_fast.inference.predictions import predicted_by_each
from gimp_fast.runs.records import Run
from gimp_fast.training.sampling import HIDE_NOTHING, HIDE_RNA, HIDE_SLIDES

READS = ("both", "slides", "rna")
HIDE = {"rna": HIDE_RNA, "slide": HIDE_SLIDES}
REMAINS = {"rna": "slide", "slide": "rna"}
WORDS = {"rna": "RNA", "slide": "slides"}
# Score -> at each share, the value of the model of both, and of each of what it is held against.
Curves = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Place:
    """A split of a cohort, and a seed: the runs of the rows belong together."""

    data: Path
    split: str
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    for name in READS:
        add(f"--{name}", type=Path, nargs="+", required=True, metavar="RUN")
    add("--draws", type=int, default=20, help="of who lacks a modality")
    add("--title", default="Patients who lack a modality", help="of the page")
    add("--out", help=f"result files, below {RESULTS}, without suffix; default: only print")
    args = parser.parse_args()
    groups: dict[str, list[tuple[Place, dict[str, Curves]]]] = defaultdict(list)
    tolerance: Mapping[str, float] = {}
    for place, runs in places([getattr(args, name) for name in READS]):
        kind, curves = curves_of(place, runs, args.draws)
        tolerance = kind.tolerance
        name = open_cohort(place.data).name
        (kind_of_split,) = split_groups([place.split])
        groups[f"{name}, {heading_of(kind_of_split)}"].append((place, curves))
        print(f"{name} {place.split} seed {place.seed}", flush=True)
    if not groups:
        raise SystemExit(
            "found no cohort, split and seed of which there are all three runs, finished and with "
            "their weights; expected one or more (experiments --keep-checkpoints)"
        )
    found = {name: averaged([curves for _, curves in of]) for name, of in groups.items()}
    if len(found) > 1:
        found[f"mean of {len(found)}"] = averaged(list(found.values()))
    splits = {name: [f"{place.split} seed {place.seed}" for place, _ in of]
              for name, of in groups.items()}  # fmt: skip
    text = "\n".join(page(args.title, found, tolerance, splits, args.draws))
    print(text)
    if args.out:
        facts = {"title": args.title, "draws": args.draws, "splits": splits, "groups": found}
        file = RESULTS / args.out
        write_text(file.with_suffix(".json"), json.dumps(origin("cpu") | facts, indent=1) + "\n")
        write_text(file.with_suffix(".md"), text)


def places(folders: Sequence[Sequence[Path]]) -> Iterator[tuple[Place, list[Path]]]:
    """Where all three kinds have a finished run with its weights, in order."""
    found: dict[Place, dict[int, Path]] = defaultdict(dict)
    for kind, some in enumerate(folders):
        for folder in some:
            run = Run(folder)
            if run.is_finished and run.checkpoint("finetune").is_file():
                config = run.config
                place = Place(Path(config["data"]), config["split"], config["seed"])
                found[place][kind] = folder
    for place in sorted(found, key=lambda place: (str(place.data), place.split, place.seed)):
        if len(found[place]) == len(folders):
            yield place, [found[place][kind] for kind in range(len(folders))]


def curves_of(place: Place, runs: Sequence[Path], draws: int) -> tuple[Kind, dict[str, Curves]]:
    """The kind of the target, and what lacks -> its curves, of the test patients of a split."""
    both, *single = (load_one(run) for run in runs)
    cohort = open_cohort(place.data)
    cases = [
        case for case in cohort.split(place.split)["test"]
        if cohort.has_slides(case) and cohort.has_expression(case)
    ]  # fmt: skip
    new = new_patients([both, *single], cohort, cases, exclude_known=False)

    def predicted(trained: Any, hide: int = HIDE_NOTHING) -> np.ndarray:
        (values,) = predicted_by_each([trained], cohort, new.case_ids, hide=hide)
        if not np.isfinite(values).all():
            raise GimpError(f"{trained.source}: found predictions that are not finite")
        return values

    shown = predicted(both)
    alone = dict(zip(("slide", "rna"), map(predicted, single), strict=True))
    kind = kind_of(both)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(new.case_ids)) for _ in range(draws)]
    found = {}
    for lacks, hide in HIDE.items():
        remains = alone[REMAINS[lacks]]
        answers = {
            "both": Answers(shown, predicted(both, hide)),
            "remaining": Answers(remains, remains),
            "either": Answers(alone[lacks], remains),
        }
        found[lacks] = curves(kind, answers, new.truth, orders)
    return kind, found


def curves(
    kind: Kind, answers: Mapping[str, Answers], truth: np.ndarray, orders: Sequence[np.ndarray]
) -> Curves:
    """Score -> at each share its mean over the orders in which patients lose the modality."""
    found: Curves = {score: [{} for _ in SHARES] for score in kind.curved}
    for name, of in answers.items():
        for at, share in enumerate(SHARES):
            values = defaultdict(list)
            for order in orders:
                hidden = np.isin(np.arange(len(truth)), order[: lacking(share, len(truth))])
                sample = Sample.of_models([np.where(hidden[:, None], of.hidden, of.shown)], truth)
                scores = kind.curved_scores(sample, np.ones((1, len(truth))))
                for score, value in scores.items():
                    values[score].append(float(value[0]))
            for score, some in values.items():
                found[score][at][name] = statistics.fmean(some)
    return found


def averaged(of: Sequence[Mapping[str, Curves]]) -> dict[str, Curves]:
    """The mean of the same curves of several splits, or cohorts."""
    first = of[0]
    return {
        lacks: {
            score: [
                {
                    name: statistics.fmean(one[lacks][score][at][name] for one in of)
                    for name in point
                }
                for at, point in enumerate(points)
            ]
            for score, points in by_score.items()
        }
        for lacks, by_score in first.items()
    }


def page(
    title: str,
    found: Mapping[str, Mapping[str, Curves]],
    tolerance: Mapping[str, float],
    splits: Mapping[str, Sequence[str]],
    draws: int,
) -> Iterator[str]:
    """Lines of the Markdown page: scores that are not to fall by more than something."""
    yield f"# {title}\n"
    yield (
        "Test patients who have slides and RNA, of whom more and more lack one. Each cell is the "
        "score of the model of both, and what it has above the better of two: the model of what "
        "remains for everybody, or the model of what is lost for those who still have it and the "
        f"other for the rest. Scores are means over splits, and over {draws} draws of who lacks "
        "the modality; the better is chosen after that.\n"
    )
    for group, names in splits.items():
        yield f"- {group}: {', '.join(names)}"
    for score, allowed in tolerance.items():
        for lacks, name in WORDS.items():
            yield f"\n## {score}: patients without {name}\n"
            yield "| | " + " | ".join(f"{share:.0%}" for share in SHARES) + " | lowest |"
            yield "|---" * (len(SHARES) + 2) + "|"
            for group, curves in found.items():
                points = curves[lacks][score]
                over = [p["both"] - max(p["remaining"], p["either"]) for p in points]
                cells = [f"{p['both']:.3f} ({d:+.3f})" for p, d in zip(points, over, strict=True)]
                mark = "" if min(over) >= -allowed else " **below**"
                yield f"| {group} | " + " | ".join(cells) + f" | {min(over):+.3f}{mark} |"
    yield ""


if __name__ == "__main__":
    main()
