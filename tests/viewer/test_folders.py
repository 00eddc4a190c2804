"""Folders that are maps, runs with maps, or neither; tables that are damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import maps

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.viewer import open_maps
from gimp_fast.viewer.catalogue import catalogue
from gimp_fast.viewer.genes import read_genes
from gimp_fast.viewer.patches import read_patches


def test_maps_and_the_run_that_has_them_are_the_same(map_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "heatmaps").symlink_to(map_folder)
    opened = open_maps(tmp_path / "run")
    assert [case.case_id for case in opened.patients] == ["A", "B", "C"]
    assert open_maps(map_folder).patients == opened.patients


def test_a_run_names_its_maps(tmp_path):
    maps.write_maps(tmp_path / "first" / "heatmaps", [maps.case("A", [])])
    assert open_maps(tmp_path / "first").name == "first"
    assert open_maps(tmp_path / "first" / "heatmaps").name == "first"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found no heatmaps.json"),
        ("{}", "found no patient"),
        ("not JSON", "found no patient"),
        ('{"patients": []}', "found no patient"),
        ('{"patients": 3}', "found no patient"),
        ('{"cohort": 5, "patients": [{"case_id": "A", "slides": []}]}', "found cohort in another"),
        (
            '{"patients": [{"case_id": "A", "slides": [], "probabilities": {"a": "x"}}]}',
            r"found patients\.0\.probabilities\.a in another shape",
        ),
    ],
)
def test_what_holds_no_maps_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "heatmaps.json").write_text(text)
    with pytest.raises(GimpError, match=message):
        open_maps(tmp_path)


def test_a_summary_may_not_name_files_elsewhere(tmp_path):
    slide = {"folder": "..", "slide_id": "A-1", "files": {"patches": "secret.csv"}}
    maps.write_maps(tmp_path / "maps", [maps.case("A", [slide])])
    with pytest.raises(FaultError, match="outside"):
        open_maps(tmp_path / "maps")


def test_several_folders_share_patients_and_slides(map_folder, tmp_path):
    slide = maps.slide_map(
        tmp_path / "other", "B-2", maps.patch_table("B-2", maps.blob(2, 2, 4), np.arange(4.0))
    )
    maps.write_maps(tmp_path / "other", [maps.case("B", [slide]), maps.case("D", [])])
    start = catalogue([open_maps(map_folder), open_maps(tmp_path / "other")])
    assert [case["case_id"] for case in start["cases"]] == ["A", "B", "C", "D"]
    assert [[m is not None for m in case["maps"]] for case in start["cases"]] == [
        [True, False], [True, True], [True, False], [False, True]
    ]  # fmt: skip
    assert start["cases"][1]["maps"][1]["slides"][0]["number"] == start["slides"].index("B-2")


def test_folders_of_one_name_are_told_apart_by_their_paths(map_folder):
    start = catalogue([open_maps(map_folder)] * 2)
    assert [folder["name"] for folder in start["folders"]] == [str(map_folder)] * 2
    assert catalogue([open_maps(map_folder)])["folders"][0]["name"] == "maps"


def test_flat_maps_begin_with_the_absolute_scale(tmp_path):
    flat = {"highest_times_even": 1.02, "effective_share": 0.999, "flat": True}
    maps.write_maps(tmp_path, [maps.case("A", [], attention=flat), maps.case("B", [])])
    start = catalogue([open_maps(tmp_path)])
    assert [case["maps"][0]["scale"] for case in start["cases"]] == ["times-even", "percentile"]
    json.dumps(start, allow_nan=False)


HEADER = "slide_id,row,x,y,patch_size,unit,attention,times_even,percentile,rank\n"
DAMAGED = {
    "empty": "",
    "text": HEADER + "a,0,0,0,256,px,many,1,50,1\n",
    "gap": HEADER + "a,0,0,0,256,px,1,,50,1\n",
    "infinite": HEADER + "a,0,0,0,256,px,1,inf,50,1\n",
    "ranks": HEADER + "a,0,0,0,256,px,1,1,25,1\na,1,0,0,256,px,1,1,75,1\n",
    "cut": HEADER + "a,0,0,0,256",
    "no-column": HEADER.replace("rank", "place"),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_table_is_a_fault_that_names_it(tmp_path, text):
    file = tmp_path / "patches.csv"
    file.write_text(text)
    with pytest.raises(FaultError, match=r"patches\.csv"):
        read_patches(file)
    with pytest.raises(FaultError, match=r"patches\.csv"):
        read_genes(file)


def test_no_patch_and_unknown_places_are_read(tmp_path):
    file = tmp_path / "patches.csv"
    file.write_text(HEADER)
    assert len(read_patches(file)) == 0
    file.write_text(HEADER + "a,,,,,,1,1,50,1\n")
    columns = read_patches(file).columns
    assert np.isnan([columns["x"][0], columns["y"][0]]).all()
    assert columns["row"].tolist() == [-1]


def test_places_on_the_bar_are_those_of_the_pictures(tmp_path):
    """Half an even share is at 0, an even share at a quarter, 8 times at 100."""
    table = maps.patch_table("a", maps.blob(4, 1, 4), np.arange(1.0, 5.0))
    table["times_even"] = [0.25, 0.5, 1.0, 16.0]
    table.to_csv(tmp_path / "patches.csv", index=False)
    found = read_patches(tmp_path / "patches.csv")
    assert found.columns["even_place"].tolist() == [0, 0, 25, 100]
    assert found.highest(2).tolist() == [3, 2]
