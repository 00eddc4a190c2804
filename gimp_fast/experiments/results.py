"""From the runs of a table to its numbers: what ``results.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gimp_fast.evaluation import comparison as statistics
from gimp_fast.evaluation.comparison import Predictions
from gimp_fast.experiments.collect import Finished, predictions_of
from gimp_fast.experiments.paper import Experiment, Row, split_groups
from gimp_fast.experiments.plan import Plan

RATES = ("accuracy", "balanced_accuracy", "f1_macro")


@dataclass(frozen=True)
class Group:
    """Splits that are reported together, and the predictions of all rows on their test patients.

    Attributes:
        name: of the splits, without their numbers.
        splits: names.
        patients: case ids of all test patients.
        test: row key -> predictions; rows without a finished run are absent.
    """

    name: str
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    test: dict[str, Predictions]


def summarise(
    experiment: Experiment,
    plan: Plan,
    finished: dict[str, Finished],
    errors: dict[str, str],
    *,
    splits: Sequence[str],
    resamples: int,
) -> tuple[list[dict[str, Any]], list[Group]]:
    """Numbers of every row in every group of splits.

    Args:
        plan: of this table, at least.
        finished, errors: by digest, runs that succeeded and what the others ended with.
        splits: all that were asked for.
        resamples: of the bootstrap.

    Returns:
        Rows in the order of the table, as JSON; and the groups of splits, with predictions.
    """
    rows = [_row_facts(row) for row in experiment.rows if _is_wanted(experiment, row, plan)]
    groups = []
    for name, names in split_groups(splits).items():
        group = _group(name, names, experiment, plan, finished)
        groups.append(group)
        weights = statistics.patient_weights(max(1, len(group.patients)), resamples)
        for facts in rows:
            facts["skipped"] = plan.skipped.get((experiment.name, facts["key"]))
            runs = [
                run
                for run in plan.of_row.get((experiment.name, facts["key"]), ())
                if run.split in names
            ]
            done = [finished[run.digest] for run in runs if run.digest in finished]
            failed = {str(run): errors[run.digest] for run in runs if run.digest in errors}
            facts["groups"][name] = _numbers(
                done, len(runs), failed, group.test.get(facts["key"]), weights
            )
        _compare(experiment, rows, group, weights)
    return rows, groups


def _is_wanted(experiment: Experiment, row: Row, plan: Plan) -> bool:
    place = (experiment.name, row.key)
    return place in plan.of_row or place in plan.skipped


def _row_facts(row: Row) -> dict[str, Any]:
    paper = row.paper and {
        "accuracy": row.paper.value,
        "printed": row.paper.printed,
        "counts": row.paper.counts,
    }
    return {
        "key": row.key, "section": row.section, "title": row.title, "method": row.method,
        "modalities": row.modalities, "overrides": list(row.overrides), "ours": row.ours,
        "paper": paper, "skipped": None, "groups": {},
    }  # fmt: skip


def _group(
    name: str,
    splits: Sequence[str],
    experiment: Experiment,
    plan: Plan,
    finished: dict[str, Finished],
) -> Group:
    of_row = {
        key: [finished[r.digest] for r in runs if r.split in splits and r.digest in finished]
        for (table, key), runs in plan.of_row.items()
        if table == experiment.name
    }
    cases = {row[0] for done in of_row.values() for one in done for row in one.rows["test"]}
    patients = tuple(sorted(cases))
    test = {
        key: predictions_of(done, "test", patients, splits) for key, done in of_row.items() if done
    }
    return Group(name, tuple(splits), patients, test)


def _numbers(
    done: Sequence[Finished],
    wanted: int,
    failed: dict[str, str],
    test: Predictions | None,
    weights: np.ndarray,
) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "runs": len(done), "of": wanted, "failed": failed, "test": None, "val": None,
        "versus": None,
    }  # fmt: skip
    if test is None:
        return numbers
    numbers["test"] = _scores(test, weights)
    validated = [row for one in done for row in one.rows["val"]]
    numbers["val"] = {"accuracy": _share([called == label for _, label, called, _ in validated])}
    return numbers


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"value": float(np.mean(hits)), "k": int(np.sum(hits)), "n": len(hits)}


def _scores(test: Predictions, weights: np.ndarray) -> dict[str, Any]:
    once = np.ones((1, weights.shape[1]))
    drawn, value = statistics.rates(test, weights), statistics.rates(test, once)
    drawn["auc"], value["auc"] = statistics.auc(test, weights), statistics.auc(test, once)
    scores: dict[str, Any] = {"predictions": len(test), "patients": len(set(test.patient))}
    for name in (*RATES, "auc"):
        low, high = statistics.interval(drawn[name])
        found = float(value[name][0])
        known = np.isfinite(found)
        scores[name] = {"value": found, "low": low, "high": high} if known else None
    scores["accuracy"] |= {"k": int(test.hits.sum()), "n": len(test)}
    each = [float(test.of_run(run).hits.mean()) for run in np.unique(test.run)]
    mean, sd = statistics.mean_sd(each)
    scores["accuracy_of_runs"] = {"mean": mean, "sd": sd, "values": each}
    confidence = test.probabilities[np.arange(len(test)), test.predicted]
    scores["calibration_error"] = statistics.calibration_error(confidence, test.hits)
    scores["brier"] = statistics.brier(test.probabilities, test.label)
    return scores


def _compare(
    experiment: Experiment, rows: Sequence[dict], group: Group, weights: np.ndarray
) -> None:
    """Each row with the reference; p values corrected for the number of rows (Holm)."""
    reference = group.test.get(experiment.reference)
    if reference is None:
        return
    compared = []
    for facts in rows:
        test = group.test.get(facts["key"])
        if test is None or facts["key"] == experiment.reference:
            continue
        found = statistics.compare(test, reference, weights)
        if found is not None:
            compared.append((facts["groups"][group.name], found))
    corrected = statistics.holm([found.p for _, found in compared])
    for (numbers, found), p_holm in zip(compared, corrected, strict=True):
        numbers["versus"] = {
            "value": found.value, "low": found.low, "high": found.high,
            "p": found.p, "p_holm": p_holm, "patients": found.patients, "mcnemar": None,
        }  # fmt: skip
    exact = [(numbers, found.mcnemar) for numbers, found in compared if found.mcnemar]
    corrected = statistics.holm([p for _, (_, _, p) in exact])
    for (numbers, (only_row, only_reference, p)), p_holm in zip(exact, corrected, strict=True):
        numbers["versus"]["mcnemar"] = {
            "only_this": only_row, "only_reference": only_reference, "p": p, "p_holm": p_holm,
        }  # fmt: skip
