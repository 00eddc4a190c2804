"""Predicted memory: measured on small steps, extended to large ones; the flags that show it."""

from __future__ import annotations

import re

import pytest
import torch

from gimp_fast.data import open_cohort
from gimp_fast.errors import GimpError
from gimp_fast.models import GiMP, GiMPConfig
from gimp_fast.models.inputs import map_tensors
from gimp_fast.train import main
from gimp_fast.training import memory_probe
from gimp_fast.training.config import TrainConfig, load_config
from gimp_fast.training.memory import (
    MemoryPrediction,
    MemoryPredictor,
    format_size,
    model_config_of,
    parameter_table,
    parse_size,
    predictions_of,
)

SIZES = {"num_outputs": 2, "feature_dim": 32, "num_genes": 40}
SMALL = {"dim": 32, "heads": 4, "num_landmarks": 16, "head_hidden": 16}
CONFIG = GiMPConfig(**SIZES, **SMALL)
STAGES = ("genes", "pretrain", "finetune")


def predictor_of(stage: str, precision: str = "fp32", **settings) -> MemoryPredictor:
    config = TrainConfig(precision=precision, model=SMALL | settings)
    return MemoryPredictor(config, GiMPConfig(**SIZES, **SMALL, **settings), stage)


def predicted(stage: str, batch_size: int, length=0, **options) -> MemoryPrediction:
    return predictor_of(stage, **options)(batch_size, length)


def test_the_table_adds_up():
    model = GiMP(CONFIG)
    *rows, total = parameter_table(model)
    assert total.name == "all"
    assert total.count == sum(p.numel() for p in model.parameters()) == sum(r.count for r in rows)
    assert total.bytes == 4 * total.count
    sizes = {row.name: row.count for row in rows}
    assert sizes["aggregator.embed"] == 32 * 32 + 32
    assert sizes["decoder"] == 32 * 32 + 32
    assert sizes["aggregator.layers.1"] == sizes["aggregator.layers.0"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_all_parts(stage):
    found = predicted(stage, 3, 100)
    assert found.parameters >= 4 * sum(p.numel() for p in GiMP(CONFIG).parameters())
    assert 0 < found.gradients < found.parameters
    assert found.optimizer == 2 * found.gradients
    assert found.activations > 0
    assert found.workspace > 0
    assert found.total == sum(
        getattr(found, name)
        for name in vars(found)
        if name not in ("stage", "batch_size", "patches")
    )


def test_inputs_are_those_of_the_batch():
    found = predicted("finetune", 2, [30, 70])
    assert found.patches == 100
    assert found.inputs == 100 * (4 * 32 + 1) + 2 * 40 * 4 + 2 * 8


def test_what_is_held_is_what_autograd_saves():
    """Storages that the graph keeps, without parameters and inputs, but for the loss and views."""
    probe = predictor_of("pretrain")
    step = probe.loss_of(2, 300)
    (batch,) = (
        cell.cell_contents for cell in step.__closure__ if hasattr(cell.cell_contents, "to")
    )
    given = {x.untyped_storage()._cdata for x in probe.model.parameters()}
    map_tensors(batch, lambda x: given.add(x.untyped_storage()._cdata) or x)
    saved = {}

    def pack(x):
        saved[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = step()
    kept = sum(x.untyped_storage().nbytes() for key, x in saved.items() if key not in given)
    assert loss.requires_grad
    assert probe.held(2, 300)[0] == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("checkpoint_layers", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize(
    ("stage", "batch", "length"),
    [("pretrain", 8, 500), ("pretrain", 3, 1000), ("finetune", 1, 3000), ("finetune", 5, 700)],
)
def test_what_is_extended_is_what_would_be_measured(
    stage, batch, length, checkpoint_layers, monkeypatch
):
    options = {"checkpoint_layers": checkpoint_layers}
    measured = predicted(stage, batch, length, **options)
    monkeypatch.setattr(memory_probe, "DIRECT", 600)
    monkeypatch.setattr(memory_probe, "LENGTH", 1024)  # no less than any chunk
    extended = predicted(stage, batch, length, **options)
    assert extended.activations == pytest.approx(measured.activations, rel=0.03)
    assert extended.step == pytest.approx(measured.step, rel=0.12)


def test_checkpointed_layers_and_half_precision_hold_less():
    def activations(**options):
        return predicted("pretrain", 2, 500, **options).activations

    assert activations(checkpoint_layers=True) < 0.5 * activations()
    assert activations(precision="bf16") < 0.75 * activations()


def test_predicting_disturbs_nothing():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    predicted("finetune", 1, 50)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_the_largest_batch_fits_and_one_more_does_not():
    predictor = predictor_of("pretrain")
    budget = predictor(40, 300).total
    found = predictor.largest_batch(budget, 300)
    assert found >= 40
    assert predictor(found, 300).total <= budget < predictor(found + 1, 300).total
    assert predictor.largest_batch(1000, 300) == 0


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="stage 'train'"):
        predictor_of("train")
    with pytest.raises(ValueError, match="batch_size 2 with lengths"):
        predicted("finetune", 2, [3])


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("8GiB", 2**33), (" 1.5 gib ", 3 * 2**29), ("500MB", 5 * 10**8)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["24", "GB", "-1GB", "24 apples", "0GB", "", "1e9B", "nanGB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(GimpError, match=r"--fit: found .* as 24GB or 8GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(12, "12 B"), (1500, "1.5 kB"), (24 * 10**9, "24.0 GB"), (10**11, "100 GB")]
)
def test_sizes_are_readable(size, text):
    assert format_size(size) == text


QUICK = [
    *("--preset", "demo", "--set", "pretrain.window=16", "--set", "bootstrap=20"),
    *("--set", "genes.epochs=1", "--set", "pretrain.epochs=1", "--set", "finetune.epochs=1"),
    *("--set", "model.dim=8", "--set", "model.heads=2", "--set", "model.num_landmarks=8"),
]


def test_a_run_is_predicted_as_it_is_configured(cohort):
    config = load_config("demo", overrides=["most_variable_genes=40", "finetune.batch_size=3"])
    assert model_config_of(config, cohort).num_genes == 40
    found = predictions_of(config, cohort)
    assert [x.stage for x in found] == ["genes", "pretrain", "finetune"]
    assert [x.batch_size for x in found] == [16, 16, 3]
    bags = sorted(cohort.bag(c).num_patches for c in cohort.case_ids if cohort.has_slides(c))
    assert [x.patches for x in found] == [0, 16 * 128, sum(bags[-3:])]


def test_a_dry_run_tells_and_writes_nothing(cohort_folder, tmp_path, capsys):
    run = tmp_path / "run"
    data = ["--data", str(cohort_folder), "--out", str(run)]
    assert main([*data, "--dry-run", "--fit", "1GB", *QUICK]) == 0
    said, announced = capsys.readouterr()
    assert "aggregator.layers.1" in said
    # Not more than there are training patients.
    train = open_cohort(cohort_folder).split("split_0")["train"]
    expected = rf"--fit 1GB: pretrain.batch_size is {len(train)}, .*memory would allow \d\d,\d{{3}}"
    assert re.search(expected, said)
    for stage in ("genes", "pretrain", "finetune"):
        assert f"measuring small steps of stage '{stage}' …" in announced
    assert "genes, batch 16" in said
    assert "pretrain, batch" in said
    assert "finetune, batch 8" in said
    assert list(tmp_path.iterdir()) == []


def test_the_batch_that_fits_is_trained(cohort_folder, tmp_path, capsys):
    run = tmp_path / "run"
    data = ["--data", str(cohort_folder), "--out", str(run)]
    assert main([*data, "--fit", "800kB", *QUICK]) == 0
    said = capsys.readouterr().out
    config = load_config(None, run / "config.yaml")
    assert f"pretrain.batch_size is {config.pretrain.batch_size}" in said
    assert 1 <= config.pretrain.batch_size < 40


@pytest.mark.parametrize(
    ("modalities", "stages"),
    [("slide", ["pretrain", "finetune"]), ("rna", ["genes", "finetune"])],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_one_modality_in_every_precision(modalities, stages, precision, cohort):
    overrides = [f"modalities={modalities}", f"precision={precision}"]
    found = predictions_of(load_config("demo", overrides=overrides), cohort)
    assert [x.stage for x in found] == stages
    assert all(x.activations > 0 for x in found)


def test_a_dry_run_without_data_uses_synthetic_patients(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dry-run", *QUICK]) == 0
    assert "SYNTHETIC" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fit", "24"], "found '24'; expected a size"),
        (["--fit", "9B"], "a batch of one window of 16 patches needs"),
        (["--fit", "1GB", "--modalities", "rna"], "which this run does not have"),
        (["--dry-run", "--set", "model.gene_fragments=5000"], "model: GroupMSA needs"),
    ],
)
def test_what_cannot_be_fitted_is_said(options, message, cohort_folder, tmp_path, capsys):
    data = ["--data", str(cohort_folder), "--out", str(tmp_path / "run")]
    assert main([*data, *options, *QUICK]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_fit_needs_data_and_a_new_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--fit", "1GB"]) == 2
    assert "--fit needs --data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--fit", "1GB", "--resume", "--out", "run"])
    assert "--resume continues" in capsys.readouterr().err


def test_the_batch_is_of_one_rank(cohort_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["--data", str(cohort_folder), "--out", str(tmp_path), "--fit", "1GB"]) == 2
    assert "does not work under torchrun" in capsys.readouterr().err
