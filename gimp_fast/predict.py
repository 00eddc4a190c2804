"""``python -m gimp_fast.predict``: predicts new patients with a trained model, or exports it.

python -m gimp_fast.predict --run runs/first --data new_patients --out predicted
python -m gimp_fast.predict --run runs/first --data cohort --part test --out test
python -m gimp_fast.predict --run runs/fold_0 --run runs/fold_1 --data new_patients --out mean
python -m gimp_fast.predict --run runs/first --export model
python -m gimp_fast.predict --run runs/seed_0 --run runs/seed_1 --export ensemble
python -m gimp_fast.predict --run model --push organisation/name --licence cc-by-nc-4.0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gimp_fast.cli import Parser, command
from gimp_fast.errors import GimpError
from gimp_fast.inference.options import PredictOptions, add_computing, add_patients
from gimp_fast.options import read_options
from gimp_fast.runs import layout

if TYPE_CHECKING:
    from gimp_fast.data import Cohort
    from gimp_fast.inference import TrainedModel
    from gimp_fast.inference.predictions import Predictions

_FILES = (".csv", ".tsv", ".txt")  # endings that name a file of predictions, not its folder


def build_parser() -> Parser:
    parser = Parser(
        "predict",
        description="Predict patients with a trained model, and warn of patients "
        "whose data differ from those of training; or export the model as a folder of its own, and "
        "publish it.",
        epilog="New patients become a cohort with `gimp-fast prepare --slides … --rna … --genes-of "
        "RUN --out COHORT`; labels are not needed. predictions.csv has case_id, slide_ids, "
        "prediction, a probability for each class, the label where known, and codes of warnings; "
        "predictions.warnings.json explains them. Of survival it has the risk, the survival at "
        "horizons, and the true time and event where known; of a number, prediction and truth. "
        "Of several targets, the columns of each begin with its name.",
    )
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        action="append",
        required=True,
        metavar="RUN",
        help="finished run, an exported model or ensemble, or hf://ORGANISATION/NAME on the "
        "Hugging Face hub; with several, probabilities are averaged",
    )
    add("--data", type=Path, metavar="COHORT", help="cohort folder that `prepare` wrote")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder of the predictions, {layout.PREDICTIONS} and its warnings; a name that ends "
        "with .csv is the file itself",
    )
    add(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the model to this folder, new or empty; several become one ensemble",
    )
    add("--overwrite", action="store_true", help="replace an existing export")
    add(
        "--push",
        metavar="ORGANISATION/NAME",
        help="publish the export on the Hugging Face hub: that of --export, or else that of --run. "
        "Needs gimp-fast[hub], and `hf auth login` or HF_TOKEN",
    )
    add("--licence", metavar="ID", help="of what is pushed, as the hub spells it: cc-by-nc-4.0 …")
    add("--public", action="store_true", help="let a new repository be public, not private")
    add_patients(parser)
    add_computing(parser)(
        "--bootstrap",
        type=int,
        default=1000,
        help="resamples of the confidence intervals, where labels are known (default: 1000)",
    )
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    args = build_parser().parse_args(argv)
    _check_request(args)
    if args.push and args.export is None and args.data is None:
        return _push(args)  # a folder as it is, of which nothing is loaded
    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.inference.ensemble import export_ensemble, members_of
    from gimp_fast.inference.export import export_model
    from gimp_fast.inference.loading import load_one

    paths = [member for run in args.run for member in members_of(run)]
    models = [
        load_one(path, args.device, precision=args.precision, backend=args.backend)
        for path in paths
    ]
    for model in models:
        print(f"{model.source}: {model}")
    if any(model.synthetic for model in models):
        print(
            "SYNTHETIC: trained on generated patients; predictions say nothing about real patients."
        )
    if args.export:
        if len(models) == 1:
            export_model(models[0], args.export, overwrite=args.overwrite)
            print(f"model exported to {args.export}")
        else:
            export_ensemble(models, args.export, overwrite=args.overwrite)
            print(f"ensemble of {len(models)} models exported to {args.export}")
    if args.push:
        _push(args)
    if args.data:
        _predict(args, models)
    return 0


def _check_request(args: argparse.Namespace) -> None:
    if args.data is None and args.export is None and args.push is None:
        raise GimpError(
            "give --data and --out to predict, --export to export, or --push to publish"
        )
    if (args.push is None) != (args.licence is None):
        raise GimpError(
            "--push and --licence belong together: the repository, and the licence of the weights, "
            "which those of the data and of the patch encoder decide"
        )
    if args.public and args.push is None:
        raise GimpError("--public is of --push: the repository to publish to")
    if args.push and args.export is None and len(args.run) > 1:
        raise GimpError("--push: several --run need --export, which makes one ensemble of them")
    if (args.data is None) != (args.out is None):
        raise GimpError(
            "--data and --out belong together: the cohort, and the folder of predictions"
        )
    if args.bootstrap < 1:
        raise GimpError(f"--bootstrap: found {args.bootstrap}; expected 1 or more")


def _push(args: argparse.Namespace) -> int:
    from gimp_fast.inference.hub import push_export

    folder = args.export or args.run[0]
    url = push_export(folder, args.push, args.licence, public=args.public)
    print(f"{folder} pushed: {url}")
    print(
        "the weights hold digests of the training patients: who has a patient's data can tell "
        "whether that patient was among them"
    )
    return 0


def _predict(args: argparse.Namespace, models: list[TrainedModel]) -> None:
    from gimp_fast.data import open_cohort
    from gimp_fast.inference.predictions import predict_cohort
    from gimp_fast.inference.selection import chosen_cases

    cohort = open_cohort(args.data)
    cases = chosen_cases(cohort, args.cases, args.split, args.part)
    options = read_options(args, PredictOptions, progress=True)
    predictions = predict_cohort(models, cohort, cases, options)
    metrics = predictions.metrics(args.bootstrap)
    facts = {
        "models": [str(model.source) for model in models],
        "cohort": {"name": cohort.name, "fingerprint": cohort.fingerprint},
        "synthetic": cohort.synthetic or any(model.synthetic for model in models),
        "metrics": metrics,
    }
    is_file = args.out.suffix.lower() in _FILES and not args.out.is_dir()
    file = args.out if is_file else args.out / layout.PREDICTIONS
    warnings_file = predictions.write(file, facts)
    print("\n".join(summary(predictions, cohort, metrics)))
    print(f"predictions written to {file}, warnings to {warnings_file}")


def summary(predictions: Predictions, cohort: Cohort, metrics: dict[str, Any]) -> list[str]:
    """Lines for the console: counts, metrics where labels are known, and warnings."""
    from gimp_fast.inference.cautions import table_text

    kind = "SYNTHETIC cohort" if cohort.synthetic else "cohort"
    lines = [f"{len(predictions.table)} patients of the {kind} '{cohort.name}'"]
    if predictions.target.kind == "several":
        for name, one in predictions.by_target().items():
            counted = f": {_class_counts(one)}" if one.classes else ""
            lines.append(f"{name}{counted}")
            lines += [f"  {line}" for line in _metric_lines(metrics["targets"][name])]
    else:
        if predictions.classes:
            lines[0] += f": {_class_counts(predictions)}"
        lines += _metric_lines(metrics)
    warnings = table_text(predictions.cautions)
    lines.append(f"warnings (code, patients):\n{warnings}" if warnings else "no warnings")
    lines += [f"harmonised: {note}" for note in predictions.harmonised]
    return [*lines, *(f"not checked: {note}" for note in predictions.unchecked)]


def _class_counts(predictions: Predictions) -> str:
    """How many patients are predicted as each class."""
    counts = predictions.table["prediction"].value_counts()
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in predictions.classes)


def _metric_lines(metrics: dict[str, Any]) -> list[str]:
    """The metrics of one target, where labels are known."""
    from gimp_fast.runs.score_texts import metrics_text

    lines = []
    if "seen" in metrics:
        count = metrics["seen"]["n"]
        lines.append(
            f"CAUTION: the model was trained or chosen on {count} of these patients; their results "
            f"are no evidence of performance: {metrics_text(metrics['seen'])}"
        )
    if "new" in metrics:
        which = ", without them" if "seen" in metrics else ""
        lines.append(f"labels known{which}: {metrics_text(metrics['new'])}")
    elif "seen" in metrics:
        lines.append("labels known, without them: of no patient")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
