"""Small trained runs, one a method, and the cohort that they were trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders.cohorts import synthetic_cohort

from gimp_fast import models
from gimp_fast.training import load_config, train

# Where a model has such a setting, it is small here.
SMALL = {"dim": 16, "heads": 2, "num_landmarks": 8, "attention_dim": 8, "query_dim": 8}
SMALL |= {"head_hidden": 16, "gene_fragments": 8, "gene_groups": 4}
QUICK = ["genes.epochs=1", "pretrain.epochs=1", "pretrain.window=16", "finetune.epochs=1"]
QUICK += ["bootstrap=20", "threads=1", "finetune.lr=1e-2"]
METHODS = [
    pytest.param((name, modalities), id=f"{name}-{modalities}")
    for name in models.available()
    for modalities in models.model_class(name).reads
]


def train_run(out: Path, cohort: Path, method: str, modalities: str, *overrides: str) -> Path:
    fields = models.model_class(method).settings_class.model_fields
    sizes = [f"model.{name}={value}" for name, value in SMALL.items() if name in fields]
    chosen = [f"method={method}", f"modalities={modalities}"]
    config = load_config(overrides=[*QUICK, *sizes, *chosen, *overrides])
    train(config, cohort, out, log=lambda text: None)
    return out


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory) -> Path:
    return synthetic_cohort(tmp_path_factory.mktemp("synthetic"), num_patients=30)


@pytest.fixture(scope="session")
def run_of(cohort_folder, tmp_path_factory) -> Callable[..., Path]:
    """(method, modalities) -> its run folder, trained once; not to be changed."""
    runs: dict[tuple[str, str], Path] = {}

    def run(method: str = "gimp", modalities: str = "both") -> Path:
        key = method, modalities
        if key not in runs:
            out = tmp_path_factory.mktemp(f"{method}-{modalities}") / "run"
            runs[key] = train_run(out, cohort_folder, method, modalities)
        return runs[key]

    return run


@pytest.fixture(scope="session")
def gimp_run(run_of) -> Path:
    return run_of()


@pytest.fixture(params=METHODS)
def any_run(request, run_of) -> Path:
    return run_of(*request.param)
