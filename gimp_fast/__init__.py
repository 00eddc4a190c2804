"""GiMP: gene-induced multimodal pre-training for image-omic classification.

Importing the package is cheap: torch, triton and the native library load when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
_LATER = {"load": "gimp_fast.inference", "TrainedModel": "gimp_fast.inference"}


def __getattr__(name: str) -> Any:
    """What would load torch with the package is imported when it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
