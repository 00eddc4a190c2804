"""Splits that `prepare` reads or makes."""

from __future__ import annotations

from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort


def test_folds_that_keep_hospitals_together(inputs, capsys):
    assert prepare.main(inputs.argv("--folds", "3", "--site-splits")) == 0
    printed = capsys.readouterr().out
    assert "fold_0: new, site-preserving, fold of 3, seed 0" in printed
    cohort = open_cohort(inputs.out)
    assert cohort.split_names == ("fold_0", "fold_1", "fold_2")
    tested = []
    for name in cohort.split_names:
        sites = {part: {c[5:7] for c in cases} for part, cases in cohort.split(name).items()}
        assert not sites["train"] & sites["val"]
        assert not (sites["train"] | sites["val"]) & sites["test"]
        tested += cohort.split(name)["test"]
    assert sorted(tested) == sorted(CASES)
    assert cohort.split_notes["fold_1"].startswith("new, site-preserving")


def test_sites_of_a_column_give_the_same_split(inputs):
    outs = [inputs.folder / name for name in ("code", "column")]
    assert prepare.main(inputs.argv("--site-splits", out=outs[0])) == 0
    argv = inputs.argv("--site-splits", "--site-column", "hospital", out=outs[1])
    assert prepare.main(argv) == 0
    code, column = (open_cohort(out).split("split_0") for out in outs)
    assert code == column


def test_a_random_split_says_how_many_sites_it_shares(inputs, capsys):
    assert prepare.main(inputs.argv()) == 0
    parts = open_cohort(inputs.out).split("split_0")
    shared = {case[5:7] for case in parts["train"]} & {case[5:7] for case in parts["test"]}
    assert f"in train and in test: {len(shared)}\n" in capsys.readouterr().out
    assert shared


def test_splits_of_two_parts_say_what_became_of_them(inputs, capsys):
    lines = [",train,val", *(f"{n},{a},{b}" for n, (a, b) in enumerate(
        zip(CASES[:15], CASES[15:], strict=True)))]  # fmt: skip
    (inputs.folder / "splits_0.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--splits", inputs.folder / "splits_0.csv")) == 0
    assert "test: the file's validation part" in capsys.readouterr().out
    assert sorted(open_cohort(inputs.out).split("splits_0")["test"]) == sorted(CASES[15:])


def test_new_splits_beside_given_ones_are_refused(inputs, capsys):
    assert prepare.main(inputs.argv("--splits", inputs.labels, "--folds", "5")) == 2
    assert "leave out --folds" in capsys.readouterr().err
