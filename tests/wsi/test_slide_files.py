"""Which slides are extracted, under which ids, and in which part."""

from __future__ import annotations

from pathlib import Path

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.wsi.slide_files import find_slides, share, slide_id_of


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
    for name in ("b.svs", "a.ndpi", "notes.txt", "._b.svs", "uuid/c.svs", ".Trash/d.svs"):
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


def test_a_folder_without_slides_is_named_with_a_hint(folder):
    with pytest.raises(GimpError, match=r"found no slide; .*\.svs.*--recursive"):
        find_slides([folder], ["*.mrxs.svs"])
    with pytest.raises(GimpError, match="found no such folder or file"):
        find_slides([folder / "absent"])


def test_two_slides_of_the_same_id_are_a_fault(folder):
    (folder / "b.tif").write_bytes(b"x")
    with pytest.raises(GimpError, match=r"b: found .*b\.svs, .*b\.tif"):
        find_slides([folder])


@pytest.mark.parametrize("number", [0, 1, 7, 8])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_parts_are_a_partition_of_even_sizes(number, count):
    slides = [Path(f"{n}.svs") for n in range(number)]
    shares = [share(slides, f"{n}/{count}") for n in range(1, count + 1)]
    assert sorted(path for part in shares for path in part) == slides
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert share(slides, None) == slides


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_parts_that_do_not_exist(text):
    with pytest.raises(GimpError, match=r"--shard: found .*expected i/n"):
        share([], text)
