"""``python -m gimp_fast.validate``: a trained model on a labelled cohort that it has not seen.

python -m gimp_fast.validate --run runs/first --data other_hospital --out validated
python -m gimp_fast.validate --run runs/fold_0 --run runs/fold_1 --data other --out validated
python -m gimp_fast.validate --run model --data other --exclude-known --out validated
python -m gimp_fast.validate --run both --against slides --against rna --data other --out validated
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gimp_fast.cli import Parser, command
from gimp_fast.external.options import ValidateOptions
from gimp_fast.inference.options import PredictOptions, add_computing, add_patients
from gimp_fast.options import add_options, read_options


def build_parser() -> Parser:
    parser = Parser(
        "validate",
        description="Validate a trained model on a labelled cohort that it has not seen: scores "
        "beside those of its own test patients, calibration, decision curves, groups, and patients "
        "who lack slides or RNA.",
        epilog="OUT holds report.html, results.json, scores.csv, predictions.csv, figures/; with "
        "--missing also missing.csv.\n"
        "A cohort is made by `gimp-fast prepare --genes-of RUN --labels … --out COHORT`, with the "
        "same --target as in training.",
    )
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        action="append",
        required=True,
        metavar="RUN",
        help="finished run, or an exported model or ensemble; with several, predictions are "
        "averaged",
    )
    add("--data", type=Path, required=True, metavar="COHORT", help="cohort folder, with labels")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the page, tables and figures; new, or of an earlier validation",
    )
    add(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="a model of slides alone or of RNA alone, which those of both are held against where "
        "a modality is missing; with it, --missing is on",
    )
    add_patients(parser)
    add_options(parser, ValidateOptions)
    add_computing(parser)
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    args = build_parser().parse_args(argv)
    options = read_options(args, ValidateOptions)
    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data import open_cohort
    from gimp_fast.external.document import check_folder, write_validation
    from gimp_fast.external.missing_texts import verdicts
    from gimp_fast.external.texts import summary
    from gimp_fast.external.validating import validate_model
    from gimp_fast.inference.ensemble import members_of
    from gimp_fast.inference.loading import load_one
    from gimp_fast.inference.selection import chosen_cases

    check_folder(args.out)
    cohort = open_cohort(args.data)
    models, against = (
        [
            load_one(path, args.device, precision=args.precision, backend=args.backend)
            for run in runs
            for path in members_of(run)
        ]
        for runs in (args.run, args.against)
    )
    for model in (*models, *against):
        print(f"{model.source}: {model}")
    found = validate_model(
        models,
        cohort,
        options,
        cases=chosen_cases(cohort, args.cases, args.split, args.part),
        against=against,
        predict=read_options(args, PredictOptions, progress=True),
        log=print,
    )
    page = write_validation(found, args.out, ["gimp-fast", "validate", *argv])
    lines = [*summary(found), *(verdicts(found.missing) if found.missing else ())]
    print("\n".join(lines))
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
