"""``--preset paper`` against what the paper says."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from gimp_fast.training import load_config

PAPER = Path(__file__).resolve().parents[2] / "docs" / "paper.md"
# Section and statement -> settings.
STATED = {
    "2.3 the fixed subsequence length L is 6,000": {"pretrain.window": 6000},
    "2.3 the masking ratio is 50 %": {"pretrain.mask_ratio": 0.5},
    "2.3 a two-layer Nyström-based patch aggregator": {"model.num_layers": 2},
    "eq. 3, a sum": {"pretrain.reconstruction": "sum"},
    "eq. 4, δ = 0.8": {"pretrain.margin": 0.8, "pretrain.normalize": False},
    "2.3 L_pre = L_tri + L_rec": {
        "pretrain.reconstruction_weight": 1.0,
        "pretrain.triplet_weight": 1.0,
    },
    "2.3 triplets of CLS_pat": {"pretrain.triplets": "patient"},
    "3.1 GroupMSA is frozen": {"finetune.freeze_genes": True, "model.gene_encoder": "group_msa"},
    "3.1 100 epochs of pre-training, the last kept": {
        "pretrain.epochs": 100,
        "pretrain.keep": "last",
    },
    "3.1 at most 70 epochs of fine-tuning": {"finetune.epochs": 70},
    "3.1 learning rate 1e-4": {"genes.lr": 1e-4, "pretrain.lr": 1e-4, "finetune.lr": 1e-4},
    "2.3 P̂ = softmax(MLP(CLS_pat))": {"model.fusion": "head"},
}


def value(config, setting):
    for name in setting.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("statement", STATED)
def test_the_preset_is_the_paper(statement):
    config = load_config("paper")
    for setting, expected in STATED[statement].items():
        assert value(config, setting) == expected


def test_the_page_of_the_paper_names_settings_as_they_are():
    config = load_config("paper")
    named = re.findall(
        r"`((?:model|genes|pretrain|finetune)\.\w+)=([^`]+)`", PAPER.read_text("utf-8")
    )
    stated = [(name, yaml.safe_load(text)) for name, text in named]
    ours = {("pretrain.normalize", True), ("model.fusion", "validated")}  # of other presets
    assert len(stated) > 10
    for name, expected in stated:
        assert value(config, name) == expected or (name, expected) in ours


def test_presets_set_only_what_they_change():
    """A default that a preset repeats would hide what the preset is about."""
    text = (resources.files("gimp_fast.training") / "presets" / "paper.yaml").read_text("utf-8")
    assert "model" not in yaml.safe_load(text)
