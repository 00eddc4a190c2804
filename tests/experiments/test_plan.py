"""Which rows there are, what trains them, and what makes two runs the same."""

from __future__ import annotations

import re

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.experiments.catalog import EXPERIMENTS, experiment
from gimp_fast.experiments.classes.paper import DELTAS, PAPER_TABLES
from gimp_fast.experiments.plan import Shared, code_digest, make_plan
from gimp_fast.experiments.rows import PLAIN, chosen_rows, chosen_splits, split_groups
from gimp_fast.models import available
from gimp_fast.runs.method_titles import method_title

PAPERS_TABLE_1 = [
    *("ABMIL 0.7737", "DSMIL 0.7566", "CLAM-SB 0.8519", "CLAM-MB 0.8889", "TransMIL 0.8836"),
    *("GiMP without GroupMSA 0.8995", "PORPOISE 0.9524", "Pathomic Fusion 0.9684", "MCAT 0.9632"),
    *("GiMP, no pre-training 0.9737", "MGCA 0.9105", "BioViL 0.9316", "REFERS 0.9368"),
    "GiMP 0.9947",
]


def plan_of(cohort, *names, shared=None, rows=None, seeds=(0,), splits=("fold_0",), threads=1):
    tables = [experiment(name) for name in names]
    shared = shared or Shared("small")
    rows = frozenset(rows or (row.key for table in tables for row in table.rows))
    return make_plan(tables, cohort, shared, rows=rows, splits=splits, seeds=seeds, threads=threads)


def test_table_1_has_every_row_of_the_paper():
    rows = [row for row in experiment("table1").rows if row.paper]
    assert [f"{row.title} {row.paper.printed}" for row in rows] == PAPERS_TABLE_1
    ours = {row.key for row in experiment("table1").rows if not (row.paper or row.mixes)}
    assert ours == {
        *(
            "mean_pool",
            "logistic_regression_slide",
            "abmil_gated",
            "logistic_regression_rna",
            "snn",
            "gimp_rna",
            "logistic_regression_both",
        )
    }


def test_table_2_has_every_row_of_the_paper():
    printed = [row.paper.printed for row in experiment("table2").rows]
    assert printed == ["0.9684", "0.9737", "0.9579", "0.9263", "0.9526", "0.9974"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_counts_of_the_paper_give_what_it_prints(name):
    for row in experiment(name).rows:
        if row.paper is None or row.paper.counts is None:
            continue
        right, total = map(int, row.paper.counts.split("/"))
        assert f"{right / total:.4f}" == row.paper.printed
        assert total in (189, 190)
    misprint = [f"{k / n:.4f}" for n in (189, 190) for k in range(n + 1)]
    assert "0.9974" not in misprint


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_keys_are_distinct_file_names_and_the_reference_is_a_row(name):
    table = experiment(name)
    keys = [row.key for row in table.rows]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9_.]+", key) for key in keys)
    assert table.reference_row.ours
    assert {row.method for row in table.rows} <= {
        *available(), *PLAIN, "mcat", "mgca", "biovil", "refers",
    }  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rows_are_called_as_their_methods_are(name):
    for row in experiment(name).rows:
        assert row.key.startswith(row.method)
    for row in experiment("table1").rows:
        assert row.title.startswith(method_title(row.method))


def test_a_method_chooses_all_its_rows_and_a_row_itself_alone():
    table = [experiment("table1")]
    assert chosen_rows(table, ["logistic_regression"]) == {
        f"logistic_regression_{modality}" for modality in ("slide", "rna", "both")
    }
    assert chosen_rows(table, ["gimp", "snn"]) == {"gimp", "snn"}
    with pytest.raises(GimpError, match="--only: found snnn; the rows are mean_pool"):
        chosen_rows(table, ["snn", "snnn"])


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_every_row_resolves_to_what_it_says(name, cohort):
    plan = plan_of(cohort, name)
    for (_, key), runs in plan.of_row.items():
        row = next(row for row in experiment(name).rows if row.key == key)
        settings = runs[0].settings
        assert settings.modalities == row.modalities
        assert settings.split == "fold_0"
        if row.method not in PLAIN:
            assert settings.method == row.method
            assert settings.seed == 0


def test_the_ablation_switches_off_what_it_says(cohort):
    rows = {key: runs[0].settings for (_, key), runs in plan_of(cohort, "table2").of_row.items()}
    whole = rows["gimp"].pretrain
    assert (whole.triplets, whole.triplet_weight, whole.reconstruction_weight) == ("patient", 1, 1)
    assert rows["gimp_mpm"].pretrain.triplet_weight == 0
    assert rows["gimp_triplet"].pretrain.reconstruction_weight == 0
    alone = rows["gimp_slide_triplet"].pretrain
    assert (alone.triplets, alone.reconstruction_weight) == ("slide", 0)
    assert rows["gimp_scratch"].pretrain.epochs == 0
    assert rows["gimp_snn_scratch"].model.gene_encoder == "snn"
    assert {settings.modalities for settings in rows.values()} == {"both"}


def test_delta_sweeps_the_papers_range():
    assert (min(DELTAS), max(DELTAS)) == (0.2, 0.8)
    table = experiment("delta", (0.5, 0.1, 0.5))
    assert [row.key for row in table.rows] == ["gimp_delta_0.1", "gimp_delta_0.5"]
    assert table.reference == "gimp_delta_0.5"


def test_tables_share_runs_of_one_configuration(cohort):
    plan = plan_of(cohort, *PAPER_TABLES)
    of = {place: runs[0] for place, runs in plan.of_row.items()}
    whole = of["table1", "gimp"]
    for place in (("table2", "gimp"), ("fig2", "gimp"), ("fusion", "gimp")):
        assert of[place] is whole
    assert of["delta", "gimp_delta_0.8"] is whole
    assert of["table1", "gimp_scratch"] is of["table2", "gimp_scratch"]
    assert of["table1", "gimp_rna"] is of["fusion", "gimp_rna"]
    assert of["table1", "gimp_slide_scratch"] is not of["fusion", "gimp_slide"]
    digests = [run.digest for run in plan.runs]
    assert len(set(digests)) == len(digests) < len(of)


def test_what_makes_a_run_another_one(cohort):
    def digest(*overrides, threads=1, row="abmil"):
        plan = plan_of(
            cohort, "table1", rows=[row], shared=Shared("small", overrides), threads=threads
        )
        return plan.runs[0].digest

    same = digest()
    assert digest("finetune.lr=1e-3") != same
    assert digest("model.dim=8") != same
    assert digest(threads=None) == same
    assert digest("bootstrap=5", "save_minutes=1") == same
    assert digest("pretrain.margin=0.3", "genes.epochs=1") == same  # stages that it does not have
    assert digest("finetune.modality_dropout=0.1") == same  # it has one modality
    assert digest("finetune.modality_dropout=0.1", row="mcat") != digest(row="mcat")


def test_logistic_regression_has_one_seed_and_others_have_all(cohort):
    plan = plan_of(cohort, "table1", seeds=(0, 1), splits=("fold_0", "fold_1"))
    assert len(plan.of_row["table1", "logistic_regression_both"]) == 2
    assert len(plan.of_row["table1", "abmil"]) == 4
    seeds = [run.seed for run in plan.runs]
    assert seeds == sorted(seeds)


def test_settings_of_an_architecture_reach_the_methods_that_have_them(cohort, tmp_path):
    shared = Shared.of("small", None, ["model.num_landmarks=4", "finetune.epochs=3"])
    plan = plan_of(cohort, "table1", shared=shared, rows=["abmil", "gimp"])
    assert plan.of_row["table1", "gimp"][0].settings.model.num_landmarks == 4
    assert plan.of_row["table1", "abmil"][0].settings.finetune.epochs == 3
    with pytest.raises(GimpError, match="num_landmark=4"):
        plan_of(cohort, "table1", shared=Shared("small", ("model.num_landmark=4",)))
    assert not shared.on_cpu
    assert Shared("small", ("device=cuda", "device=cpu")).on_cpu
    file = tmp_path / "settings.yaml"
    file.write_text("finetune: {epochs: 4, lr: 1.0e-3}\n")
    settings = Shared.of("small", file, ["finetune.epochs=5"]).overrides
    assert settings == ("finetune.epochs=4", "finetune.lr=0.001", "finetune.epochs=5")


@pytest.mark.parametrize("text", ["seed=3", "split=fold_1", "method=snn", "modalities=rna"])
def test_what_the_table_decides_cannot_be_set(text):
    with pytest.raises(GimpError, match="the table decides"):
        Shared.of("small", None, [text])


def test_rows_that_a_cohort_cannot_have_say_why(cohort_without_rna):
    from gimp_fast.data import open_cohort

    plan = plan_of(open_cohort(cohort_without_rna), "table1", splits=("split_0",))
    assert ("table1", "abmil") in plan.of_row
    assert "needs RNA" in plan.skipped["table1", "snn"]
    assert "needs RNA" in plan.skipped["table1", "gimp"]


def test_names_and_patterns():
    names = ("random_0", "random_1", "site_0")
    assert chosen_splits(names, []) == list(names)
    assert chosen_splits(names, ["site_*", "random_1"]) == ["random_1", "site_0"]
    with pytest.raises(GimpError, match=r"'sites_\*'; the cohort has random_0"):
        chosen_splits(names, ["site_0", "sites_*"])
    assert split_groups(names) == {"random": ["random_0", "random_1"], "site": ["site_0"]}
    assert split_groups(["official", "5", "a1", "b-2"]) == {
        "official": ["official"], "5": ["5"], "a": ["a1"], "b": ["b-2"],
    }  # fmt: skip
    tables = [experiment("table1"), experiment("table2")]
    assert chosen_rows(tables, ["gimp", "gimp_mpm"]) == {"gimp", "gimp_mpm"}
    with pytest.raises(GimpError, match="found abmill; the rows are mean_pool"):
        chosen_rows(tables, ["abmill"])


def test_the_digest_of_code_changes_with_what_training_can_import(tmp_path):
    files = ("training/engine.py", "models/a.py", "losses.py", "report/page.py", "wsi/grid.py")
    files += ("experiments/baselines/cox.py", "experiments/document.py", "targets/new_room.py")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")

    def digest():
        code_digest.cache_clear()
        return code_digest(tmp_path)

    digests = [digest()]
    assert digest() == digests[0]
    for name in files:
        (tmp_path / name).write_text("x = 2\n")
        digests.append(digest())
    code_digest.cache_clear()
    changed = [name for name, a, b in zip(files, digests, digests[1:], strict=False) if a != b]
    assert changed == [
        "training/engine.py", "models/a.py", "losses.py", "experiments/baselines/cox.py",
        "targets/new_room.py",
    ]  # fmt: skip
    assert code_digest() != digests[-1]
