"""How heatmaps are made. Imports nothing heavy: ``--help`` reads it too."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from gimp_fast.options import option

ROLLOUT, LAST_LAYER, GRADIENT = "rollout", "attention-of-last-layer", "gradient"
ATTRIBUTIONS = (ROLLOUT, LAST_LAYER, GRADIENT)
SCALES = PERCENTILE, EVEN = ("percentile", "times-even")
ORIGINS = BOUNDS, SLIDE = ("bounds", "slide")


def _count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"found {text}; expected zero or more")
    return int(text)


def _one_or_more(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}; expected one or more")
    return int(text)


def _above_zero(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"found {text}; expected a number above zero")
    return float(text)


@dataclass(frozen=True)
class HeatmapOptions:
    """How heatmaps are made, and the folder ``out`` that they are written to."""

    out: Path
    target: str | None = option(
        None,
        "of several targets, the one whose prediction is explained (default: the first)",
        metavar="NAME",
    )
    attribution: str = option(
        ROLLOUT,
        "weights of patches (default: %(default)s); in a model that pools by attention, the first "
        "two are both that attention",
        choices=ATTRIBUTIONS,
    )
    top: int = option(
        16,
        "patches listed as the highest; those that have 1.5 times an even share or more are marked "
        "(default: %(default)s)",
        parse=_count,
        metavar="K",
    )
    scale: str = option(
        PERCENTILE,
        "what colours show: percentiles among the patient's patches, or multiples of an even "
        "share, which compare patients (default: %(default)s); a map that is effectively flat "
        "always has the latter",
        choices=SCALES,
    )
    geojson: str = option(
        "top",
        "polygons for QuPath: the highest patches as annotations, or all as detections",
        choices=("top", "all", "none"),
    )
    geojson_origin: str = option(
        BOUNDS,
        "where polygons count from: the corner of the slide's bounds, which QuPath opens (.mrxs, "
        ".scn), or of the whole slide, for QuPath with --no-crop (default: %(default)s)",
        choices=ORIGINS,
    )
    gene_symbols: Path | None = option(
        None,
        "a table of gene ids and symbols (HGNC, BioMart, a Xena probe map), for a model whose "
        "genes have ids alone",
        parse=Path,
        metavar="FILE",
    )
    patch_size: float | None = option(
        None,
        "side of a patch at level 0, where the files record a wrong one",
        parse=_above_zero,
        metavar="PIXELS",
    )
    overwrite: bool = option(False, "make finished maps again")
    check: bool = option(
        False,
        "also check whether the weights are faithful: take patches and genes away in their order, "
        "in random orders and in that of gradient × input, and compare what the model says",
    )
    check_draws: int = option(
        10,
        "random orders of a patient in --check (default: %(default)s)",
        parse=_one_or_more,
        metavar="N",
    )
