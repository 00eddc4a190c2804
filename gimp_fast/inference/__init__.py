"""Trained models on new patients: loaded from runs and exports, run, exported."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gimp_fast.inference.loading import load
    from gimp_fast.inference.model import TrainedModel

__all__ = ["TrainedModel", "load"]
_FILES = {"TrainedModel": "gimp_fast.inference.model", "load": "gimp_fast.inference.loading"}


def __getattr__(name: str) -> Any:
    """Loaded when first used, so that the options of commands import without torch."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FILES[name]), name)
