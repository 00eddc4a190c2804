"""A table of classes as a document: its facts, its notes, and what a page shows first."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from gimp_fast.evaluation.calibration import ECE
from gimp_fast.evaluation.intervals import WITHOUT_SPREAD
from gimp_fast.evaluation.rates import Share
from gimp_fast.experiments.classes.csv_table import csv_text
from gimp_fast.experiments.classes.drawings import drawings
from gimp_fast.experiments.classes.paper import PAPER
from gimp_fast.experiments.classes.results import Results
from gimp_fast.experiments.classes.tables import grids
from gimp_fast.experiments.classes.vectors import NEIGHBOURS
from gimp_fast.experiments.document import CohortLine, Document, Tile, run_line
from gimp_fast.experiments.finished import Finished
from gimp_fast.experiments.measures import CROSS_ENTROPY
from gimp_fast.experiments.resampling import drawn_words
from gimp_fast.experiments.rows import Row


def document(results: Results) -> Document:
    """What the files of the table show."""
    experiment, call, cohort = results.experiment, results.call, results.call.cohort
    classes = f"classes {', '.join(cohort.classes)}"
    return Document(
        name=experiment.name,
        title=experiment.title,
        about=experiment.about,
        cohorts=(CohortLine.of(cohort, classes),),
        scope=call.scope((group.heading, group.splits) for group in results.groups),
        facts=as_json(results),
        csv=csv_text(results),
        grids=grids(results),
        tiles=tuple(_tiles(results)),
        drawings=partial(drawings, results),
        notes=_notes(results),
        run_lines=[
            run_line(one, *(f"{s.k}/{s.n}" for s in (_share(one, "val"), _share(one, "test"))))
            for one in results.finished
        ],
    )


def _share(one: Finished, part: str) -> Share:
    """How many patients of a part a run predicts correctly."""
    return Share.of(one.predictions.of(part).hits)


def _tiles(results: Results) -> list[Tile]:
    """The accuracy of the reference row in each group of splits."""
    if results.experiment.name == "fig2":
        return []  # Figure 2 does not ask for accuracy
    row = results.experiment.reference_row
    tiles = []
    for group in results.groups:
        if row.key in group.predictions:
            accuracy = group.scores[row.key].test.accuracy
            below = f"{accuracy.k} of {accuracy.n} right"
            tiles.append(Tile(f"{row.title}, {group.heading}", accuracy, below))
    return tiles


def as_json(results: Results) -> dict[str, Any]:
    """What ``results.json`` holds."""
    experiment, call, cohort = results.experiment, results.call, results.call.cohort
    return {
        "experiment": experiment.name, "title": experiment.title, "about": experiment.about,
        "reference": experiment.reference,
        "cohort": {
            "name": cohort.name, "synthetic": cohort.synthetic, "fingerprint": cohort.fingerprint,
            "patients": len(cohort), "classes": cohort.classes,
        },
        "groups": [
            {"name": group.name, "splits": group.splits, "bootstrap_draws": group.units.words}
            for group in results.groups
        ],
        "seeds": call.seeds, "preset": call.preset, "overrides": call.overrides,
        "command": call.command, "environment": call.environment, "resamples": call.resamples,
        "tuning": call.tuning,
        "seconds_of_training": round(sum(one.record.seconds for one in results.finished), 1),
        "rows": [_row_json(results, row) for row in results.rows],
        "runs": [_run_json(one) for one in results.finished],
        "num_runs": results.num_runs, "failed": results.errors, "paper": PAPER,
    }  # fmt: skip


def _row_json(results: Results, row: Row) -> dict[str, Any]:
    facts = asdict(row)
    del facts["delta"]  # one of the overrides
    if row.paper:
        facts["paper"] = {"accuracy": row.paper.value, **asdict(row.paper)}
    facts["skipped"] = results.skipped.get(row.key)
    facts["groups"] = {group.name: asdict(group.scores[row.key]) for group in results.groups}
    probed = [group for group in results.groups if row.key in group.probes]
    facts["probes"] = {group.name: asdict(group.probes[row.key]) for group in probed}
    if results.experiment.name == "fig2":
        measured = [group for group in results.groups if row.key in group.separation]
        facts["separation"] = {g.name: asdict(g.separation[row.key]) for g in measured}
    return facts


def _run_json(one: Finished) -> dict[str, Any]:
    run, record, val, test = one.run, one.record, _share(one, "val"), _share(one, "test")
    return {
        "row": run.row, "split": run.split, "seed": run.seed,
        "folder": one.folder.name, "digest": run.digest,
        "val": {"k": val.k, "n": val.n}, "test": {"k": test.k, "n": test.n},
        "best_epoch": record.best_epoch, "seconds": record.seconds,
    }  # fmt: skip


def _notes(results: Results) -> list[str]:
    """How the numbers are made, a paragraph each."""
    call, scores = results.call, [s for group in results.groups for s in group.scores.values()]
    settings, test = call.settings_words(CROSS_ENTROPY.words), "the bootstrap"
    if any(s.versus and s.versus.accuracy.mcnemar for s in scores):
        test = (
            "McNemar's exact test if every patient is predicted once, and from the bootstrap "
            "otherwise"
        )
    notes = [
        f"Each row is trained on every split with {len(call.seeds)} seed"
        f"{'s' if len(call.seeds) > 1 else ''} (logistic regression, which has no randomness, "
        f"with one), {settings}. The epoch is chosen on the validation patients; test patients "
        "are predicted once, by the chosen model.",
        "Accuracy is the share of test predictions that are right, shown with both counts. "
        "Mean ± SD is over single runs. AUC is the mean over runs, because scores of different "
        "models share no scale; with more than two classes, it is the mean of each class against "
        "the rest.",
        f"Intervals are 95 % percentile intervals of {call.resamples:,} bootstrap resamples. "
        f"What is drawn: {drawn_words(results.groups)}. They show how much depends on what was "
        "drawn, not on training again. " + WITHOUT_SPREAD,
        f"The difference to {results.experiment.reference_row.title} is paired: each patient is "
        f"compared with themselves. Its p is from {test}, corrected for the number of rows by "
        "Holm's method. The differences in AUC and in cross-entropy have their own, always from "
        "the bootstrap.",
        f"{ECE} is the expected calibration error: the mean distance between the probability of "
        "the predicted class and the share of right predictions, over bins that hold equally many "
        "predictions. The Brier score is half the squared distance between probabilities and "
        "truth. Smaller is better for both.",
    ]
    if results.experiment.name == "fig2":
        notes.insert(
            0,
            "The silhouette compares a patient's mean distance to their own class with that to "
            "the nearest other class: 1 is far apart, 0 mixed; mean ± SD over runs. The vote of "
            f"the {NEIGHBOURS} nearest training patients predicts a test patient's class.",
        )
    if any(group.probes for group in results.groups):
        notes.append(
            "What pre-training taught the slide encoder: the share of test patients that logistic "
            "regression of CLS_img gets right, with the weights as they were drawn and with those "
            "after pre-training. No part of the model is trained for it. CLS_img sees slides "
            "alone. Fitted on the training patients, it shows what fine-tuning starts from; but "
            "triplets have seen the classes of these patients, and an encoder that has learned "
            "them by heart does badly here. Fitted on the validation patients, whose classes "
            "pre-training does not see, it shows what the vectors are worth in themselves; there "
            "are fewer of them."
        )
    if any(score.by_modality for score in scores):
        notes.append(
            "Each modality alone: the trained model of slides and RNA, with the other modality "
            "hidden, on the test patients who have both. A model that never lacked one in training "
            "(finetune.modality_dropout) need not be good at it; rows that were trained on one "
            "modality are the fair comparison. The fusion weight is that of the classifier of "
            "both, chosen on the validation patients; at 0, slides are not used."
        )
    if any(row.paper for row in results.rows):
        notes.append(
            f"The paper's figures are of {PAPER}. They come from another cohort and one split, "
            "and are no target here; the paper divides some by 189 patients and some by 190."
        )
    return notes
