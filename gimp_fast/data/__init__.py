"""Slides, genes and labels on disk, joined into cohorts."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gimp_fast.data.bag import Bag
    from gimp_fast.data.cohort import Cohort, open_cohort

__all__ = ["Bag", "Cohort", "open_cohort"]


def __getattr__(name: str) -> Any:
    """A name, loaded when first used: the options of commands import no numpy or pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("gimp_fast.data.cohort"), name)
