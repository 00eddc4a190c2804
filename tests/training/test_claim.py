"""What a run resumes with, and what is said about settings that were asked otherwise."""

from __future__ import annotations

import json

import pytest
import yaml

import gimp_fast
from gimp_fast.errors import GimpError
from gimp_fast.training.claim import resumed_config
from gimp_fast.training.config import asked_values, load_config


@pytest.fixture
def saved(tmp_path):
    """A folder with the configuration of a run: the preset small, with another lr and method."""

    def save(*overrides: str):
        config = load_config("small", overrides=["finetune.lr=3e-3", *overrides])
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return tmp_path, config

    return save


def test_nothing_asked_is_the_saved_configuration(saved):
    run, config = saved()
    assert resumed_config(run, {}) == (config, [])


def test_the_same_asked_again_is_no_difference(saved):
    run, config = saved()
    assert resumed_config(run, asked_values("small", overrides=["finetune.lr=3e-3"])) == (
        config,
        [],
    )


def test_every_difference_asked_for_is_listed_and_no_other(saved):
    run, config = saved()
    asked = asked_values(overrides=["seed=5", "finetune.lr=1e-3", "model.dim=32", "precision=fp32"])
    resumed, lines = resumed_config(run, asked)
    assert resumed == config
    assert lines == [
        f"{run}: resumes with its saved configuration. Asked otherwise, and NOT used:",
        "  seed         saved 0, asked 5",
        f"  model.dim    saved {config.model.dim}, asked 32",
        "  finetune.lr  saved 0.003, asked 0.001",
        "To train with other settings, choose another --out.",
    ]


def test_another_preset_and_a_file_are_asked_for_too(saved, tmp_path):
    run, config = saved()
    file = tmp_path / "mine.yaml"
    file.write_text("finetune: {epochs: 3}\n", encoding="utf-8")
    resumed, lines = resumed_config(run, asked_values("paper", file))
    assert resumed == config
    paper = load_config("paper")
    expected = f"saved {config.pretrain.window}, asked {paper.pretrain.window}"
    assert any(line.split() == ["pretrain.window", *expected.split()] for line in lines)
    epochs = f"saved {config.finetune.epochs}, asked 3"
    assert any(line.split() == ["finetune.epochs", *epochs.split()] for line in lines)


def test_settings_without_effect_on_the_result_are_taken(saved):
    run, config = saved()
    resumed, lines = resumed_config(run, asked_values(overrides=["workers=0", "save_minutes=1"]))
    assert lines == []
    assert resumed == config.model_copy(update={"workers": 0, "save_minutes": 1.0})


def test_another_method_is_listed_by_its_name(saved):
    run, config = saved()
    resumed, lines = resumed_config(run, {"method": "mcat"})
    assert resumed == config
    assert lines[1:-1] == ["  method  saved 'gimp', asked 'mcat'"]
    assert resumed_config(run, {"method": "abmil", "model": {"dim": 8}})[0] == config


def test_a_comparator_resumes_with_its_own_architecture(saved):
    run, config = saved("method=abmil")
    resumed, lines = resumed_config(run, asked_values(overrides=["model.dim=8"]))
    assert resumed == config
    assert lines[1].split() == ["model.dim", "saved", f"{config.model.dim},", "asked", "8"]


def test_what_is_asked_must_be_valid(saved):
    run, _ = saved()
    with pytest.raises(GimpError, match=r"asked for: finetune\.lrr: .*did you mean 'finetune.lr'"):
        resumed_config(run, asked_values(overrides=["finetune.lrr=1"]))


def test_the_saved_configuration_is_read_with_care(saved):
    run, _ = saved()
    (run / "config.yaml").write_text("seed: !!int x\n", encoding="utf-8")
    with pytest.raises(GimpError, match=r"config\.yaml: line 1, column 7: found 'x'"):
        resumed_config(run, {})


def test_the_verb_resumes_in_the_same_way(cohort_folder, tmp_path):
    quick = {
        "finetune": {"epochs": 1}, "model": {"dim": 8}, "bootstrap": 20, "threads": 1,
    }  # fmt: skip
    out = {"method": "abmil", "report": False}
    first = gimp_fast.train_model(cohort_folder, tmp_path, log=lambda line: None, **out, **quick)
    lines: list[str] = []
    again = gimp_fast.train_model(
        cohort_folder, tmp_path, resume=True, seed=9, report=False, log=lines.append
    )
    assert json.dumps(again) == json.dumps(first)
    assert "  seed  saved 0, asked 9" in lines
