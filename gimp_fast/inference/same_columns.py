"""Which models can be averaged: those that predict the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gimp_fast.errors import GimpError

if TYPE_CHECKING:
    from gimp_fast.inference.model import TrainedModel


def check_same_columns(models: Sequence[TrainedModel]) -> None:
    """GimpError for models whose predictions cannot be averaged."""
    first = models[0]
    for other in models[1:]:
        if other.columns == first.columns:
            continue
        what, hint = "classes", ""
        if not (other.classes and first.classes):
            what = "columns"
            hint = "; models of survival need the same horizons, see survival.horizons"
        raise GimpError(
            f"{other.source}: found the {what} {', '.join(other.columns)}; expected "
            f"{', '.join(first.columns)} as in {first.source}, to average predictions{hint}"
        )
