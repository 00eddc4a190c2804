"""Heatmaps in a browser: a local page with the slides, and one page a slide that opens anywhere."""

from typing import TYPE_CHECKING

from gimp_fast.later import later

if TYPE_CHECKING:
    from gimp_fast.viewer.folders import MapFolder, open_maps
    from gimp_fast.viewer.offline import write_pages
    from gimp_fast.viewer.server import ViewServer

__all__ = ["MapFolder", "ViewServer", "open_maps", "write_pages"]

__getattr__, __dir__ = later(
    __name__,
    {
        "MapFolder": "gimp_fast.viewer.folders",
        "ViewServer": "gimp_fast.viewer.server",
        "open_maps": "gimp_fast.viewer.folders",
        "write_pages": "gimp_fast.viewer.offline",
    },
)
