"""Whole-slide images: reading, tissue, patches and their features (extra ``wsi``)."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "EncoderOptions": "options",
    "ExtractOptions": "options",
    "GridOptions": "options",
    "SUFFIXES": "slide_files",
    "TissueOptions": "options",
    "WholeSlide": "slide",
    "extract": "extraction",
    "find_tissue": "tissue",
    "foreground": "grid",
    "load_encoder": "encoder",
    "open_wsi": "readers",
    "plan_patches": "grid",
    "read_batches": "patches",
    "read_overview": "overview",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Loaded when first used: the options of ``extract`` must not wait for numpy or torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
