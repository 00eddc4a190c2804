"""What extraction makes of a slide: the options of ``gimp-fast extract`` and of ``extract``.

Imports neither numpy nor torch, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gimp_fast.errors import GimpError
from gimp_fast.options import option
from gimp_fast.wsi.encoders.presets import PRESETS
from gimp_fast.wsi.resolution import MPP_AT_1X, Overrides

_AREA_UM2 = 4 * 128.0**2  # four patches of 256 pixels at 20x
_AREA = f"(default: {_AREA_UM2 / 1e6:.2g})"
_DEFAULT = "(default: %(default)s)"
_SIDE = 256  # pixels of a patch
RESNET50 = "resnet50"  # the encoder of the paper
TIMM = "timm:"  # before the name of a model of timm
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # -> torch's names


def _parser(kind: type, accepts: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A parser of the accepted values of ``int`` or ``float``."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"found '{text}'; expected {expected}")
        return value

    return parse


positive = _parser(float, lambda value: value > 0, "a number above 0")
_count = _parser(int, lambda value: value > 0, "a whole number above 0")


def _between(low: float, high: float) -> Callable[[str], float]:
    return _parser(float, lambda value: low <= value <= high, f"a number from {low:g} to {high:g}")


def mpp_of(magnification: str) -> float:
    """The micrometres per pixel of a magnification."""
    return MPP_AT_1X / positive(magnification)


def _saturation(text: str) -> float | None:
    return None if text.lower() == "otsu" else _between(0, 255)(text)


def _area(square_millimetres: str) -> float:
    return _between(0, 1e6)(square_millimetres) * 1e6


@dataclass(frozen=True)
class GridOptions:
    """Which patches to take. ``target_mpp`` is micrometres per pixel of a patch; 20x is 0.5."""

    target_mpp: float = 0.5
    patch_size: int = option(
        _SIDE, f"side in pixels (default: {_SIDE}); a named encoder has its own", parse=_count
    )
    tolerance: float = option(
        0.1,
        "if level 0 reduced by a whole number is within this fraction of the requested resolution, "
        f"use it without resampling {_DEFAULT}; the files record the true mpp",
        flag="--level-tolerance",
        parse=_between(0, 0.5),
    )
    min_tissue: float = option(
        0.25, f"smallest fraction of tissue in a patch {_DEFAULT}", parse=_between(0, 1)
    )


@dataclass(frozen=True)
class TissueOptions:
    """How to find tissue."""

    saturation: float | None = option(
        None,
        "pixels of a higher saturation are tissue: Otsu's threshold, kept within 8 and 30 "
        "(default), or a number; CLAM uses 8",
        parse=_saturation,
        metavar="otsu|0…255",
    )
    lowest: float = 8  # limit of Otsu's threshold, which on blank glass splits the noise
    highest: float = 30  # limit of Otsu's threshold, which in much tissue splits pale from dark
    skip_pens: bool = option(
        True,
        "leave out marks of blue, green, red and black pens; for stains of these colours, such as "
        "Masson's trichrome, use --no-skip-pens",
    )
    darkest: int = 32  # brightest channel below this: an edge of the scan, whose hue is noise
    mpp: float = option(
        16.0,
        "micrometres per pixel of the picture that is searched for tissue (default: %(default)g)",
        flag="--segmentation-mpp",
        parse=positive,
    )
    median: int = option(
        3, f"side in its pixels of a median filter, 1 for none {_DEFAULT}", parse=_count
    )
    close: int = option(
        4, f"close gaps up to about this many of its pixels, 1 for none {_DEFAULT}", parse=_count
    )
    min_part_um2: float = option(
        _AREA_UM2,
        f"drop smaller pieces of tissue {_AREA}",
        flag="--min-part",
        parse=_area,
        metavar="MM2",
    )
    min_hole_um2: float = option(
        _AREA_UM2, f"fill smaller holes {_AREA}", flag="--min-hole", parse=_area, metavar="MM2"
    )


@dataclass(frozen=True)
class EncoderOptions:
    """Which network encodes patches, with which weights, and how it computes."""

    weights: Path | None = option(
        None,
        "file of weights, .safetensors, .pth or .bin, with the names that its authors published; "
        "for a named encoder also a folder of such files (default: from the cache or the server)",
        parse=Path,
    )
    random_weights: bool = option(False, "for trials: the features will be meaningless")
    seed: int = option(0, f"of random weights {_DEFAULT}")
    device: str = option("auto", "cpu, cuda or cuda:1 (default: a GPU if there is one)")
    precision: str = option("fp32", "default: %(default)s", choices=tuple(PRECISIONS))
    encoder: str = option(
        RESNET50,
        "name of an encoder (see docs/encoders.md: uni, virchow2, conch-v1.5 …), timm:MODEL, or "
        f"module:function or file.py:function that makes one {_DEFAULT}",
        metavar="NAME",
    )
    offline: bool = option(False, "never ask the network for weights: a file, or what is cached")

    def __post_init__(self) -> None:
        named = self.encoder in (RESNET50, *PRESETS) or self.encoder.startswith(TIMM)
        if self.random_weights and not named:
            raise GimpError("--random-weights: your own encoder makes its weights itself")
        if self.weights and self.random_weights:
            raise GimpError("give either --weights or --random-weights, not both")


@dataclass(frozen=True)
class ExtractOptions:
    """What to make of each slide, and where to put it."""

    out: Path = option(help="folder of the feature files", parse=Path, metavar="DIR")
    grid: GridOptions = GridOptions()
    tissue: TissueOptions = TissueOptions()
    overrides: Overrides = field(default_factory=Overrides)
    coords: Path | None = option(
        None,
        "do not look for tissue: take the patches from the files in this folder (CLAM's patches/, "
        "TRIDENT's, or those of --patches-only)",
        parse=Path,
    )
    batch_size: int = option(64, f"patches per batch {_DEFAULT}", parse=_count)
    workers: int | None = option(
        None, "threads that read patches (default: one per core)", parse=_count
    )
    overlay: bool = option(True, "draw a PNG of each slide with its tissue and patches")
    overwrite: bool = option(False, "replace existing files")
