"""A table of survival as a document: its facts, its notes, and what a page shows first."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from gimp_fast.experiments.document import CohortLine, Document, Tile, run_line
from gimp_fast.experiments.finished import Finished
from gimp_fast.experiments.measures import C_INDEX, concordance_of
from gimp_fast.experiments.resampling import drawn_words
from gimp_fast.experiments.rows import Row, heading_of
from gimp_fast.experiments.survival.drawings import drawings
from gimp_fast.experiments.survival.results import OF_OTHER_SCORES, OfCohort, Results
from gimp_fast.experiments.survival.rows import WITH_FALLBACK
from gimp_fast.experiments.survival.tables import csv_text, grids


def document(results: Results) -> Document:
    """What the files of the table show."""
    first = results.parts[0].call
    return Document(
        name=results.experiment.name,
        title=results.experiment.title,
        about=results.experiment.about,
        cohorts=tuple(_line(part) for part in results.parts),
        scope=first.scope({heading_of(g.name): g.splits for g in results.groups}.items()),
        facts=as_json(results),
        csv=csv_text(results),
        grids=grids(results),
        tiles=tuple(_tiles(results)),
        drawings=partial(drawings, results),
        notes=_notes(results),
        run_lines=[
            run_line(
                one, *(f"{concordance_of(one.predictions.of(p)):.3f}" for p in ("val", "test"))
            )
            for one in results.finished
        ],
    )


def _line(part: OfCohort) -> CohortLine:
    target = part.call.cohort.targets[part.target]
    events = sum(1 for _, event in target.values.values() if event)
    about = f"target {part.target}: {events} events of {len(target.values)} known, {target.unit}"
    return CohortLine.of(part.call.cohort, about)


def _tiles(results: Results) -> list[Tile]:
    """The C-index of the reference row: over cohorts, or of each group of splits."""
    row = results.experiment.reference_row
    if results.overall:
        return [
            Tile(f"{row.title}, {overall.heading}", overall.c_index[row.key], "C-index")
            for overall in results.overall
            if row.key in overall.c_index
        ]
    tiles = []
    for group in results.groups:
        scores = group.scores.get(row.key)
        if scores and scores.test and scores.test.c_index:
            below = f"C-index, {scores.test.events} events of {scores.test.patients} patients"
            tiles.append(Tile(f"{row.title}, {group.heading}", scores.test.c_index, below))
    return tiles


def as_json(results: Results) -> dict[str, Any]:
    """What ``results.json`` holds."""
    experiment, call = results.experiment, results.parts[0].call
    return {
        "experiment": experiment.name, "title": experiment.title, "about": experiment.about,
        "reference": experiment.reference,
        "cohorts": [_cohort_json(part) for part in results.parts],
        "groups": [
            {
                "cohort": group.cohort.name, "name": group.name, "splits": group.splits,
                "bootstrap_draws": group.units.words,
            }
            for group in results.groups
        ],
        "seeds": call.seeds, "preset": call.preset, "overrides": call.overrides,
        "command": call.command, "environment": call.environment, "resamples": call.resamples,
        "tuning": {part.call.cohort.name: part.call.tuning for part in results.parts},
        "seconds_of_training": round(sum(one.record.seconds for one in results.finished), 1),
        "rows": [_row_json(results, row) for row in results.rows],
        "runs": [_run_json(one) for one in results.finished],
        "num_runs": results.num_runs, "failed": results.errors,
    }  # fmt: skip


def _cohort_json(part: OfCohort) -> dict[str, Any]:
    cohort = part.call.cohort
    return {
        "name": cohort.name, "synthetic": cohort.synthetic, "fingerprint": cohort.fingerprint,
        "patients": len(cohort), "target": part.target, "covariates": list(cohort.covariates),
    }  # fmt: skip


def _row_json(results: Results, row: Row) -> dict[str, Any]:
    facts = asdict(row)
    for name in ("delta", "paper"):
        del facts[name]
    facts["skipped"] = results.skipped.get(row.key)
    facts["groups"] = {
        group.heading: asdict(group.scores[row.key])
        for group in results.groups
        if row.key in group.scores
    }
    facts["overall"] = {
        overall.heading: {
            "c_index": asdict(overall.c_index[row.key]),
            "versus": asdict(overall.versus[row.key]) if row.key in overall.versus else None,
        }
        for overall in results.overall
        if row.key in overall.c_index
    }
    return facts


def _run_json(one: Finished) -> dict[str, Any]:
    run, record = one.run, one.record
    val, test = (concordance_of(one.predictions.of(part)) for part in ("val", "test"))
    return {
        "row": run.row, "split": run.split, "seed": run.seed,
        "folder": one.folder.name, "digest": run.digest,
        "val_c_index": round(val, 6), "test_c_index": round(test, 6),
        "best_epoch": record.best_epoch, "seconds": record.seconds,
    }  # fmt: skip


def _notes(results: Results) -> list[str]:
    """How the numbers are made, a paragraph each."""
    call = results.parts[0].call
    notes = [
        f"Each row is trained on every split with {len(call.seeds)} seed"
        f"{'s' if len(call.seeds) > 1 else ''} (Cox's model, which has no randomness, with one), "
        f"{call.settings_words(C_INDEX.words)}. The epoch is chosen on the validation patients; "
        "test patients are predicted once, by the chosen model. Cox's model predicts them after a "
        "second fit, to training and validation patients.",
        "A linear part is Cox's model with a ridge penalty within a network: of the mean of the "
        "bag, of the logarithm of the number of patches, of RNA and of covariates, with fixed "
        'weights. It, too, predicts test patients after a second fit. "Network alone" is GiMP '
        'without it, "linear part alone" the part without a network.',
        "The C-index is Harrell's: the share of pairs of patients whose order of events is known "
        "that a model puts in the right order; 0.5 is chance. Scores are means over runs, because "
        "risks of different models share no scale. Mean ± SD is over single runs.",
        f"Intervals are 95 % percentile intervals of {call.resamples:,} bootstrap resamples "
        f"({min(OF_OTHER_SCORES, call.resamples):,} for scores besides the C-index). What is "
        f"drawn: {drawn_words(results.groups)}. They show how much depends on what was drawn, not "
        "on training again.",
        "Differences are paired: the C-index of a row minus that of GiMP with the same inputs, on "
        "the same patients of the same folds. Their p is from the bootstrap, corrected for the "
        "number of rows by Holm's method.",
        "Uno's C weighs pairs by the censoring of the training patients, up to the last horizon; "
        "the mean AUC and the integrated Brier score are over the horizons, the quartiles of the "
        "cohort's event times. A Brier score is an error: smaller is better.",
    ]
    if results.overall:
        notes.append(
            "The mean over cohorts gives each the same weight. Its interval comes from drawing "
            "each cohort by itself."
        )
    if any(scores.by_modality for group in results.groups for scores in group.scores.values()):
        notes.append(
            "What a model is shown alone: the trained model with the rest of its input hidden, on "
            "the test patients who have slides and RNA. A model that never lacked it in training "
            "(finetune.modality_dropout) need not be good at it; rows that were trained on one "
            "modality are the fair comparison. Covariates alone are what they add to the outputs."
        )
    if any(row.section == WITH_FALLBACK for row in results.rows):
        notes.append(
            "With a fallback, the risk is mixed with that of the ridge Cox model of the same "
            "inputs, both standardised on the validation patients, by the weight of 0, 0.1 … 1 "
            "whose C-index on the validation patients is largest."
        )
    return notes
