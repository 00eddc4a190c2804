"""Exported models: the same probabilities, whole or not at all, and nothing is lost by accident."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from safetensors import safe_open

import gimp_fast
from gimp_fast.errors import GimpError
from gimp_fast.inference import load
from gimp_fast.inference.card import model_card
from gimp_fast.inference.export import export_model, exported_facts
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.gene_list import read_gene_reference
from gimp_fast.runs.layout import EXPORT_FILES


@pytest.fixture
def exported(gimp_run, tmp_path):
    export_model(gimp_fast.load(gimp_run), tmp_path / "model")
    return tmp_path / "model"


def test_an_export_predicts_bit_for_bit_what_the_run_does(any_run, cohort, tmp_path):
    run = gimp_fast.load(any_run)
    export_model(run, tmp_path / "model")
    exported = gimp_fast.load(tmp_path / "model")
    assert repr(exported) == repr(run)
    a, b = (predict_cohort([trained], cohort).table for trained in (run, exported))
    assert a.equals(b)
    # An export of an export is the same model as well.
    export_model(exported, tmp_path / "again")
    again = gimp_fast.load(tmp_path / "again")
    assert predict_cohort([again], cohort).table.equals(a)


def test_what_is_in_the_folder(exported, cohort):
    assert sorted(path.name for path in exported.iterdir()) == sorted(EXPORT_FILES)
    assert (exported / "model.safetensors").stat().st_mode & 0o777 == 0o644
    trained = gimp_fast.load(exported)
    with safe_open(exported / "model.safetensors", framework="numpy") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"model", "scaler"}  # noqa: SIM118
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert config["classes"] == list(cohort.classes)
    assert config["cohort"]["expression_transform"] == cohort.expression_transform
    assert config["metrics"]["test"]["accuracy"]["n"] == 8
    assert "gene_ids" not in config["cohort"]
    with (exported / "genes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["gene_id"] for row in rows) == cohort.gene_ids
    for name in ("mean", "std"):
        values = np.array([row[name] for row in rows], np.float32)
        np.testing.assert_array_equal(values, getattr(trained.scaler, name))


def test_places_on_the_training_machine_stay_there(exported, cohort_folder):
    for file in exported.iterdir():
        assert str(cohort_folder.parent).encode() not in file.read_bytes()


def test_the_card_says_what_it_is(exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# gimp: slides and RNA → SYN-A, SYN-B")
    assert "**SYNTHETIC.**" in card
    assert "24 train, 8 val, 8 test" in card
    assert "- test: accuracy " in card
    assert "/8, 95 % CI" in card
    assert "no medical device" in card
    assert "**not for clinical use**" in card
    assert "log2(x+1)" in card


def test_the_card_says_what_each_modality_contributes(exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert "- test, RNA alone: accuracy " in card
    assert "- test, slides alone: accuracy " in card
    assert "never learned to do with one" in card


@pytest.mark.parametrize(("weight", "words"), [(0.0, "slides are not used"), (0.3, "weight 0.3")])
def test_the_card_says_the_weight_of_fusion(gimp_run, weight, words, monkeypatch):
    trained = load(gimp_run)
    monkeypatch.setattr(trained.model, "fusion_weight_of_both", lambda: weight)
    card = model_card(trained, exported_facts(trained))
    assert f"| fusion of both | weight {weight:g}" in card
    assert words in card
    assert f"fusion weight {weight:g} of both" in repr(trained)


def test_names_from_the_data_are_text_in_the_card(gimp_run):
    trained = load(gimp_run)
    trained.classes = ("<script>alert(1)</script>", "a|b\n# c", "\x1b[31m")
    cohort = {"name": "<img src=x>", "split": "a|b", "encoder": "[x](http://y)"}
    trained.facts["cohort"] |= cohort
    facts = exported_facts(trained)
    card = model_card(trained, facts)
    assert "<script" not in card
    assert "<img" not in card
    assert "[x](http" not in card
    assert "\x1b" not in card
    first = card.splitlines()[0]
    assert "&lt;script&gt;" in first
    assert r"a\|b # c" in first
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {3}


def test_a_new_cohort_can_be_aligned_to_it(exported, cohort):
    assert read_gene_reference(exported).gene_ids == cohort.gene_ids


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_the_checksums_are_those_of_sha256sum(exported):
    command = ["sha256sum", "--check", "--strict", "checksums.txt"]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 3


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "genes.csv"])
def test_a_changed_file_is_refused(exported, name):
    content = bytearray((exported / name).read_bytes())
    content[len(content) // 2] ^= 1
    (exported / name).write_bytes(content)
    with pytest.raises(GimpError, match=f"{name}: found SHA-256 .* expected .*damaged or changed"):
        gimp_fast.load(exported)


@pytest.mark.parametrize("name", ["config.json", "genes.csv", "checksums.txt"])
def test_a_lost_file_is_named(exported, name):
    (exported / name).unlink()
    with pytest.raises(GimpError, match=f"{name}: cannot be read"):
        gimp_fast.load(exported)


@pytest.mark.parametrize("text", ["", "x\n", "abc  config.json\n"], ids=["empty", "cut", "partial"])
def test_damaged_checksums(exported, text):
    (exported / "checksums.txt").write_text(text)
    with pytest.raises(GimpError, match=r"checksums\.txt"):
        gimp_fast.load(exported)


@pytest.mark.parametrize(
    "name", ["a\0b", "../model.safetensors", "/etc/passwd", ".", "", "x" * 999]
)
def test_checksums_name_files_of_an_export_alone(exported, name):
    with (exported / "checksums.txt").open("a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(
        GimpError, match=r"checksums\.txt: found a checksum of .*; expected those of"
    ):
        gimp_fast.load(exported)


@pytest.mark.parametrize("name", ["checksums.txt", "genes.csv"])
def test_a_pipe_is_not_waited_for(exported, name):
    (exported / name).unlink()
    os.mkfifo(exported / name)
    with pytest.raises(GimpError, match=f"{name}: cannot be read"):
        gimp_fast.load(exported)


def test_the_card_may_be_edited(exported):
    (exported / "README.md").write_text("ours")
    gimp_fast.load(exported)


def test_an_export_of_another_version(exported, monkeypatch, tmp_path, gimp_run):
    with monkeypatch.context() as later:
        later.setattr("gimp_fast.inference.export.EXPORT_VERSION", 99)
        export_model(gimp_fast.load(gimp_run), tmp_path / "later")
    with pytest.raises(GimpError, match="found export version 99; expected 1"):
        gimp_fast.load(tmp_path / "later")


def test_nothing_is_overwritten_unless_asked(exported, gimp_run, run_of, cohort):
    other = gimp_fast.load(run_of("gimp", "slide"))
    with pytest.raises(GimpError, match="--overwrite"):
        export_model(other, exported)
    assert gimp_fast.load(exported).modalities == "both"
    export_model(other, exported, overwrite=True)
    assert gimp_fast.load(exported).modalities == "slide"
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_will_do(gimp_run, tmp_path, overwrite):
    (tmp_path / "model").mkdir()
    export_model(gimp_fast.load(gimp_run), tmp_path / "model", overwrite=overwrite)
    gimp_fast.load(tmp_path / "model")


def test_what_is_no_export_is_never_replaced(exported, gimp_run, tmp_path):
    trained = gimp_fast.load(gimp_run)
    (exported / "thesis.docx").touch()
    with pytest.raises(GimpError, match=r"found thesis.docx; --overwrite only replaces an export"):
        export_model(trained, exported, overwrite=True)
    assert (exported / "thesis.docx").exists()
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "README.md").touch()
    with pytest.raises(GimpError, match=r"found no model.safetensors"):
        export_model(trained, folder, overwrite=True)
    with pytest.raises(GimpError, match="found a file"):
        export_model(trained, folder / "README.md", overwrite=True)


def test_a_failed_write_leaves_what_was_there(exported, gimp_run, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    monkeypatch.setattr("gimp_fast.inference.export.write_text", fail)
    with pytest.raises(GimpError, match="No space left"):
        export_model(gimp_fast.load(gimp_run), exported, overwrite=True)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert [path.name for path in exported.parent.iterdir()] == ["model"]
