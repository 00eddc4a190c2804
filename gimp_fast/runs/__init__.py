"""A run on disk: its layout, its checkpoints and its records."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.runs.records import Run, open_run

__all__ = ["Run", "open_run"]

__getattr__, __dir__ = later(__name__, dict.fromkeys(__all__, "gimp_fast.runs.records"))
