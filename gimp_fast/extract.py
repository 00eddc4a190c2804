"""``python -m gimp_fast.extract``: from whole-slide images to feature files.

python -m gimp_fast.extract --slides svs --out features --weights resnet50-0676ba61.pth
python -m gimp_fast.extract --slides svs --out features --patches-only
python -m gimp_fast.extract --slides svs --out features --coords clam/patches --weights FILE
python -m gimp_fast.extract --slides svs --out features --weights FILE --shard 3/8
python -m gimp_fast.extract --slides svs --out features --encoder uni --weights FOLDER --offline
torchrun --nproc-per-node 4 -m gimp_fast.extract --slides svs --out features --encoder uni
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gimp_fast import wsi
from gimp_fast.cli import EXIT_BAD_INPUT, Parser, command
from gimp_fast.errors import GimpError
from gimp_fast.options import add_options, read_options
from gimp_fast.tasks.cluster import HELP, METAVAR
from gimp_fast.wsi import options as wsi_options
from gimp_fast.wsi.encoders.presets import PRESETS
from gimp_fast.wsi.options import EncoderOptions, ExtractOptions, GridOptions, TissueOptions
from gimp_fast.wsi.ranks import device_of_rank, shard_of_rank
from gimp_fast.wsi.resolution import read_overrides
from gimp_fast.wsi.slide_files import find_slides, share


def build_parser() -> Parser:
    parser = Parser(
        "extract",
        description="Find tissue, cut patches of one physical resolution, encode them, and write "
        "one feature file per slide in CLAM's layout, which `prepare` reads. The encoder is an "
        "ImageNet ResNet50 up to layer3 (1024 channels) unless another is named; a named one sets "
        "the size and resolution of the patches. Finished slides are skipped; a slide that cannot "
        "be used does not stop the others and is listed at the end (exit code 2).",
        epilog="Needs gimp-fast[wsi]: OpenSlide for the formats of scanners, tifffile for TIFFs "
        "that OpenSlide does not read. OUT gets h5_files/ (or patches/), overlays/, slides.csv "
        "and failures.csv.",
    )
    add = parser.add_argument
    add("--slides", type=Path, nargs="+", required=True, metavar="PATH", help="slides or folders")
    add("--pattern", nargs="+", default=(), help="file names to take from folders: '*-DX?.*'")
    add("--recursive", action="store_true", help="search subfolders too, as in a GDC download")
    add("--shard", metavar="I/N", help="process part I of N of the slides; I counts from 1")
    add("--scheduler", metavar=METAVAR, help=HELP)
    add("--resume", action="store_true", help="skip finished slides: the default")
    add("--patches-only", action="store_true", help="write only coordinates, like CLAM's patches/")
    parser.add_plugins()
    add("--debug", action="store_true", help="show the traceback of an error")
    add_options(parser, ExtractOptions)
    patches = parser.add_argument_group("patches")
    add = patches.add_mutually_exclusive_group().add_argument
    target = {"dest": "target_mpp", "metavar": "X"}
    usual = "10 / mpp (default: 20); a named encoder has its own"
    add("--magnification", **target, type=wsi_options.mpp_of, help=usual)
    add("--mpp", **target, type=wsi_options.positive, help="micrometres per pixel")
    value = {"metavar": "VALUE_OR_CSV"}
    patches.add_argument(
        "--mpp-override",
        **value,
        help="micrometres per pixel of level 0: a number for slides that do not record it, or a "
        "csv (slide_id, mpp) that replaces the recorded value of the slides in it",
    )
    patches.add_argument("--magnification-override", **value, help="as 10 / mpp")
    add_options(patches, GridOptions)
    patches.set_defaults(patch_size=None)  # not asked for: grid_of decides
    add_options(parser.add_argument_group("tissue"), TissueOptions)
    add_options(parser.add_argument_group("encoder"), EncoderOptions)
    return parser


@command
def main(argv: Sequence[str]) -> int | None:
    arguments = build_parser().parse_args(argv)
    options, encoder_options = options_of(arguments), read_options(arguments, EncoderOptions)
    if arguments.patches_only and arguments.coords:
        raise GimpError("--coords gives the patches already: leave out --patches-only")
    from gimp_fast.wsi.readers import installed_readers

    installed_readers()
    slides = find_slides(arguments.slides, arguments.pattern, arguments.recursive)
    shard = arguments.shard or shard_of_rank()
    slides = share(slides, shard)
    if arguments.patches_only:
        encoder_options = None
    failed = _extract(slides, options, encoder_options, shard, arguments.scheduler)
    return EXIT_BAD_INPUT if failed else 0


def _extract(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder_options: EncoderOptions | None,
    shard: str | None,
    scheduler: str | None,
) -> int:
    """The number of slides that failed."""
    if encoder_options is not None and encoder_options.random_weights:
        print("WARNING: random weights. Use these features for trials only.")
    if scheduler is None:
        return _extract_here(slides, options, encoder_options, shard)
    return _extract_on_cluster(slides, options, encoder_options, shard, scheduler)


def _extract_here(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder_options: EncoderOptions | None,
    shard: str | None,
) -> int:
    """The number of slides that failed."""
    from gimp_fast.wsi.console import run_and_report

    encoder = None
    if encoder_options is not None:
        print("loading the encoder", flush=True)
        encoder_options = replace(encoder_options, device=device_of_rank(encoder_options.device))
        encoder = wsi.load_encoder(encoder_options, options.grid.patch_size)
        print(f"encoder {encoder.name} ({encoder.weights}), {encoder.precision}")
    return run_and_report(
        slides,
        options.out,
        lambda progress: wsi.extract(slides, options, encoder, progress.batch, progress.stage),
        shard,
    )


def _extract_on_cluster(
    slides: Sequence[Path],
    options: ExtractOptions,
    encoder_options: EncoderOptions | None,
    shard: str | None,
    scheduler: str,
) -> int:
    """The number of slides that failed."""
    from gimp_fast.tasks.cluster import ClusterEngine
    from gimp_fast.tasks.shared_files import paths_in
    from gimp_fast.wsi.console import Progress, run_and_report
    from gimp_fast.wsi.extraction import Outcome
    from gimp_fast.wsi.on_cluster import extract_on_cluster

    shared = {*paths_in((options, encoder_options)), *(path.parent for path in slides)}
    with ClusterEngine(scheduler, shared) as engine:
        print(f"{engine}; each worker loads the encoder", flush=True)

        def extract(progress: Progress) -> Iterator[Outcome]:
            progress.say("on the cluster")
            return extract_on_cluster(engine, slides, options, encoder_options)

        return run_and_report(slides, options.out, extract, shard)


def options_of(arguments: argparse.Namespace) -> ExtractOptions:
    """The options of the Python function, from parsed arguments."""
    return read_options(
        arguments,
        ExtractOptions,
        grid=grid_of(arguments),
        tissue=read_options(arguments, TissueOptions),
        overrides=read_overrides(arguments.mpp_override, arguments.magnification_override),
    )


def grid_of(arguments: argparse.Namespace) -> GridOptions:
    """Size and resolution of the patches: as given, or those of a named encoder, or 256 at 0.5."""
    usual, size, mpp = PRESETS.get(arguments.encoder), arguments.patch_size, arguments.target_mpp
    size = size or (usual.patch_size if usual else GridOptions.patch_size)
    if usual and mpp and not math.isclose(mpp, usual.mpp, rel_tol=GridOptions.tolerance):
        text = f"{usual.title} is recommended for {usual.mpp:g} µm per pixel; these are {mpp:g}"
        print(f"CAUTION: {text}", flush=True)
    mpp = mpp or (usual.mpp if usual else GridOptions.target_mpp)
    return read_options(arguments, GridOptions, target_mpp=mpp, patch_size=size)


if __name__ == "__main__":
    raise SystemExit(main())
