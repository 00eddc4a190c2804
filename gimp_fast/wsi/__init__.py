"""Whole-slide images: reading, tissue, patches and their features (extra ``wsi``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.wsi.encoder import available_encoders, load_encoder, register_encoder
    from gimp_fast.wsi.extraction import extract
    from gimp_fast.wsi.grid import foreground, plan_patches
    from gimp_fast.wsi.options import EncoderOptions, ExtractOptions, GridOptions, TissueOptions
    from gimp_fast.wsi.overview import read_overview
    from gimp_fast.wsi.patches import read_batches
    from gimp_fast.wsi.readers import open_wsi
    from gimp_fast.wsi.slide import WholeSlide
    from gimp_fast.wsi.slide_files import SUFFIXES
    from gimp_fast.wsi.tissue import find_tissue

__all__ = [
    "SUFFIXES",
    "EncoderOptions",
    "ExtractOptions",
    "GridOptions",
    "TissueOptions",
    "WholeSlide",
    "available_encoders",
    "extract",
    "find_tissue",
    "foreground",
    "load_encoder",
    "open_wsi",
    "plan_patches",
    "read_batches",
    "read_overview",
    "register_encoder",
]
_HOMES = {
    "EncoderOptions": "options",
    "ExtractOptions": "options",
    "GridOptions": "options",
    "SUFFIXES": "slide_files",
    "TissueOptions": "options",
    "WholeSlide": "slide",
    "available_encoders": "encoder",
    "extract": "extraction",
    "find_tissue": "tissue",
    "foreground": "grid",
    "load_encoder": "encoder",
    "open_wsi": "readers",
    "plan_patches": "grid",
    "read_batches": "patches",
    "read_overview": "overview",
    "register_encoder": "encoder",
}

# Loaded when first used: the options of `extract` must not wait for numpy or torch.
__getattr__, __dir__ = later(
    __name__, {name: f"{__name__}.{module}" for name, module in _HOMES.items()}
)
