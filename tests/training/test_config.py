"""Presets, files, overrides, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from gimp_fast.errors import FaultError, GimpError
from gimp_fast.training import load_config, presets


def test_every_preset_validates():
    assert {"demo", "paper", "small", "survival"} <= set(presets())
    for name in presets():
        assert load_config(name).finetune.epochs > 0


def test_the_paper_preset_is_the_papers():
    config = load_config("paper")
    assert (config.pretrain.window, config.pretrain.mask_ratio) == (6000, 0.5)
    assert (config.pretrain.margin, config.pretrain.epochs, config.finetune.epochs) == (
        0.8,
        100,
        70,
    )
    assert {config.genes.lr, config.pretrain.lr, config.finetune.lr} == {1e-4}
    model = config.model
    assert (model.dim, model.heads, model.num_landmarks, model.pinv_iterations) == (512, 8, 256, 6)
    assert (model.num_layers, model.conv_kernel) == (2, 33)


def test_overrides_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("finetune: {lr: 0.5, epochs: 7}\nseed: 3\n", encoding="utf-8")
    config = load_config("demo", file, ["finetune.epochs=9", "pretrain.clip_norm=1.5", "split=a"])
    assert (config.finetune.lr, config.finetune.epochs, config.seed) == (0.5, 9, 3)
    assert config.pretrain.clip_norm == 1.5
    assert config.split == "a"
    assert config.model == load_config("demo").model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"preset": "papr"},
            "--preset: found 'papr'; expected one of demo, paper, small, surv",
        ),
        ({"overrides": ["finetune.lr"]}, "found 'finetune.lr'; expected key=value"),
        ({"overrides": ["finetune.lrr=1"]}, r"finetune\.lrr: .*did you mean 'finetune\.lr'"),
        ({"overrides": ["lr=1"]}, r"lr: .*did you mean 'finetune\.lr'"),
        ({"overrides": ["model.dmi=1"]}, r"model\.dmi: .*did you mean 'model\.dim'"),
        ({"overrides": ["model.fusion=valdated"]}, "did you mean 'validated'"),
        ({"overrides": ["method=transmill"]}, "method: .*did you mean 'transmil'"),
        ({"overrides": ["split=0"]}, "split: found 0; expected text or null, in quotes: '0'"),
        ({"overrides": ["seed=yes"]}, "seed: found true; expected a whole number"),
        ({"overrides": ["finetune.lr=.inf"]}, "finetune.lr: found inf; expected a number"),
        ({"overrides": ["seed=2001-99-99"]}, "seed: found '2001-99-99'; expected a whole number"),
        ({"overrides": ["seed=!!int x"]}, "--set seed: line 1, column 1: found 'x'"),
        ({"overrides": ["seed=" + "1" * 5000]}, "--set seed: .*expected fewer digits"),
        ({"overrides": ["seed=" + "[" * 9999]}, "--set seed: .*more than 40 levels"),
        ({"overrides": ["a." * 9999 + "b=1"]}, "found 10000 names; expected section.field"),
        ({"overrides": ["model=3"]}, "model: found 3; expected a mapping of fields"),
        ({"overrides": ["pretrain.mask_ratio=1.5"]}, "found 1.5; expected .*below 1"),
        ({"overrides": ["seed=[1"]}, "--set seed: line 1, column 3: .*expected YAML"),
        ({"overrides": ["finetune.epochs=0"]}, "finetune.epochs"),
    ],
)
def test_bad_input_names_what_is_wrong(arguments, message):
    with pytest.raises(GimpError, match=message):
        load_config(**arguments)


def test_all_faults_of_a_file_are_told_together(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("seed: -1\nmodel: {dims: 3}\nprecision: fp8\n", encoding="utf-8")
    with pytest.raises(FaultError) as caught:
        load_config(path=file)
    assert len(caught.value.faults) == 3
    assert all(str(file) in str(fault) for fault in caught.value.faults)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\xff"], ids=["list", "syntax", "bytes"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(GimpError, match=r"wrong\.yaml"):
        load_config(path=file)
