"""Trained models on the Hugging Face hub, as folders of this machine."""

from __future__ import annotations

from pathlib import Path

from gimp_fast.files.hub import download, hub_address
from gimp_fast.runs import layout

# What is fetched, and what a new version replaces: exports and ensembles, and nothing else.
HUB_FILES = (
    *layout.EXPORT_FILES,
    layout.ENSEMBLE,
    *(f"{layout.member_name('*')}/{name}" for name in layout.EXPORT_FILES),
)


def local_copy(path: str | Path) -> Path:
    """The path itself, or, of ``hf://ORGANISATION/NAME``, its copy in the hub's cache.

    What is there is fetched once; later calls ask only whether the hub has a newer one.

    Raises:
        GimpError: there is no such repository, or it cannot be fetched.
    """
    address = hub_address(path)
    return Path(path) if address is None else download(address, HUB_FILES)
