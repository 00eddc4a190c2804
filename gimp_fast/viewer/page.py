"""The page: the same scripts and styles, by address from a server, or written into one file."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from gimp_fast import __version__
from gimp_fast.pages.templates import get_template

STYLES = ("view.css",)
# In the order in which they run.
SCRIPTS = (
    "openseadragon/openseadragon.min.js",
    "data.js",
    "colours.js",
    "overlay.js",
    "stage.js",
    "cases.js",
    "side.js",
    "app.js",
)
STATIC = (*STYLES, *SCRIPTS)


def served_page() -> str:
    """The page that fetches all else from its server."""
    return _render(title="Heatmaps", inline=None, styles=STYLES, scripts=SCRIPTS)


def offline_page(title: str, content: dict[str, Any]) -> str:
    """The page with everything in it.

    Args:
        title: of the page.
        content: what the page would fetch from a server, for JSON.
    """
    return _render(
        title=title,
        inline=_data(content),
        styles=[_text(name) for name in STYLES],
        scripts=[_text(name) for name in SCRIPTS],
    )


def _render(**fields: Any) -> str:
    template = get_template("view.html.j2", "gimp_fast.viewer")
    return template.render(version=__version__, **fields)


def _data(content: dict[str, Any]) -> Markup:
    """JSON that cannot end the element that holds it, whatever the names of patients."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _text(name: str) -> Markup:
    """A file of ours, or of OpenSeadragon, which contain no end tag; tests check that."""
    return Markup(files("gimp_fast.viewer").joinpath("static", name).read_text(encoding="utf-8"))
