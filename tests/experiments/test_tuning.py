"""``--tune``: equal trials, by validation patients alone, repeated by the same command."""

from __future__ import annotations

import json
import sys

import pytest

from gimp_fast.experiments import main
from gimp_fast.experiments.catalog import experiment
from gimp_fast.experiments.plan import Shared
from gimp_fast.experiments.spaces import SPACES, LogRange, space_of
from gimp_fast.models import available
from gimp_fast.runs.records import Run
from gimp_fast.targets.survival import Survival
from gimp_fast.training.task import check_measure

ROWS = ["mean_pool", "logistic_regression_slide"]


def command(cohort_folder, out, tiny, *more):
    of_all = ["--only", *ROWS, "--seeds", "2", "--tune", "3", *more]
    return ["table1", "--data", str(cohort_folder), "--out", str(out), *tiny, *of_all]


@pytest.fixture(scope="module")
def tuned(cohort_folder, tiny, tmp_path_factory):
    pytest.importorskip("optuna")
    out = tmp_path_factory.mktemp("tuned")
    assert main(command(cohort_folder, out, tiny)) == 0
    return out


def results(out):
    return json.loads((out / "table1" / "results.json").read_text(encoding="utf-8"))


def test_every_row_has_the_same_number_of_trials_on_every_split(tuned):
    found = results(tuned)["tuning"]
    assert found["trials_of_each"] == 3
    assert list(found["rows"]) == ROWS
    for row in found["rows"].values():
        assert list(row) == ["fold_0", "fold_1"]
        for split in row.values():
            assert len(split["trials"]) == 3
            assert split["trials"][0]["overrides"] == []  # the shared configuration
            losses = [trial["validation_cross_entropy"] for trial in split["trials"]]
            best = split["trials"][losses.index(min(losses))]
            assert split["chosen"] == best["overrides"]


def test_all_seeds_have_the_chosen_settings_of_their_split(tuned):
    chosen = results(tuned)["tuning"]["rows"]["mean_pool"]
    runs = [run for run in results(tuned)["runs"] if run["row"] == "mean_pool"]
    assert sorted((run["split"], run["seed"]) for run in runs) == [
        (f"fold_{split}", seed) for split in (0, 1) for seed in (0, 1)
    ]
    for run in runs:
        config = Run(tuned / "runs" / run["folder"]).config
        for text in chosen[run["split"]]["chosen"]:
            name, _, value = text.partition("=")
            section, _, setting = name.rpartition(".")
            assert (config[section] if section else config)[setting] == json.loads(value)


def test_the_same_command_takes_the_trials_that_are_done(tuned, cohort_folder, tiny, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a trial was made again")

    before = results(tuned)["tuning"]
    monkeypatch.setattr("gimp_fast.experiments.execute.run_all", refuse)
    assert main(command(cohort_folder, tuned, tiny)) == 0
    assert results(tuned)["tuning"] == before


def test_the_table_says_how_settings_were_chosen(tuned):
    text = (tuned / "table1" / "table.md").read_text(encoding="utf-8")
    assert "with settings that 3 trials of each row chose on each split" in text


def test_without_optuna_the_message_says_what_to_install(
    cohort_folder, tmp_path, tiny, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(command(cohort_folder, tmp_path, tiny)) == 2
    assert "pip install 'gimp-fast[tune]'" in capsys.readouterr().err


@pytest.mark.parametrize("row", experiment("table1").rows, ids=lambda row: row.key)
def test_every_setting_of_a_space_is_one_of_the_method(row):
    if row.method == "logistic_regression":
        reads_slides = row.modalities != "rna"
        space = space_of(row, None, has_sites=True)
        assert list(space) == ["strength", *["site_shrinkage"] * reads_slides]
        assert list(space_of(row, None, has_sites=False)) == ["strength"]
        return
    config = Shared("small").config(row, "fold_0", 0, 1)
    space = space_of(row, config, has_sites=True)
    assert space
    for key, value, changed in configs_with(space, Shared("small"), row):
        *section, name = key.split(".")
        assert getattr(getattr(changed, section[0]) if section else changed, name) == value


def configs_with(space, shared, row):
    """A row's configuration with each end, or each value, of each setting."""
    for key, values in space.items():
        ends = (values.low, values.high) if isinstance(values, LogRange) else values
        for value in ends:
            overrides = [f"{key}={json.dumps(value)}"]
            yield key, value, shared.config(row, "fold_0", 0, 1, overrides)


DEEP = [row for row in experiment("survival").rows if row.method != "ridge_cox" and not row.mixes]


@pytest.mark.parametrize("row", DEEP, ids=lambda row: row.key)
def test_models_of_survival_are_chosen_by_its_scores(row):
    config = Shared("survival").config(row, "fold_0", 0, 1)
    space = space_of(row, config, has_sites=True)
    assert ("finetune.covariate_lr" in space) == row.covariates
    for *_, changed in configs_with(space, Shared("survival"), row):
        check_measure(changed, Survival)


def test_settings_that_do_not_matter_are_not_tuned():
    rows = {row.key: row for row in experiment("table1").rows}

    def keys(name):
        config = Shared("small").config(rows[name], "fold_0", 0, 1)
        return set(space_of(rows[name], config, has_sites=name != "gimp"))

    whole = keys("gimp")
    assert {"genes.lr", "pretrain.lr", "finetune.modality_dropout"} <= whole
    assert "finetune.modality_dropout" not in keys("gimp_rna")
    assert not {key for key in keys("gimp_scratch") if key.startswith("pretrain.")}
    assert not {key for key in keys("gimp_slide_scratch") if "gene" in key or "pretrain" in key}
    assert "genes.lr" not in keys("mgca")
    assert "site_shrinkage" in keys("mgca")
    assert "site_shrinkage" not in keys("gimp")  # hospitals of the cohort are not known
    assert "site_shrinkage" not in keys("snn")


def test_gimp_may_choose_its_groups_where_genes_come_in_sets():
    for row in experiment("table1").rows:
        config = None
        if row.method != "logistic_regression":
            config = Shared("small").config(row, "fold_0", 0, 1)
        found = space_of(row, config, has_sites=False, has_gene_sets=True)
        assert ("gene_groups" in found) == (row.method == "gimp" and row.modalities != "slide")


def test_every_method_has_a_space():
    assert set(available()) <= set(SPACES)
