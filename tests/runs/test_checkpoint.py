"""States of a run on disk: whole or not there, the last few kept, damage found and passed over."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from gimp_fast.errors import GimpError
from gimp_fast.runs.checkpoint import (
    RecentCheckpoints,
    load_checkpoint,
    save_checkpoint,
)

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3).T,
    "b": torch.tensor(True),
    "c": torch.empty(0, 4),
    "d": torch.ones(3, dtype=torch.bfloat16),
}


def test_round_trip(tmp_path):
    state = {"epoch": 3, "best": None, "value": 0.1 + 0.2}
    save_checkpoint(tmp_path / "x.safetensors", TENSORS, state)
    tensors, found = load_checkpoint(tmp_path / "x.safetensors")
    assert found == state
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_the_same_content_is_the_same_bytes(tmp_path):
    state = {"text": 'é "quoted" \\ \n \x1b \u2028', "epoch": 1}
    for number in range(12):
        save_checkpoint(tmp_path / f"{number}.safetensors", TENSORS, state)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert load_checkpoint(tmp_path / "0.safetensors")[1] == state


@pytest.mark.parametrize("part", range(8))
def test_damage_anywhere_is_found(tmp_path, part):
    file = tmp_path / "x.safetensors"
    save_checkpoint(file, {"a": torch.arange(400.0)}, {"epoch": 3, "text": "x" * 300})
    content = bytearray(file.read_bytes())
    content[int((part + 0.5) / 8 * len(content))] ^= 16
    file.write_bytes(content)
    with pytest.raises(GimpError, match=str(file)):
        load_checkpoint(file)


@pytest.mark.parametrize("content", [None, b"", b"x" * 50])
def test_files_that_are_no_checkpoint(tmp_path, content):
    file = tmp_path / "x.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(GimpError, match="not a readable checkpoint"):
        load_checkpoint(file)


def test_a_foreign_safetensors_file(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(GimpError, match="expected a gimp_fast checkpoint"):
        load_checkpoint(tmp_path / "x.safetensors")


def save(recent: RecentCheckpoints, number: int) -> None:
    recent.save({"n": torch.tensor(number)}, {"number": number})


def test_the_last_few_are_kept(tmp_path):
    recent = RecentCheckpoints(tmp_path, 3)
    assert recent.load(print) is None
    for number in range(5):
        save(recent, number)
        assert recent.load(print)[1] == {"number": number}
    kept = {p.name: load_checkpoint(p)[1]["number"] for p in tmp_path.iterdir()}
    assert kept == {"last.safetensors": 4, "last-1.safetensors": 3, "last-2.safetensors": 2}


def test_a_damaged_newest_falls_back_and_says_so(tmp_path):
    recent, said = RecentCheckpoints(tmp_path, 2), []
    save(recent, 1)
    save(recent, 2)
    (tmp_path / "last.safetensors").write_bytes(b"half of")
    assert recent.load(said.append)[1] == {"number": 1}
    assert len(said) == 1
    assert "last.safetensors: not a readable checkpoint" in said[0]
    assert "continuing from last-1.safetensors" in said[0]
    (tmp_path / "last-1.safetensors").write_bytes(b"")
    with pytest.raises(GimpError, match="no checkpoint to continue from"):
        recent.load(said.append)


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def no_links(source, target):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", no_links)
    recent = RecentCheckpoints(tmp_path, 2)
    for number in range(3):
        save(recent, number)
    assert recent.load(print)[1] == {"number": 2}
    assert load_checkpoint(tmp_path / "last-1.safetensors")[1] == {"number": 1}


def test_a_run_goes_on_from_the_state_before_a_damaged_one(cohort_folder, tmp_path):
    from gimp_fast.training import load_config, train

    settings = ["model.dim=8", "model.heads=2", "model.num_landmarks=4", "model.head_hidden=8"]
    settings += ["genes.epochs=2", "pretrain.epochs=1", "pretrain.window=8", "finetune.epochs=3"]
    config = load_config(overrides=[*settings, "bootstrap=20", "threads=1", "device=cpu"])
    said = []
    runs = [tmp_path / "whole", tmp_path / "damaged"]
    for run in runs:
        train(config, cohort_folder, run, log=said.append)
    damaged = runs[1] / "checkpoints" / "last.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    said.clear()
    train(config, cohort_folder, runs[1], resume=True, log=said.append)
    assert any("continuing from last-1.safetensors" in text for text in said)
    assert any("resuming after finetune epoch 2" in text for text in said)
    a, b = (load_checkpoint(run / "checkpoints" / "last.safetensors") for run in runs)
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    rows = [json.loads(line)["epoch"] for line in (runs[1] / "metrics.jsonl").open()]
    assert rows == [1, 2, 1, 1, 2, 3]
