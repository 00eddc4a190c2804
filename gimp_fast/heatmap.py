"""``python -m gimp_fast.heatmap``: what a trained model looks at, on slides and among genes.

python -m gimp_fast.heatmap --run runs/first                                 # its test patients
python -m gimp_fast.heatmap --run runs/first --slide-images slides --geojson all
python -m gimp_fast.heatmap --run exported --data cohort --out maps --cases TCGA-05-4244
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gimp_fast.cli import EXIT_BAD_INPUT, command
from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    from gimp_fast.inference import TrainedModel

FOLDER, SYNTHETIC = "heatmaps", "synthetic/cohort"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gimp_fast.heatmap",
        description="Write heatmaps of patients: pictures, tables and QuPath polygons of each "
        "slide, and tables and bars of genes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Finished slides are skipped when the same command runs again. With maps in "
        "RUN/heatmaps, RUN/report.html\nlinks them. Attention says what a model reads, not why, "
        "and not what causes a disease: see docs/heatmaps.md.",
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
    add("--out", type=Path, metavar="DIR", help=f"default: RUN/{FOLDER}; needed for an export")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--cases", nargs="+", metavar="CASE", help="these patients")
    who.add_argument("--slides", nargs="+", metavar="SLIDE", help="these slides alone")
    who.add_argument(
        "--part",
        choices=("train", "val", "test", "all"),
        help="patients of a part of the split; default: test, or all of another cohort than the "
        "model's",
    )
    add("--split", metavar="NAME", help="split that --part is of; default: that of the run")
    add("--max-patients", type=int, metavar="N", help="the first N of them")
    add(
        "--attribution",
        choices=("rollout", "attention-of-last-layer", "gradient"),
        default="rollout",
        help="weights of patches; for models that pool by attention both of the first are that",
    )
    add("--top", type=int, default=16, metavar="K", help="patches listed as the highest")
    add(
        "--geojson",
        choices=("top", "all", "none"),
        default="top",
        help="polygons for QuPath: the highest as annotations, or all as detections",
    )
    add("--slide-images", type=Path, metavar="FOLDER", help="slides, e.g. .svs; or .png, .jpg")
    add("--patch-size", type=float, metavar="PIXELS", help="at level 0, where files tell wrong")
    add("--device", default="auto", help="cpu, cuda …; default: a GPU if there is one")
    add("--overwrite", action="store_true", help="make again what is finished")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, value in (("--max-patients", args.max_patients), ("--patch-size", args.patch_size)):
        if value is not None and value <= 0:
            parser.error(f"{name}: found {value:g}; expected a number above zero")
    if args.top < 0:
        parser.error(f"--top: found {args.top}; expected zero or more")

    # After parsing, so that --help and a wrong option do not wait for torch.
    from gimp_fast.data import open_cohort
    from gimp_fast.heatmaps.make import HeatmapOptions, make_heatmaps
    from gimp_fast.inference import load
    from gimp_fast.inference.selection import select_patients

    is_run = (args.run / "config.yaml").is_file()
    if args.out is None and not is_run:
        parser.error("--out is needed for an exported model")
    trained = load(args.run, args.device, precision="fp32")
    cohort = open_cohort(args.data or _cohort_of(trained, args.run))
    cases = select_patients(
        trained, cohort, cases=args.cases, slides=args.slides, part=args.part, split=args.split
    )[: args.max_patients]
    options = HeatmapOptions(
        out=args.out or args.run / FOLDER,
        attribution=args.attribution,
        top=args.top,
        geojson=args.geojson,
        slide_images=args.slide_images,
        patch_size=args.patch_size,
        overwrite=args.overwrite,
    )
    if trained.synthetic or cohort.synthetic:
        print("SYNTHETIC: model or patients are generated; these maps say nothing about real ones.")
    print(f"{len(cases)} patients of {cohort.name}; {trained!r}")
    summary = make_heatmaps(trained, cohort, cases, options, slide_ids=args.slides, log=print)
    return _tell(summary, options.out, args.run if is_run else None)


def _cohort_of(trained: TrainedModel, run: Path) -> Path:
    """The cohort that a run was trained on."""
    import yaml

    file = run / "config.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))["data"] if file.is_file() else None
    found = Path(data) if data else run / SYNTHETIC
    if not found.is_dir():
        raise GimpError(f"{run}: found no cohort at {found}; give --data, the cohort to draw")
    return found


def _tell(summary: dict[str, Any], out: Path, run: Path | None) -> int:
    print(f"maps: {out / 'heatmaps.json'}")
    # The report links to files below it, so that run folder and links travel together.
    if run is not None and out.resolve() == (run / FOLDER).resolve():
        from gimp_fast.report import write_report

        print(f"report: {write_report(run)}")
    failures = summary["failures"]
    if not failures:
        return 0
    width = max(len(failure["case_id"]) for failure in failures)
    lines = [f"  {failure['case_id']:<{width}}  {failure['error']}" for failure in failures]
    print(f"error: {len(failures)} patients failed:", *lines, sep="\n", file=sys.stderr)
    return EXIT_BAD_INPUT


if __name__ == "__main__":
    raise SystemExit(main())
