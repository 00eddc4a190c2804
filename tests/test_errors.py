"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest

from gimp_fast.errors import did_you_mean, nearest, one_of

METHODS = ("abmil", "clam_sb", "clam_mb", "transmil", "gimp")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("transmill", "transmil"),
        ("TransMIL", "transmil"),
        ("CLAM-SB", "clam_sb"),
        ("clamsb", "clam_sb"),
        ("gmip", "gimp"),
        ("resnet", None),
        ("", None),
        ("x" * 100_000, None),
        (7, None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_the_nearest_name(name, meant):
    assert nearest(name, METHODS) == ([] if meant is None else [meant])
    assert did_you_mean(name, METHODS) == ("" if meant is None else f"; did you mean '{meant}'?")


def test_several_nearest_names_come_in_order():
    slides = ["TCGA-05-4244-01Z-00-DX1", "TCGA-05-4245-01Z-00-DX1", "other"]
    assert nearest("TCGA-05-4244-01Z-00-DX2", slides, most=3) == slides[:2]


def test_what_was_expected_instead():
    assert one_of("smal", ("demo", "small")) == "one of demo, small; did you mean 'small'?"
    assert one_of("x", ("only",)) == "only"
    assert one_of("x", ()) == "nothing: there are no names to choose from"
    assert one_of("abc", range(1000, 1100)).endswith("1029 and 70 more")
