"""Figures inside HTML pages."""

from __future__ import annotations

import re

from markupsafe import Markup

from gimp_fast.pages import style


def inline_svg(svg: str, name: str, alt: str) -> Markup:
    """An SVG file's root element, made unique in its page and drawn in the page's colours."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    # Ids must be unique in the page; matplotlib uses the same ones in every figure.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in (
        (style.INK, "ink"),
        (style.GRID, "grid"),
        (style.SURFACE, "surface"),
        (style.ACCENT, "blue"),
    ):
        svg = svg.replace(colour, f"var(--{variable})")
    opening, body = svg.split(">", 1)
    opening = re.sub(r' (width|height|version)="[^"]*"', "", opening)
    points = float(re.search(r'viewBox="0 0 ([\d.]+)', opening)[1])
    label = Markup.escape(alt)
    size = f"max-width: {1.8 * points:.0f}px"  # so that text is no larger than the page's
    return Markup(f'{opening} role="img" aria-label="{label}" style="{size}">{body}')
