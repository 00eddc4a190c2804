"""How heatmaps are made. Imports nothing heavy: ``--help`` reads it too."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from gimp_fast.options import option

ROLLOUT, LAST_LAYER, GRADIENT = "rollout", "attention-of-last-layer", "gradient"
ATTRIBUTIONS = (ROLLOUT, LAST_LAYER, GRADIENT)


def _count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"found {text}; expected zero or more")
    return int(text)


def _above_zero(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"found {text}; expected a number above zero")
    return float(text)


@dataclass(frozen=True)
class HeatmapOptions:
    """How heatmaps are made, and the folder ``out`` that they are written to."""

    out: Path
    attribution: str = option(
        ROLLOUT,
        "weights of patches (default: %(default)s); in a model that pools by attention, the first "
        "two are both that attention",
        choices=ATTRIBUTIONS,
    )
    top: int = option(16, "patches listed as the highest", parse=_count, metavar="K")
    geojson: str = option(
        "top",
        "polygons for QuPath: the highest patches as annotations, or all as detections",
        choices=("top", "all", "none"),
    )
    patch_size: float | None = option(
        None,
        "side of a patch at level 0, where the files record a wrong one",
        parse=_above_zero,
        metavar="PIXELS",
    )
    overwrite: bool = option(False, "make finished maps again")
