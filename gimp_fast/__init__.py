"""GiMP: gene-induced multimodal pre-training for image-omic classification.

Importing the package is cheap: torch, triton and the native library load when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
# Public name -> where it is; imported when it is first used.
_LATER = {
    "open_cohort": "gimp_fast.data",
    "prepare_cohort": "gimp_fast.verbs",
    "train_model": "gimp_fast.verbs",
    "load": "gimp_fast.inference",
    "TrainedModel": "gimp_fast.inference",
}

__all__ = ["__version__", *_LATER]


def __getattr__(name: str) -> Any:
    """Import a public name, which may load torch."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
