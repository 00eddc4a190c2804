"""Names from the user's data, made safe for a terminal, for Markdown and for a spreadsheet.

HTML pages come from templates that escape everything, see ``pages.templates``.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Controls, surrogates, line separators: a terminal would obey some, and cannot show others.
_HIDDEN = {"Cc", "Cs", "Zl", "Zp"}
# Marks that reorder the text around them; other format characters belong to some scripts.
_REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MARKDOWN = re.compile(r"([\\`*_\[\]|])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# A cell that a spreadsheet would compute. "-", "+" and "-3.2" are no formulas, nor is "-ve".
_FORMULA = re.compile(r"[=@\t\r]|[+-].*[(|!=]", re.DOTALL)


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen and may change how the text around it is shown."""
    return unicodedata.category(character) in _HIDDEN or character in _REORDERING


def visible(text: str, keep: str = "\n") -> str:
    r"""Text for a terminal: hidden characters become escapes such as ``\x1b``; some are kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii") if is_hidden(c) and c not in keep else c
        for c in text
    )


def markdown(text: str) -> str:
    """Text on one line as Markdown shows it, in a table too; no HTML in it is obeyed."""
    line = visible(" ".join(text.split()), keep="")
    return _MARKDOWN.sub(r"\\\1", line.translate(_ENTITIES))


def guarded(cell: str) -> str:
    """A cell of a csv file; a quote before it keeps a spreadsheet from computing it."""
    return f"'{cell}" if _FORMULA.match(cell.lstrip("'")) else cell


def guarded_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table for a csv file, with its texts guarded; the given one is not changed."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{
        name: [guarded(cell) if isinstance(cell, str) else cell for cell in table[name]]
        for name in texts
    })  # fmt: skip


def unguarded(cell: str) -> str:
    """The text that :func:`guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell
