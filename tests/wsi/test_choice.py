"""Which slides, whose share, and resolutions that the user tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.wsi.choice import find_slides, read_overrides, share, slide_id_of


@pytest.mark.parametrize(
    ("name", "slide_id"),
    [
        ("TCGA-2Y-A9GS-01Z-00-DX1.75C5CEF1-6C8B.svs", "TCGA-2Y-A9GS-01Z-00-DX1.75C5CEF1-6C8B"),
        ("a.b.NDPI", "a.b"),
        ("a.ome.tif", "a"),
        ("a.ome.tiff", "a"),
        ("a.qptiff", "a"),
    ],
)
def test_the_slide_id_is_the_name_without_its_ending(name, slide_id):
    assert slide_id_of(Path("x") / name) == slide_id


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b.svs", "a.ndpi", "notes.txt", ".hidden.svs", "uuid/c.svs"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(paths) -> list[str]:
    return [path.name for path in paths]


def test_slides_of_a_folder(folder):
    assert names(find_slides([folder])) == ["a.ndpi", "b.svs"]
    assert names(find_slides([folder], recursive=True)) == ["a.ndpi", "b.svs", "c.svs"]
    assert names(find_slides([folder], ["*.svs"])) == ["b.svs"]
    assert names(find_slides([folder / "uuid", folder / "b.svs"])) == ["b.svs", "c.svs"]
    assert names(find_slides([folder / "b.svs", folder])) == ["a.ndpi", "b.svs"]


def test_no_slides_is_said_with_a_hint(folder):
    with pytest.raises(GimpError, match=r"found no slide; .*\.svs.*--recursive"):
        find_slides([folder], ["*.mrxs.svs"])
    with pytest.raises(GimpError, match="found no such folder or file"):
        find_slides([folder / "absent"])


def test_two_slides_of_one_id_would_collide(folder):
    (folder / "b.tif").write_bytes(b"x")
    with pytest.raises(GimpError, match=r"b: found .*b\.svs, .*b\.tif"):
        find_slides([folder])


@pytest.mark.parametrize("number", [0, 1, 7, 8])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_are_a_partition_of_even_sizes(number, count):
    slides = [Path(f"{n}.svs") for n in range(number)]
    shares = [share(slides, f"{n}/{count}") for n in range(1, count + 1)]
    assert sorted(path for part in shares for path in part) == slides
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert share(slides, None) == slides


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_shares_that_do_not_exist(text):
    with pytest.raises(GimpError, match=r"--shard: found .*expected i/n"):
        share([], text)


def test_a_value_is_for_slides_that_do_not_tell():
    override = read_overrides("0.25", None).of(Path("a.svs"))
    assert (override.mpp, override.always, override.source) == (0.25, False, "--mpp-override 0.25")
    override = read_overrides(None, "40").of(Path("a.svs"))
    assert (override.mpp, override.always) == (0.25, False)
    assert read_overrides(None, None).of(Path("a.svs")) is None


def test_a_table_is_for_its_slides_whatever_they_tell(tmp_path):
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
        (
            "slide,magnification\na,40\n",
            "found slide, magnification; expected columns slide_id and",
        ),
        ("", "found no rows"),
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
