"""Maps of three patients and a picture of one slide, and a server of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from builders import maps
from PIL import Image

from gimp_fast.viewer import ViewServer, open_maps
from gimp_fast.wsi.images import SlideImages

PICTURE = (900, 700)  # pixels of the slide of patient A


def picture() -> np.ndarray:
    """(700, 900, 3) uint8 that changes smoothly, so that a JPEG keeps it."""
    rows, columns = np.mgrid[0 : PICTURE[1], 0 : PICTURE[0]]
    pixels = [columns * 255 // PICTURE[0], rows * 255 // PICTURE[1], np.full_like(rows, 128)]
    return np.stack(pixels, -1).astype(np.uint8)


@pytest.fixture(scope="session")
def map_folder(tmp_path_factory) -> Path:
    """A has a slide of 9 patches and genes, B two slides, C, predicted wrongly, nothing drawn."""
    folder = tmp_path_factory.mktemp("viewer") / "maps"
    small = maps.patch_table("A-1", maps.blob(3, 3, 9, 200), np.arange(1.0, 10.0))
    others = {}
    for number, count in ((1, 12), (2, 20)):
        coords = maps.blob(5, 5, count)
        others[f"B-{number}"] = maps.patch_table(f"B-{number}", coords, maps.hills(coords))
    slides = {name: maps.slide_map(folder, name, table) for name, table in others.items()}
    cases = [
        maps.case(
            "A",
            [maps.slide_map(folder, "A-1", small, patch_size=200.0)],
            genes=maps.genes(folder, "A"),
        ),
        maps.case("B", list(slides.values()), notes=["a note"]),
        maps.case("C", [], prediction="LUSC", attention=None),
    ]
    return maps.write_maps(folder, cases)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """The slide of A as a PNG."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(picture()).save(folder / "A-1.png")
    return folder


@pytest.fixture
def serve() -> Iterator[Callable[..., ViewServer]]:
    """``serve(folder, …, images=…)`` runs a server of these folders of maps."""
    with ExitStack() as undo:

        def started(*folders: Path, images: Path | None = None) -> ViewServer:
            opened = [open_maps(folder) for folder in folders]
            server = ViewServer(opened, None if images is None else SlideImages(images))
            undo.callback(server.server_close)
            undo.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server

        yield started
