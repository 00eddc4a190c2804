"""What a notebook shows of an object: a small table. Every name in it is text, never HTML."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup, escape

from gimp_fast.files.safe_text import visible

SYNTHETIC = "SYNTHETIC: generated patients, who say nothing about real ones."
_LONGEST = 300  # characters of a cell
_CELL = "text-align: left; vertical-align: top; padding: 1px 12px 1px 0"


def shown(title: str, facts: Mapping[str, object], note: str = "") -> str:
    """The HTML of a title, a note, and a row for each fact that is not empty.

    Args:
        title: what it is.
        facts: name -> value. Text and numbers are shown as they are, several values with commas
            between them; None and nothing are left out.
        note: a sentence that nobody should overlook.
    """
    rows = [
        Markup('<tr><th style="{0}">{1}</th><td style="{0}">{2}</td></tr>').format(
            _CELL, _text(name), _text(value)
        )
        for name, value in facts.items()
        if value not in (None, "", (), [])
    ]
    warning = Markup("<div><b>{}</b></div>").format(_text(note)) if note else Markup()
    return str(
        Markup('<div><div style="font-weight: bold">{}</div>{}<table>{}</table></div>').format(
            _text(title), warning, Markup().join(rows)
        )
    )


def _text(value: object) -> Markup:
    """A value as escaped text of bounded length."""
    several = isinstance(value, (tuple, list))
    text = visible(", ".join(map(str, value)) if several else str(value), keep="")
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
