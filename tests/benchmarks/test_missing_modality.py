"""The curves of patients who lack a modality, over several splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from builders.runs import QUICK, train_run

from gimp_fast.data import open_cohort
from gimp_fast.external.missing_curves import SHARES, Answers
from gimp_fast.external.of_classes import Classes

TRUTH = np.array([0, 1] * 10)
RIGHT = np.eye(2)[TRUTH] * 0.8 + 0.1
WRONG = 1 - RIGHT


@pytest.fixture
def found():
    """Curves of models that are right with both, wrong without RNA, and right by slides alone."""
    from missing_modality import curves

    answers = {
        "both": Answers(RIGHT, WRONG),
        "remaining": Answers(RIGHT, RIGHT),
        "either": Answers(WRONG, RIGHT),
    }
    rng = np.random.default_rng(0)
    orders = [rng.permutation(20) for _ in range(3)]
    return curves(Classes(("a", "b")), answers, TRUTH, orders)


def test_accuracy_falls_with_the_share_that_lacks_what_is_needed(found):
    points = found["accuracy"]
    assert [point["both"] for point in points] == pytest.approx([1 - share for share in SHARES])
    assert [point["remaining"] for point in points] == [1.0] * len(SHARES)
    assert [point["either"] for point in points] == pytest.approx(SHARES)


def test_means_come_before_the_choice_of_the_better(found):
    from missing_modality import averaged, page

    swapped = [
        {"both": p["both"], "remaining": p["either"], "either": p["remaining"]}
        for p in found["accuracy"]
    ]
    first = {"rna": {"accuracy": found["accuracy"]}, "slide": {"accuracy": found["accuracy"]}}
    second = {"rna": {"accuracy": swapped}, "slide": {"accuracy": swapped}}
    mean = averaged([first, second])
    nobody, *_, everybody = mean["rna"]["accuracy"]
    assert nobody == {"both": 1.0, "remaining": 0.5, "either": 0.5}
    assert everybody == {"both": 0.0, "remaining": 1.0, "either": 1.0}
    text = "\n".join(page("Title", {"cohort": mean}, {"accuracy": 0.005}, {"cohort": ["s 0"]}, 3))
    assert "| cohort | 1.000 (+0.500) |" in text
    assert "| 0.000 (-1.000) | -1.000 **below** |" in text


def test_runs_of_one_cohort_split_and_seed_belong_together(cohort_folder, tmp_path):
    from missing_modality import places

    def run(name: str, split: str, *more: str) -> Path:
        asked = (*QUICK, "method=snn", "modalities=rna", f"split={split}", *more)
        return train_run(tmp_path / name, cohort_folder, *asked)

    split = open_cohort(cohort_folder).only_split()
    first, other = run("first", split), run("other", split, "seed=1")
    without = run("without", split)
    shutil.rmtree(without / "checkpoints")
    assert list(places([[first, other], [first], [without]])) == []
    ((place, runs),) = places([[first, other], [other], [other, tmp_path]])
    assert (place.data, place.split, place.seed) == (cohort_folder, split, 1)
    assert runs == [other, other, other]
