"""Names that do harm where they are shown as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast.files.safe_text import guarded, markdown, unguarded, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("LUAD", "LUAD"),
        ("Größe µm\nnext", "Größe µm\nnext"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\x00b\x07", r"a\x00b\x07"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("name\udcff", r"name\udcff"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
    ids=["plain", "letters", "escape", "nul", "reordered", "not-utf8", "script"],
)
def test_what_a_terminal_is_shown(text, shown):
    assert visible(text) == shown
    assert visible(text).encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("a | b", r"a \| b"),
        ("![x](http://y)", r"!\[x\](http://y)"),
        ("two\nlines\r\n# of it", "two lines # of it"),
        ("&lt;", "&amp;lt;"),
        ("`*_\\", r"\`\*\_\\"),
        ("\x1b[31m", r"\\x1b\[31m"),
    ],
    ids=["html", "cell", "picture", "lines", "entity", "signs", "escape"],
)
def test_what_markdown_is_given(text, shown):
    assert markdown(text) == shown


@pytest.mark.parametrize(
    "formula",
    [
        "=cmd|' /C calc'!A0",
        "@SUM(A1)",
        "+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "\t=1",
        "'=1",
    ],
)
def test_formulas_are_text_to_a_spreadsheet(formula):
    assert guarded(formula) == f"'{formula}"
    assert unguarded(guarded(formula)) == formula


@pytest.mark.parametrize(
    "text", ["-", "+", "-3.2e-5", "-ve", "+/+", "TCGA-05-4244", "", "'quoted'"]
)
def test_other_names_stay_as_they_are(text):
    assert guarded(text) == unguarded(text) == text


@given(st.text(alphabet="'=+-@|(a1\t", max_size=6))
def test_every_cell_comes_back(text):
    assert unguarded(guarded(text)) == text
