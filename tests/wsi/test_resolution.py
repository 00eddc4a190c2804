"""Micrometres per pixel of level 0: recorded, given by the user, never assumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.slides import slide_facts

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.wsi.resolution import (
    Override,
    checked_resolution,
    level0_mpp,
    read_overrides,
    resolution_cautions,
)


def test_where_the_resolution_comes_from():
    always, default = Override(0.1, "table", True), Override(0.2, "option", False)
    assert level0_mpp(slide_facts(mpp=0.5, magnification=40), always) == (0.1, "table")
    assert level0_mpp(slide_facts(mpp=0.5, magnification=40), default) == (0.5, "mpp of the slide")
    assert level0_mpp(slide_facts(magnification=40), default)[0] == 0.25
    assert level0_mpp(slide_facts(), default) == (0.2, "option")


def test_a_resolution_is_never_assumed():
    with pytest.raises(FaultError, match=r"a\.svs: found neither .* --mpp-override") as caught:
        level0_mpp(slide_facts())
    assert caught.value.faults[0].kind == "resolution-unknown"
    with pytest.raises(FaultError, match="352"):
        level0_mpp(slide_facts(remark="a recorded 352.8 µm"))


@pytest.mark.parametrize(
    ("mpp", "magnification", "expected", "remark"),
    [
        ((0.5, 0.5), 20, (0.5, 20), ""),
        ((0.5, 0.502), None, (0.501, None), ""),
        ((352.8, 352.8), None, (None, None), "352.8"),
        ((0.5, 0.25), None, (None, None), "not square"),
        ((0.0, 0.0), 40, (None, 40), "0 × 0"),
        ((None, None), 4000, (None, None), "4000"),
        ((0.05, 0.05), None, (None, None), "0.05 × 0.05 µm per pixel, which is implausible"),
        ((0.05, 0.05), 40, (None, 40), "0.05"),
        ((8.0, 8.0), None, (None, None), "8 × 8"),
        ((0.1, 0.1), 100, (0.1, 100), ""),
        ((0.5, None), None, (None, None), ""),
    ],
)
def test_implausible_records_are_left_out_and_named(mpp, magnification, expected, remark):
    *found, said = checked_resolution(mpp, magnification)
    assert found == [pytest.approx(x) for x in expected]
    assert remark in said


def test_what_is_odd_about_a_resolution_is_said():
    assert resolution_cautions(slide_facts(mpp=0.5, magnification=20), 0.5, "mpp") == ()
    (left_out,) = resolution_cautions(slide_facts(remark="a recorded 0.05"), 0.25, "magnification")
    assert left_out == "the slide has a recorded 0.05: not used, magnification is"
    (other,) = resolution_cautions(slide_facts(mpp=0.5, magnification=200), 0.5, "mpp")
    assert "a magnification of 200, which would be 0.05 µm; mpp is used" in other
    (small,) = resolution_cautions(slide_facts(), 0.05, "--mpp-override")
    assert small.startswith("0.05 µm per pixel (--mpp-override) is unusual")


def test_a_number_is_for_slides_that_record_none():
    override = read_overrides("0.25", None).of(Path("a.svs"))
    assert (override.mpp, override.always, override.source) == (0.25, False, "--mpp-override 0.25")
    override = read_overrides(None, "40").of(Path("a.svs"))
    assert (override.mpp, override.always) == (0.25, False)
    assert read_overrides(None, None).of(Path("a.svs")) is None


def test_a_table_replaces_what_its_slides_record(tmp_path):
    table = tmp_path / "mpp.csv"
    table.write_text('\ufeffSlide_ID,note,MPP\na.B6.svs,x,0.5\nTCGA-1.9DFA6FC7,y,"0,25"\n', "utf-8")
    overrides = read_overrides(str(table), "20")
    found = overrides.of(Path("f/a.B6.svs"))
    assert (found.mpp, found.always, found.source) == (0.5, True, "mpp.csv:2 0.5")
    assert overrides.of(Path("TCGA-1.9DFA6FC7.svs")).mpp == 0.25
    assert overrides.of(Path("other.svs")).mpp == 0.5
    assert not overrides.of(Path("other.svs")).always


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide_id,mpp\na,zero\n", r"t\.csv:2: found mpp 'zero'"),
        ("slide_id,mpp\na,0\n", "found mpp '0'"),
        ("slide_id,mpp\na,\n", "found mpp ''"),
        ("slide_id,mpp\na,400\n", "found mpp '400'"),
        ("slide,magnification\na,40\n", "no column mpp among slide, magnification"),
        ("mpp\n0.5\n", "no column slide_id or .* among mpp"),
        ("slide_id,mpp\na,0.5,x\n", "row 2: found 3 cells"),
        ("slide_id,mpp\n", "found no rows; expected a row per slide"),
        ("", "no column slide_id or .* among none"),
    ],
)
def test_tables_with_faults(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(GimpError, match=said):
        read_overrides(str(tmp_path / "t.csv"), None)


@pytest.mark.parametrize("given", ["absent.csv", "-1", "0", "1000"])
def test_values_with_faults(given):
    with pytest.raises(GimpError, match="--mpp-override"):
        read_overrides(given, None)
