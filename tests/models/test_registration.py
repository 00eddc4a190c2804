"""Models from outside the package: they register, build, and train like our own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gimp_fast import models
from gimp_fast.models import ModelSettings, PatientModel, Sizes
from gimp_fast.runs.checkpoint import load_checkpoint, under_prefix
from gimp_fast.training import load_config, train


class LinearSettings(ModelSettings):
    dropout: float = 0.0


class LinearConfig(LinearSettings, Sizes):
    pass


class Linear(PatientModel):
    title, reads = "Linear", ("rna",)
    settings_class, config_class = LinearSettings, LinearConfig

    def __init__(self, config, backend="auto"):
        super().__init__(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.num_genes, config.num_classes)

    def vectors(self, inputs):
        return self.dropout(inputs.genes)

    def classify(self, representation):
        return self.head(representation.vectors)


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, so that other tests do not see what a test registers."""
    monkeypatch.setattr(models._MODELS, "things", dict(models._MODELS.things))


def test_a_registered_model_builds(registry):
    models.register("linear", Linear)
    assert models.available()[-1] == "linear"
    assert models.model_class("linear") is Linear
    model = models.build("linear", {"num_outputs": 2, "num_genes": 5, "dropout": 0.5})
    assert model.predict(genes=torch.randn(3, 5)).shape == (3, 2)


def test_a_registered_model_trains_a_step_and_can_be_rebuilt(registry, cohort_folder, tmp_path):
    models.register("linear", Linear)
    config = load_config(
        overrides=[
            "method=linear", "model.dropout=0.1", "finetune.epochs=1", "finetune.batch_size=64",
            "bootstrap=20", "threads=1", "device=cpu",
        ]
    )  # fmt: skip
    metrics = train(config, cohort_folder, tmp_path / "run", log=lambda text: None)
    assert (metrics["method"], metrics["modalities"]) == ("linear", "rna")
    tensors, state = load_checkpoint(tmp_path / "run" / "checkpoints" / "finetune.safetensors")
    model = models.build(state["method"], state["model"])
    model.load_state_dict(under_prefix("model", tensors))
    assert model.config.dropout == 0.1


def test_a_name_that_is_taken_is_an_error(registry):
    with pytest.raises(ValueError, match="'gimp' is taken by GiMP"):
        models.register("gimp", Linear)
    models.register("linear", Linear)
    with pytest.raises(ValueError, match="'linear' is taken by Linear"):
        models.register("linear", Linear)


class Bare(PatientModel):
    """Lacks everything that a registered model must have."""


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (nn.Linear, "expected a subclass of PatientModel"),
        (Linear.__init__, "expected a subclass of PatientModel"),
        (Bare, "Bare lacks title, settings_class, config_class, reads"),
    ],
    ids=["other-class", "no-class", "incomplete"],
)
def test_what_is_no_model_is_an_error(registry, candidate, message):
    with pytest.raises(TypeError, match=message):
        models.register("linear", candidate)
    assert "linear" not in models.available()


@pytest.mark.parametrize("name", models.available())
def test_every_model_has_a_title_of_its_own(name):
    titles = [models.model_class(other).title for other in models.available()]
    assert titles.count(models.model_class(name).title) == 1
