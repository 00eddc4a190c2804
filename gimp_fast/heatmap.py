"""``python -m gimp_fast.heatmap``: what a trained model attends to, on slides and among genes.

python -m gimp_fast.heatmap --run runs/first                                 # its test patients
python -m gimp_fast.heatmap --run runs/first --slide-images slides --geojson all
python -m gimp_fast.heatmap --run exported --data cohort --out maps --cases TCGA-05-4244
python -m gimp_fast.heatmap --run runs/first --check               # are the weights faithful?
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gimp_fast.cli import EXIT_BAD_INPUT, Parser, command
from gimp_fast.errors import SHOWN, GimpError, counted
from gimp_fast.heatmaps.options import GRADIENT, HeatmapOptions
from gimp_fast.inference.options import PARTS
from gimp_fast.options import add_options, read_options
from gimp_fast.runs import layout

SYNTHETIC = "synthetic/cohort"


def build_parser() -> Parser:
    parser = Parser(
        "heatmap",
        description="Write heatmaps of patients: pictures, tables and QuPath polygons of each "
        "slide, and tables and bars of genes.",
        epilog="Running the same command again skips finished slides. RUN/report.html links the "
        "maps in RUN/heatmaps.\nAttention shows what a model reads, not why, and not what causes "
        "a disease: see docs/heatmaps.md.",
    )
    add = parser.add_argument
    add(
        "--run",
        type=Path,
        required=True,
        metavar="RUN_OR_EXPORT",
        help="finished run, or a model that `gimp-fast predict --export` wrote",
    )
    add("--data", type=Path, metavar="COHORT", help="cohort folder; default: that of the run")
    out = f"folder of the maps; default: RUN/{layout.HEATMAPS}; required for an exported model"
    add("--out", type=Path, metavar="DIR", help=out)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--cases", nargs="+", metavar="CASE", help="these patients")
    who.add_argument("--slides", nargs="+", metavar="SLIDE", help="only these slides")
    who.add_argument(
        "--part",
        choices=(*PARTS, "all"),
        help="patients of this part of the split; default: test, or all of a cohort that the model "
        "was not trained on",
    )
    add("--split", metavar="NAME", help="the split of --part; default: that of the run")
    add("--max-patients", type=int, metavar="N", help="only the first N patients")
    add_options(parser, HeatmapOptions)
    add(
        "--slide-images",
        type=Path,
        metavar="FOLDER",
        help="whole-slide images, or .png and .jpg, to draw the maps on",
    )
    add(
        "--pages",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"write {layout.VIEW_PAGE} of each slide: the map to zoom into, in one file that can "
        "be mailed",
    )
    add("--device", default="auto", help="cpu, cuda …; default: a GPU if there is one")
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.max_patients is not None and args.max_patients <= 0:
        parser.error(f"--max-patients: found {args.max_patients}; expected a number above zero")

    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data import open_cohort
    from gimp_fast.files.locks import claim
    from gimp_fast.heatmaps.attribution import has_linear_part
    from gimp_fast.heatmaps.faithfulness.check import check_faithfulness
    from gimp_fast.heatmaps.make import make_heatmaps
    from gimp_fast.inference.loading import load_one
    from gimp_fast.inference.selection import select_patients
    from gimp_fast.runs.hub import local_copy
    from gimp_fast.viewer import write_pages
    from gimp_fast.wsi.images import SlideImages

    args.run = local_copy(args.run)  # of hf://…
    is_export = (args.run / layout.WEIGHTS).is_file()
    if args.out is None and is_export:
        parser.error("--out is required for an exported model")
    if (args.run / layout.ENSEMBLE).is_file():
        raise GimpError(
            f"{args.run}: found an ensemble; expected one model, such as a member of it"
        )
    trained = load_one(args.run, args.device, precision="fp32")
    cohort = open_cohort(args.data or _cohort_of(args.run))
    cases = select_patients(
        trained, cohort, cases=args.cases, slides=args.slides, part=args.part, split=args.split
    )[: args.max_patients]
    options = read_options(args, HeatmapOptions, out=args.out or args.run / layout.HEATMAPS)
    if trained.synthetic or cohort.synthetic:
        print(
            "SYNTHETIC: the model or the patients are generated; these maps say nothing about real "
            "patients."
        )
    print(f"{counted(len(cases), 'patient')} of {cohort.name}; {trained!r}")
    if trained.uses_slides and options.attribution != GRADIENT and has_linear_part(trained):
        print(
            "CAUTION: the maps show the attention of the network. Most of this model's risk may "
            f"come from its linear part: --attribution {GRADIENT} shows both"
        )
    images = None if args.slide_images is None else SlideImages(args.slide_images)
    with claim(options.out):
        summary = make_heatmaps(
            trained, cohort, cases, options, images=images, slide_ids=args.slides, log=print
        )
        check = None
        if options.check:
            print("check: takes patches and genes away, and compares what the model says")
            check = check_faithfulness(trained, cohort, cases, options, log=print)
    code = _print_summary(summary, check, options.out, None if is_export else args.run)
    if args.pages and summary["patients"]:
        with claim(options.out):
            write_pages(options.out, images, log=print)
    return code


def _cohort_of(run: Path) -> Path:
    """The cohort that a run was trained on."""
    from gimp_fast.runs.records import Run, is_run

    data = Run(run).config.get("data") if is_run(run) else None
    folder = Path(data) if data else run / SYNTHETIC
    if not folder.is_dir():
        raise GimpError(f"{run}: found no cohort at {folder}; name the cohort with --data")
    return folder


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What a reader of the maps must know: flat ones, and where polygons count from."""
    patients, lines = summary["patients"], []
    with_maps = [patient["attention"] for patient in patients if patient.get("attention")]
    flat = [attention for attention in with_maps if attention["flat"]]
    if flat:
        highest = max(attention["highest_times_even"] for attention in flat)
        lines.append(
            f"CAUTION: {len(flat)} of {counted(len(with_maps), 'patient')} with effectively flat "
            f"attention: no patch has more than {highest:.4g} times an even share, and none is "
            "marked"
        )
    notes = [note for p in patients for slide in p["slides"] for note in slide.get("notes", [])]
    notes += [note for p in patients for note in (p["genes"] or {}).get("notes", [])]
    shared = Counter(note for note in notes if note.startswith(("GeoJSON:", "Genes ")))
    return lines + [
        f"{note.removesuffix('.')} ({counted(n, 'map')})" for note, n in shared.most_common(3)
    ]


def _print_summary(
    summary: dict[str, Any], check: dict[str, Any] | None, out: Path, run: Path | None
) -> int:
    """Exit code, after saying where the maps are, what the check found, and who failed."""
    print(f"maps: {out / layout.MAPS}")
    for line in _remarks(summary):
        print(line)
    if check is not None:
        from gimp_fast.heatmaps.faithfulness.check import verdicts

        print(f"check: {out / layout.FAITHFULNESS_PAGE}", *verdicts(check), sep="\n")
    # The report links only to files below it, so that the run folder can be moved as a whole.
    if run is not None and out.resolve() == (run / layout.HEATMAPS).resolve():
        from gimp_fast.report import write_report

        print("report: drawing figures", flush=True)
        print(f"report: {write_report(run)}")
    every = [*summary["failures"], *(check or {"failures": []})["failures"]]
    failures = {failure["case_id"]: failure["error"] for failure in every}
    if not failures:
        return 0
    width = max(map(len, failures))
    lines = [f"  {case:<{width}}  {error}" for case, error in list(failures.items())[:SHOWN]]
    if len(failures) > SHOWN:
        lines.append(f"  … and {len(failures) - SHOWN} more, all in {out / layout.MAPS}")
    print(f"error: {counted(len(failures), 'patient')} failed:", *lines, sep="\n", file=sys.stderr)
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    raise SystemExit(main())
