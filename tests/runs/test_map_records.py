"""What lies in a folder of maps is read as it was written, and names nothing outside it."""

from __future__ import annotations

import json

import pytest

from gimp_fast.errors import FaultError
from gimp_fast.runs.map_records import read_finished, read_maps, read_verdicts

SLIDE = {"slide_id": "a", "folder": "a", "files": {"thumbnail": "thumbnail.png"}}
SECRET = "a secret"


def summary(**slide) -> dict:
    return {"patients": [{"case_id": "C", "slides": [SLIDE | slide], "genes": None}]}


@pytest.fixture
def maps(tmp_path):
    (tmp_path / "secret.png").write_text(SECRET)
    folder = tmp_path / "heatmaps"
    (folder / "a").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def put(maps, content) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (maps / "heatmaps.json").write_text(text, encoding="utf-8")


def test_a_summary_is_read(maps):
    put(maps, summary())
    assert read_maps(maps) == summary()


OUTSIDE = {
    "folder up": {"folder": "../"},
    "folder absolute": {"folder": "/etc", "files": {"thumbnail": "passwd"}},
    "file up": {"files": {"thumbnail": "../../secret.png"}},
    "file absolute": {"files": {"overlay": "/etc/passwd"}},
    "link to a folder": {"folder": "out", "files": {"thumbnail": "secret.png"}},
    "link to a file": {"files": {"thumbnail": "link.png"}},
    "NUL": {"folder": "a\0b"},
    "a name of 10,000 characters": {"folder": "../" + "x" * 10_000},
}


@pytest.mark.parametrize("slide", OUTSIDE.values(), ids=OUTSIDE)
def test_files_outside_the_folder_are_refused(maps, slide):
    put(maps, summary(**slide))
    with pytest.raises(FaultError, match=r"heatmaps\.json: found the file .* inside") as caught:
        read_maps(maps)
    assert caught.value.faults[0].kind == "outside-file"
    record = SLIDE | {"settings": {}, "patient": {"case_id": "C"}} | slide
    (maps / "a" / "slide.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(FaultError, match=r"slide\.json"):
        read_finished(maps / "a" / "slide.json", maps)


ODD = {
    "a number": {"patients": 1}, "numbers": {"patients": [1]}, "null": {"patients": None},
    "text": {"patients": "abc"}, "an object": {"patients": {}}, "no case": {"patients": [{}]},
    "slides": {"patients": [{"case_id": "C", "slides": 1}]},
    "a case of another type": {"patients": [{"case_id": 1, "slides": []}]},
    "files": summary(files=[1]), "a folder of another type": summary(folder=1),
    "a file of another type": summary(files={"thumbnail": {}}),
    "genes": {"patients": [{"case_id": "C", "slides": [], "genes": 3}]},
    "attention": {"patients": [{"case_id": "C", "slides": [], "attention": {"flat": "x"}}]},
    "attribution": {"attribution": [], "patients": []}, "settings": {"settings": 1},
    "a list": [1], "deep": "[" * 100_000, "deep object": '{"a":' * 100_000, "nothing": "",
}  # fmt: skip


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_what_is_no_summary_is_taken_as_none(maps, content):
    put(maps, content)
    assert read_maps(maps) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', '{"settings": 1, "patient": 2}'])
def test_a_map_without_its_record_is_not_finished(maps, text):
    (maps / "a" / "slide.json").write_text(text, encoding="utf-8")
    assert read_finished(maps / "a" / "slide.json", maps) == {}


CHECK = {
    "settings": {"weights": "w", "attribution": "rollout"},
    "kinds": {"genes": {"finding": "chance", "verdict": "No better."}},
}


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (CHECK, [("chance", "No better.")]),
        (CHECK | {"settings": CHECK["settings"] | {"weights": "other"}}, []),
        (CHECK | {"settings": CHECK["settings"] | {"target": "os"}}, []),
        (CHECK | {"kinds": {"genes": {"finding": "chance", "verdict": 1}}}, []),
        (CHECK | {"kinds": [1]}, []),
        ({}, []),
    ],
    ids=["as made", "other weights", "another target", "odd verdict", "a list", "nothing"],
)
def test_verdicts_are_those_of_the_weights_of_the_maps(maps, check, expected):
    put(maps, summary() | {"settings": CHECK["settings"]})
    (maps / "faithfulness.json").write_text(json.dumps(check), encoding="utf-8")
    assert read_verdicts(maps) == expected
