"""One mistake in what is given is one fault, found first; what follows from it is not listed."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders.prepare_inputs import CASES, Inputs

from gimp_fast import prepare
from gimp_fast.data.prepare import assemble
from gimp_fast.data.synthetic import patients
from gimp_fast.data.tables.labels import read_labels
from gimp_fast.files.locks import lock_file


def missing_folder(inputs: Inputs) -> None:
    shutil.rmtree(inputs.slides)


def whole_slide_images(inputs: Inputs) -> None:
    missing_folder(inputs)
    inputs.slides.mkdir()
    for case, suffix in zip(CASES, (".svs", ".NDPI", ".mrxs", ".ome.tif") * 8, strict=False):
        (inputs.slides / f"{case}-01Z{suffix}").touch()


def other_slides(inputs: Inputs) -> None:
    for file in inputs.slides.iterdir():
        file.rename(file.with_name(f"other-{file.name}"))


def empty_folder(inputs: Inputs) -> None:
    missing_folder(inputs)
    inputs.slides.mkdir()


def one_level_up(inputs: Inputs) -> None:
    deeper = inputs.slides / "h5_files"
    deeper.mkdir()
    for file in inputs.slides.glob("*.h5"):
        file.rename(deeper / file.name)


def other_rna(inputs: Inputs) -> None:
    text = inputs.rna.read_text(encoding="utf-8")
    inputs.rna.write_text(text.replace("TCGA", "OTHR"), encoding="utf-8")


def column(old: str, new: str):
    def change(inputs: Inputs) -> None:
        text = inputs.labels.read_text(encoding="utf-8")
        inputs.labels.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


MISTAKES = {
    "no folder of slides": (missing_folder, "missing-file", "no such folder"),
    "an empty folder": (empty_folder, "missing-file", "no feature file directly inside"),
    "a folder too high": (one_level_up, "missing-file", r"there are some in 'h5_files'"),
    "images": (whole_slide_images, "whole-slide-images", r"29 more .*`gimp-fast extract`"),
    "slides of others": (other_slides, "no-slides", "none of the 30 .*'TCGA.*30 .*'other-"),
    "no labels": (lambda inputs: inputs.labels.unlink(), "missing-file", "labels.csv"),
    "label column": (column("label", "subtype"), "missing-column", "labels.csv"),
    "patient column": (column("case_id", "who"), "missing-column", "labels.csv"),
    "RNA of others": (other_rna, "no-samples", "none of 30 labelled patients"),
    "no RNA": (lambda inputs: inputs.rna.unlink(), "missing-file", "rna.tsv"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_is_one_fault_and_no_slide_is_read_for_it(
    mistake, tmp_path, capsys, monkeypatch
):
    inputs = Inputs(tmp_path / "in")
    change, kind, words = MISTAKES[mistake]
    change(inputs)
    monkeypatch.setattr(assemble, "read_slides", lambda *arguments: pytest.fail("slides were read"))
    assert prepare.main(inputs.argv()) == 2
    said = capsys.readouterr().err
    assert re.findall(r"\[([a-z-]+)\]", said) == [kind]
    assert re.search(words, said)
    assert len(said.splitlines()) <= 2


def test_all_given_things_that_are_wrong_are_told_at_once(tmp_path, capsys):
    inputs = Inputs(tmp_path / "in")
    missing_folder(inputs)
    inputs.rna.unlink()
    column("label", "subtype")(inputs)
    assert prepare.main(inputs.argv()) == 2
    kinds = re.findall(r"\[([a-z-]+)\]", capsys.readouterr().err)
    assert sorted(kinds) == ["missing-column", "missing-file", "missing-file"]


def test_hundreds_of_faults_are_shown_by_five_and_all_are_in_the_report(tmp_path, capsys):
    inputs = Inputs(tmp_path / "in")
    report = inputs.folder / "faults.json"
    header, *rows = inputs.labels.read_text(encoding="utf-8").splitlines()
    inputs.labels.write_text("\n".join([header, *rows * 11]) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--report", report)) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) < 12
    assert f"… and 295 more [duplicate-slide], all in {report}" in said
    assert len(json.loads(report.read_text(encoding="utf-8"))["faults"]) == 300


def test_some_missing_slides_are_listed_beside_faults_of_others(tmp_path, capsys):
    inputs = Inputs(tmp_path / "in")
    for case in CASES[:12]:
        (inputs.slides / f"{case}-01Z.h5").unlink()
    with h5py.File(inputs.slides / f"{CASES[20]}-01Z.h5", "w") as h5:
        h5["features"] = np.full((3, 4), np.nan, np.float32)
    assert prepare.main(inputs.argv()) == 2
    said = capsys.readouterr().err
    assert "… and 7 more [missing-slide-file]" in said
    assert "by kind: 12 missing-slide-file, 1 features-not-finite" in said


def test_labels_are_what_the_cases_above_change(tmp_path):
    inputs = Inputs(tmp_path / "in")
    assert len(read_labels(inputs.labels).value) == 30


def test_two_commands_do_not_generate_patients_in_one_folder(tmp_path, capsys):
    out = tmp_path / "demo"
    with claim_elsewhere(out):
        assert prepare.main(["--synthetic", "--patients", "20", "--out", str(out)]) == 2
    assert "another command is at work there" in capsys.readouterr().err
    assert not (out / "raw").exists()


@contextlib.contextmanager
def claim_elsewhere(folder: Path) -> Iterator[None]:
    """Another command starts in the folder just after this one has found it free."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as held:

        def found_free(path: Path) -> None:
            path.mkdir()
            held.enter_context(lock_file(path / ".lock"))

        patch.setattr(patients, "check_free", found_free)
        yield
