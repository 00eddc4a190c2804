"""``python -m gimp_fast.extract``: from whole-slide images to feature files.

python -m gimp_fast.extract --slides svs --out features --weights resnet50-0676ba61.pth
python -m gimp_fast.extract --slides svs --out features --patches-only
python -m gimp_fast.extract --slides svs --out features --coords clam/patches --weights FILE
python -m gimp_fast.extract --slides svs --out features --weights FILE --shard 3/8
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gimp_fast.cli import EXIT_BAD_INPUT, command
from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    from gimp_fast.wsi.encoder import Encoder
    from gimp_fast.wsi.extraction import ExtractOptions

# Written out, not imported: --help must not wait for torch. Tests hold them together.
PRECISIONS = ("fp32", "bf16", "fp16")
MM2 = 1e6  # square micrometres


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gimp_fast.extract",
        description="Find tissue, cut patches of one physical resolution, encode them with an "
        "ImageNet ResNet50 up to layer3 (1024 channels), and write a feature file a slide in "
        "CLAM's layout, which `prepare` reads. Slides that are finished are skipped; one that "
        "cannot be used does not stop the others and is listed at the end (exit code 2).",
        epilog="Needs gimp-fast[wsi]: OpenSlide for the formats of scanners, tifffile for TIFFs "
        "that it does not know. OUT gets h5_files/ (or patches/), overlays/, slides.csv and "
        "failures.csv.",
    )
    add = parser.add_argument
    add(
        "--slides",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR_OR_FILE",
        help="folders of slides, or slides",
    )
    add("--pattern", nargs="+", default=(), metavar="GLOB", help="of names in folders: '*-DX?.*'")
    add("--recursive", action="store_true", help="look into folders of folders, as GDC's are")
    add("--out", type=Path, required=True, help="folder to write to")
    add("--shard", metavar="I/N", help="do the I-th of N shares of the slides, I from 1")
    add("--resume", action="store_true", help="the default: skip slides that are finished")
    add("--overwrite", action="store_true", help="make files anew that are there already")
    add("--patches-only", action="store_true", help="write coordinates, as CLAM's patches/ are")
    add("--no-overlay", dest="overlay", action="store_false", help="draw no pictures")
    add("--overlay", action="store_true", default=True, help="the default: a PNG for each slide")
    add("--workers", type=int, help="threads that read patches; default: one a core")
    add("--debug", action="store_true", help="show the traceback of an error")
    _add_patches(parser.add_argument_group("patches"))
    _add_tissue(parser.add_argument_group("tissue"))
    _add_encoder(parser.add_argument_group("encoder"))
    return parser


def _add_patches(group: argparse._ArgumentGroup) -> None:
    resolution = group.add_mutually_exclusive_group()
    resolution.add_argument(
        "--magnification", type=float, help="of patches, 10 / mpp (default: 20)"
    )
    resolution.add_argument("--mpp", type=float, help="micrometres per pixel of patches instead")
    add = group.add_argument
    add("--patch-size", type=int, default=256, help="side in pixels (default: 256)")
    add(
        "--level-tolerance",
        type=float,
        metavar="FRACTION",
        help="take whole-numbered reductions of level 0 that are this near the resolution, and "
        "resample for nothing else (default: 0.1); the files record the true mpp",
    )
    add(
        "--min-tissue",
        type=float,
        metavar="FRACTION",
        help="least part of a patch that is tissue (default: 0.25)",
    )
    add(
        "--mpp-override",
        metavar="VALUE_OR_CSV",
        help="micrometres per pixel of level 0: a number for slides that do not tell, or a csv "
        "(slide_id, mpp) for the slides in it, whatever they tell",
    )
    add("--magnification-override", metavar="VALUE_OR_CSV", help="the same, as 10 / mpp")
    add(
        "--coords",
        type=Path,
        metavar="DIR",
        help="take the patches of these files (CLAM's patches/, TRIDENT's, or those of "
        "--patches-only) and look for no tissue",
    )


def _add_tissue(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--saturation",
        default="otsu",
        metavar="otsu|0…255",
        help="what is more saturated is tissue: Otsu's threshold, kept within 8 and 30 (default), "
        "or a number; CLAM's is 8",
    )
    add("--segmentation-mpp", type=float, help="resolution of the search (default: 16)")
    add("--median", type=int, help="side of the median filter in its pixels (default: 3)")
    add("--close", type=int, help="gaps of so many of its pixels are closed (default: 4)")
    add("--min-part", type=float, metavar="MM2", help="smaller parts are dropped (default: 0.066)")
    add("--min-hole", type=float, metavar="MM2", help="smaller holes are filled (default: 0.066)")


def _add_encoder(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="ResNet50 of torchvision or timm, .safetensors or .pth; default: torchvision's first "
        "ImageNet weights, from torch's cache or its server",
    )
    add("--random-weights", action="store_true", help="for trials; the features mean nothing")
    add("--seed", type=int, default=0, help="of random weights")
    add("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU if there is one")
    add("--precision", choices=PRECISIONS, default="fp32", help="of the network (default: fp32)")
    add("--batch-size", type=int, default=64, help="patches a step (default: 64)")


@command
def main(argv: Sequence[str]) -> int | None:
    options = build_parser().parse_args(argv)
    _check_request(options)
    _check_installed()
    from gimp_fast.wsi.choice import find_slides, share
    from gimp_fast.wsi.console import run_and_report

    slides = share(find_slides(options.slides, options.pattern, options.recursive), options.shard)
    wanted = _extract_options(options)
    encoder = None if options.patches_only else _encoder(options)
    failed = run_and_report(slides, wanted, encoder, options.shard)
    return EXIT_BAD_INPUT if failed else 0


def _check_request(options: argparse.Namespace) -> None:
    if options.weights and options.random_weights:
        raise GimpError("give either --weights or --random-weights")
    if options.patches_only and options.coords:
        raise GimpError("--coords are patches already: leave out --patches-only")
    for name in ("patch_size", "batch_size", "workers", "magnification", "mpp", "median", "close",
                 "segmentation_mpp"):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise GimpError(f"--{name.replace('_', '-')}: found {value:g}; expected more than 0")
    limits = {"min_tissue": 1, "level_tolerance": 0.5, "min_part": 1e6, "min_hole": 1e6}
    for name, top in limits.items():
        value = getattr(options, name)
        if value is not None and not 0 <= value <= top:
            found = f"--{name.replace('_', '-')}: found {value:g}"
            raise GimpError(f"{found}; expected a number from 0 to {top:g}")


def _check_installed() -> None:
    """Before torch is waited for."""
    from importlib.util import find_spec

    if not find_spec("openslide") and not find_spec("tifffile"):
        raise GimpError("reading slides needs OpenSlide: pip install 'gimp-fast[wsi]'")


def _extract_options(options: argparse.Namespace) -> ExtractOptions:
    from gimp_fast.files.parallel import available_cores
    from gimp_fast.wsi.choice import read_overrides
    from gimp_fast.wsi.extraction import ExtractOptions
    from gimp_fast.wsi.grid import MPP_AT_1X, GridOptions
    from gimp_fast.wsi.tissue import TissueOptions

    areas = {"min_part_um2": options.min_part, "min_hole_um2": options.min_hole}
    tissue = {
        "saturation": _saturation(options.saturation),
        "mpp": options.segmentation_mpp,
        "median": options.median,
        "close": options.close,
    } | {name: None if area is None else area * MM2 for name, area in areas.items()}
    grid = {
        "target_mpp": options.mpp or MPP_AT_1X / (options.magnification or 20.0),
        "patch_size": options.patch_size,
        "tolerance": options.level_tolerance,
        "min_tissue": options.min_tissue,
    }
    return ExtractOptions(
        out=options.out,
        grid=GridOptions(**_given(grid)),
        tissue=TissueOptions(**_given(tissue)),
        overrides=read_overrides(options.mpp_override, options.magnification_override),
        coords=options.coords,
        batch_size=options.batch_size,
        workers=options.workers or available_cores(),
        overlay=options.overlay,
        overwrite=options.overwrite,
    )


def _given(values: dict) -> dict:
    """Those that the user set; the defaults are where the options are defined."""
    return {name: value for name, value in values.items() if value is not None}


def _saturation(text: str) -> float | None:
    if text.lower() == "otsu":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 255:
        raise GimpError(f"--saturation: found '{text}'; expected otsu, or a number from 0 to 255")
    return value


def _encoder(options: argparse.Namespace) -> Encoder:
    import torch

    from gimp_fast.wsi.weights import load_encoder

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = options.seed if options.random_weights else None
    return load_encoder(
        options.weights, random_seed=seed, device=device, precision=options.precision
    )


if __name__ == "__main__":
    raise SystemExit(main())
