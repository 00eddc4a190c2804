"""The stage that trains slides alone, and runs that answer patients who lack a modality."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from builders.runs import QUICK, SMALL

from gimp_fast.data import Cohort
from gimp_fast.inference import export_model, load
from gimp_fast.models.gimp import GiMPSettings
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.runs.records import open_run
from gimp_fast.training import load_config, train
from gimp_fast.training.memory import memory_report
from gimp_fast.training.stages import stages_of

SIZES = [
    f"model.{name}={value}" for name, value in SMALL.items() if name in GiMPSettings.model_fields
]
ASKED = [*QUICK, *SIZES, "pretrain.epochs=0", "model.missing=heads", "model.fusion=validated"]


def quiet(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def run(cohort_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("heads") / "run"
    config = load_config(overrides=[*ASKED, "finetune.epochs=2"])
    train(config, cohort_folder, out, log=quiet)
    return out


def test_slides_are_trained_before_the_head_of_both(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["genes", "slides", "slides", "finetune", "finetune"]
    genes, slides, last = (
        load_checkpoint(open_run(run).checkpoint(name))[0]
        for name in ("genes", "slides", "finetune")
    )
    moved = [name for name in slides if not torch.equal(slides[name], genes[name])]
    assert {name.split(".")[1] for name in moved} == {"aggregator", "slide_head"}
    moved = {name for name in last if not torch.equal(last[name], slides[name])}
    # Tokens decay without being used, and the best weight may be the first.
    may = {"absent_slide", "absent_genes", "fusion_weight"}
    assert {name.split(".")[1] for name in moved} - may == {"head"}


def test_each_modality_alone_is_answered_by_its_head(run, cohort):
    found, model = open_run(run).metrics.by_modality, load(run)
    assert found.seen_in_training
    cases = cohort.split(cohort.split_names[0])["test"]
    labels = np.array([cohort.label(case) for case in cases])
    bags = [cohort.bag(case).read() for case in cases]
    alone = model.predict(bags, None)
    assert found.slide.accuracy.k == int((alone.argmax(1) == labels).sum())
    with torch.no_grad():
        vectors = torch.from_numpy(model.represent(bags, None))[:, : model.model.config.dim]
        logits = model.model.slide_head(vectors)
    np.testing.assert_allclose(alone, logits.softmax(1).numpy(), atol=1e-5)


def test_without_rna_it_is_the_model_of_slides_alone(run, cohort_folder, cohort, tmp_path):
    alone = [*QUICK, *SIZES, "pretrain.epochs=0", "finetune.epochs=2", "modalities=slide"]
    train(load_config(overrides=alone), cohort_folder, tmp_path / "slide", log=quiet)
    bags = [cohort.bag(case).read() for case in cohort.case_ids]
    one, other = (load(path).predict(bags, None) for path in (run, tmp_path / "slide"))
    np.testing.assert_array_equal(one, other)


def test_an_export_answers_the_same(run, cohort, tmp_path):
    export_model(load(run), tmp_path / "export")
    bags = [cohort.bag(case).read() for case in cohort.case_ids[:3]]
    genes = cohort.expression(cohort.case_ids[:3])
    for inputs in ((bags, genes), (bags, None), ([None] * 3, genes)):
        one, other = (load(path).predict(*inputs) for path in (run, tmp_path / "export"))
        np.testing.assert_array_equal(one, other)


def test_stages_by_themselves_end_with_the_same_weights(run, cohort_folder, tmp_path):
    config = load_config(overrides=[*ASKED, "finetune.epochs=2"])
    for stage in ("genes", "slides", "finetune"):
        train(config, cohort_folder, tmp_path / "run", stages=[stage], resume=True, log=quiet)
    one, other = (
        load_checkpoint(open_run(path).checkpoint("finetune"))[0]
        for path in (run, tmp_path / "run")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_patients_without_slides_are_left_to_the_other_stages(cohort, tmp_path, monkeypatch):
    parts = cohort.split(cohort.split_names[0])
    lacking = {*parts["train"][:4], *parts["val"][:1]}
    original = Cohort.has_slides
    monkeypatch.setattr(
        Cohort, "has_slides", lambda self, case: case not in lacking and original(self, case)
    )
    lines = []
    train(load_config(overrides=ASKED), cohort, tmp_path / "run", log=lines.append)
    count = len(parts["train"]) - 4
    assert any(line.startswith(f"slides: 1 epoch on {count} patients") for line in lines)


@pytest.mark.parametrize("modalities", ["slide", "rna"])
def test_a_model_of_one_modality_has_no_such_stage(modalities):
    config = load_config(overrides=["model.missing=heads", f"modalities={modalities}"])
    assert "slides" not in [stage.name for stage in stages_of(config)]


def test_survival_and_memory(cohort, tmp_path):
    config = load_config(overrides=[*ASKED, "target=os", "survival.loss=cox"])
    train(config, cohort, tmp_path / "run", log=quiet)
    found = open_run(tmp_path / "run").metrics.by_modality
    assert found.slide.c_index is not None
    assert any(line.startswith("slides, batch 16") for line in memory_report(config, cohort))
