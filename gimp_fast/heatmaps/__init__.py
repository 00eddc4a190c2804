"""Heatmaps: weights of patches and genes, where they lie, and their files and pictures."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.heatmaps.faithfulness.check import check_faithfulness
    from gimp_fast.heatmaps.make import make_heatmaps
    from gimp_fast.heatmaps.options import HeatmapOptions

__all__ = ["HeatmapOptions", "check_faithfulness", "make_heatmaps"]

__getattr__, __dir__ = later(
    __name__,
    {
        "HeatmapOptions": "gimp_fast.heatmaps.options",
        "check_faithfulness": "gimp_fast.heatmaps.faithfulness.check",
        "make_heatmaps": "gimp_fast.heatmaps.make",
    },
)
