"""Draws the dependency law of CONTRIBUTING.md; ``python docs/hooks/law.py`` writes the picture."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "law.svg"
_WIDTH, _ROW, _BOX, _SIDE = 780, 58, 34, 168
_STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b2a2a} .room{fill:#e0f2f1;stroke:#00796b} "
    ".leaf{fill:#fff8e1;stroke:#b28704} .arrow{stroke:#546e6e;fill:none;marker-end:url(#tip)}"
)


def levels(contributing: str) -> list[list[str]]:
    """Rooms of each level, the highest first, as the law lists them."""
    law = re.search(r"```\n(commands .+?)```", contributing, re.DOTALL)[1]
    return [re.split(r",\s*", level.strip()) for level in law.split("→")]


def leaves(contributing: str) -> list[str]:
    """Rooms that all may import."""
    sentence = re.search(r"commas\. (`errors`.+?) are leaves", contributing, re.DOTALL)[1]
    return re.findall(r"`(\w+)`", sentence)


def draw(contributing: str) -> str:
    """The picture, as SVG: a row for each level, and the leaves beside them."""
    rows, beside = levels(contributing), leaves(contributing)
    height = _ROW * len(rows) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="Rooms of the package: each imports from the rows below it and the leaves">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#546e6e"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    middle = (_WIDTH - _SIDE) // 2
    for number, rooms in enumerate(rows):
        top = 12 + number * _ROW
        width = min(140, (_WIDTH - _SIDE - 40) // len(rooms) - 12)
        left = middle - (len(rooms) * (width + 12) - 12) // 2
        for place, name in enumerate(rooms):
            parts.append(_box("room", left + place * (width + 12), top, width, _BOX, name))
        if number + 1 < len(rows):
            start, end = top + _BOX + 2, top + _ROW - 3
            parts.append(f'<path class="arrow" d="M{middle} {start}V{end}"/>')
    step = (height - 40) // len(beside)
    left = _WIDTH - _SIDE + 8
    parts.append(f'<text x="{left}" y="22">leaves, for all</text>')
    for number, name in enumerate(beside):
        parts.append(_box("leaf", left, 32 + number * step, 146, step - 10, name))
    return "\n".join([*parts, "</svg>", ""])


def _box(kind: str, left: int, top: int, width: int, height: int, name: str) -> str:
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="5"/>'
        f'<text x="{left + width // 2}" y="{top + height // 2 + 5}" text-anchor="middle">'
        f"{escape(name)}</text>"
    )


if __name__ == "__main__":
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    PICTURE.write_text(draw(text), encoding="utf-8")
