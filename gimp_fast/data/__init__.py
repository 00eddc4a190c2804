"""Slides, genes and labels on disk, joined into cohorts."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.data.bag import Bag
    from gimp_fast.data.cohort import Cohort, open_cohort
    from gimp_fast.data.slides import SlideFile, SlideInfo, register_reader

__all__ = ["Bag", "Cohort", "SlideFile", "SlideInfo", "open_cohort", "register_reader"]

# Loaded when first used: the options of commands import no numpy or pandas.
__getattr__, __dir__ = later(
    __name__,
    {
        "Bag": "gimp_fast.data.bag",
        "Cohort": "gimp_fast.data.cohort",
        "SlideFile": "gimp_fast.data.slides",
        "SlideInfo": "gimp_fast.data.slides",
        "open_cohort": "gimp_fast.data.cohort",
        "register_reader": "gimp_fast.data.slides",
    },
)
