"""What a run keeps of its patients: hashes and digests, found again, and safe to read."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from gimp_fast.data.cohort_files import MANIFEST, SLIDE_MEANS
from gimp_fast.data.known_patients import KnownPatients
from gimp_fast.errors import GimpError

SALT = "0123"


@pytest.fixture
def known(cohort):
    return KnownPatients.of(cohort, cohort.split("split_0"), salt=SALT)


def test_patients_of_training_and_validation_are_found(cohort, known):
    split = cohort.split("split_0")
    found = known.find(cohort, cohort.case_ids)
    assert {case: sighting.part for case, sighting in found.items()} == {
        case: part for part in ("train", "val") for case in split[part]
    }
    assert {sighting.same for sighting in found.values()} == {("id", "expression", "features")}
    assert known.cannot_compare(cohort) == []


@pytest.mark.parametrize(
    "alias", ["TCGA-05-4244-01A-01R-1107-07", "tcga-05-4244", " TCGA-05-4244 "]
)
def test_ids_are_compared_as_patients(cohort, known, monkeypatch, alias):
    split = {"train": ["TCGA-05-4244"], "val": [], "test": []}
    monkeypatch.setattr(cohort, "has_expression", lambda case: False)
    monkeypatch.setattr(cohort, "has_slides", set(cohort.case_ids).__contains__)
    known = KnownPatients.of(cohort, split, salt=SALT)
    found = known.find(cohort, [alias, "TCGA-05-4245"])
    assert list(found) == [alias]
    assert str(found[alias]) == "of the training patients: same id"


def test_no_id_is_kept_and_the_salt_changes_all_hashes(cohort, known):
    text = json.dumps(known.as_dict())
    assert not [case for case in cohort.case_ids if case in text]
    other = KnownPatients.of(cohort, cohort.split("split_0"), salt="another")
    assert not set(known.ids) & set(other.ids)


def test_json_keeps_all(cohort, known):
    again = KnownPatients.from_dict(json.loads(json.dumps(known.as_dict())), "x")
    assert again.as_dict() == known.as_dict()
    cases = cohort.case_ids
    assert again.find(cohort, cases) == known.find(cohort, cases)


ODD = [None, 1, "x", [], {}, [1], [[1]], {"a": 1}, "====", -1, 1e400, ["train"], True]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_digests_are_refused_or_harmless(cohort, known, value):
    """Any value in any place: an error that names the file, or an answer."""
    whole = known.as_dict()
    places = [(), *((key,) for key in whole)]
    places += [(key, inner) for key in ("expression", "slides") for inner in whole[key]]
    for place in places:
        changed = copy.deepcopy(whole)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        if place:
            inside[place[-1]] = value
        message = "x: "
        try:
            KnownPatients.from_dict(changed if place else value, "x").find(cohort, cohort.case_ids)
        except GimpError as error:
            message = str(error)
        assert message.startswith("x: ")


def test_a_cohort_of_an_earlier_version_is_not_compared_by_features(cohort, known):
    manifest = cohort.path / MANIFEST
    cohort.path = cohort.path.parent / "older"
    cohort.path.mkdir(exist_ok=True)
    values = json.loads(manifest.read_text(encoding="utf-8"))
    del values["slide_means_checksum"]
    (cohort.path / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
    (note,) = known.cannot_compare(cohort)
    assert note.endswith("was prepared by an earlier version")
    case = cohort.split("split_0")["train"][0]
    assert known.find(cohort, [case])[case].same == ("id", "expression")


def test_mean_features_that_were_changed_are_refused(cohort, known, tmp_path):
    for name in (MANIFEST, SLIDE_MEANS):
        (tmp_path / name).write_bytes((cohort.path / name).read_bytes())
    cohort.path = tmp_path
    assert known.find(cohort, cohort.case_ids)
    means = np.load(tmp_path / SLIDE_MEANS)
    means[0, 0] += 1
    np.save(tmp_path / SLIDE_MEANS, means)
    with pytest.raises(GimpError, match=r"slide_means\.npy: does not match its checksum"):
        known.find(cohort, cohort.case_ids)
