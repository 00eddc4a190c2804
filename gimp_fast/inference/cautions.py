"""Reasons to doubt a prediction: patients whose data differ from those of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gimp_fast.data import Cohort
from gimp_fast.data.known_patients import TRAINED_PARTS
from gimp_fast.data.names import AS_GIVEN, order_alike
from gimp_fast.inference.model import TrainedModel
from gimp_fast.inference.truth import members_of
from gimp_fast.training.ranges import FAR, expression_statistics

MPP_TOLERANCE = 0.10
FAR_SHARE = 0.05  # a few rare genes are always far off; another unit or batch moves many
_LEVEL = 3.0  # times that of training, or one in so many: another scale, or another depth
_CHUNK = 128  # patients whose expression is read together

CODES = {
    "encoder": "patches were encoded by another model than in training",
    "encoder-unknown": "the patch encoder is recorded on one side only",
    "mpp": "micrometres per pixel differ by more than 10 %",
    "patch-size": "patches of another size in pixels",
    "patch-order": "patches in another order than in training",
    "transform": "expression under another transform than in training",
    "expression-unit": "expression in another unit than in training",
    "genes-missing": "genes of the model that were not measured; the training mean replaces them",
    "expression-scale": "expression looks linear where the model reads logarithms, or the reverse",
    "expression-range": "many genes beyond 6 standard deviations of the training patients",
    "no-slide": "no slide; a learned token replaces it",
    "no-rna": "no RNA; a learned token replaces it",
    "covariate-missing": "a covariate is missing, or of a level that training did not have",
    "small-bag": "fewer patches than 99 % of the training patients",
    "training-patient": "the model was trained or chosen on this patient",
    "class-unknown": "a label that the model does not know",
    "not-predicted": "the patient has nothing that the model reads",
}


@dataclass(frozen=True)
class Caution:
    """One reason to doubt one prediction: one of ``CODES``, and what was found and expected."""

    code: str
    message: str


def cautions_of(
    trained: TrainedModel, cohort: Cohort, case_ids: Sequence[str], columns: np.ndarray | None
) -> dict[str, list[Caution]]:
    """case_id -> reasons to doubt the prediction, in the order of ``CODES``.

    Args:
        trained: the model.
        cohort: the new patients.
        case_ids: the patients to predict.
        columns: (G,) the model's genes among the cohort's; None if it reads none of this cohort.
    """
    of_slides = list(slide_cautions(trained, cohort))
    of_genes = [] if columns is None else list(gene_cautions(trained, cohort, columns))
    seen, found = seen_patients(trained, cohort, case_ids), {}
    for case in case_ids:
        slides = trained.uses_slides and cohort.has_slides(case)
        genes = trained.uses_genes and cohort.has_expression(case)
        found[case] = _of_patient(trained, cohort, case, slides, genes)
        found[case] += [*(of_slides if slides else ()), *(of_genes if genes else ())]
        if case in seen:
            found[case].append(Caution("training-patient", seen[case]))
    with_rna = [] if columns is None else list(filter(cohort.has_expression, case_ids))
    for start in range(0, len(with_rna), _CHUNK):
        cases = with_rna[start : start + _CHUNK]
        values = cohort.expression(cases)[:, columns]
        for case, more in zip(cases, expression_cautions(trained, values), strict=True):
            found[case] += more
    order = list(CODES)
    return {
        case: sorted(cautions, key=lambda c: order.index(c.code))
        for case, cautions in found.items()
    }


def _of_patient(
    trained: TrainedModel, cohort: Cohort, case: str, slides: bool, genes: bool
) -> list[Caution]:
    if not (slides or genes):
        return [Caution("not-predicted", f"the model reads {trained.modalities}")]
    found = []
    if trained.uses_slides and not slides:
        found.append(Caution("no-slide", "slides are missing"))
    if trained.uses_genes and not genes:
        found.append(Caution("no-rna", "RNA is missing"))
    if trained.covariates and (gone := trained.covariates.missing(cohort.covariates, case)):
        found.append(Caution("covariate-missing", ", ".join(gone)))
    fewest = trained.ranges.fewest_patches
    if slides and fewest and (count := cohort.bag(case).num_patches) < fewest:
        text = f"{count} {'patch' if count == 1 else 'patches'}; training: {fewest} or more"
        found.append(Caution("small-bag", text))
    for member in filter(lambda member: member.classes, members_of(trained)):
        label = cohort.class_of(case, member.asked)
        if label is not None and label not in member.classes:
            named = f"{member.name}: " if trained.target.kind == "several" else ""
            classes = ", ".join(member.classes)
            found.append(Caution("class-unknown", f"{named}'{label}'; the model knows {classes}"))
    return found


def slide_cautions(trained: TrainedModel, cohort: Cohort) -> Iterator[Caution]:
    """How a cohort's patches differ from those of training."""
    names = ("encoder", "mpp", "patch_size", "patch_order")
    encoder, mpp, side, order = map(trained.trained_on.get, names)
    if encoder != cohort.encoder:
        code = "encoder" if encoder and cohort.encoder else "encoder-unknown"
        here, there = cohort.encoder or "not recorded", encoder or "not recorded"
        yield Caution(code, f"{here}; training: {there}")
    if mpp and cohort.mpp and abs(cohort.mpp / mpp - 1) > MPP_TOLERANCE:
        yield Caution("mpp", f"{cohort.mpp:g} µm a pixel; training: {mpp:g}")
    if side and cohort.patch_size and side != cohort.patch_size:
        yield Caution("patch-size", f"{cohort.patch_size} pixels; training: {side}")
    if order != cohort.patch_order:
        yield Caution("patch-order", f"{cohort.patch_order}; training: {order}")


def gene_cautions(trained: TrainedModel, cohort: Cohort, columns: np.ndarray) -> Iterator[Caution]:
    """How a cohort's expression differs from that of training in its making."""
    for code, (here, there) in _other_scales(trained, cohort).items():
        if not _makes_no_difference(trained, code, here, there):
            yield Caution(code, f"{here}; training: {there}")
    missing = frozenset(cohort.missing_genes)
    count = sum(cohort.gene_ids[column] in missing for column in columns)
    if count:
        yield Caution("genes-missing", f"{count} of {len(columns)} genes")


def _other_scales(trained: TrainedModel, cohort: Cohort) -> dict[str, tuple[str, str | None]]:
    """Code -> the cohort's transform or unit, and that of training, where they differ."""
    before = trained.trained_on
    found = {"transform": (cohort.expression_transform, before.get("expression_transform"))}
    units = [f.get("column") for f in (cohort.expression_facts, before.get("expression", {}))]
    if all(units):
        found["expression-unit"] = (units[0], units[1])
    return {code: both for code, both in found.items() if both[0] != both[1]}


def _makes_no_difference(trained: TrainedModel, code: str, here: str, there: str | None) -> bool:
    """Whether the model reads the order of genes, and this does not change it."""
    return trained.harmonises and (code == "transform" or order_alike(here, there))


def harmonised(trained: TrainedModel, cohort: Cohort) -> list[str]:
    """Sentences on differences of the expression that a harmonising model does not see."""
    others = _other_scales(trained, cohort) if trained.uses_genes else {}
    unknown = " (if these are no z-scores)" if AS_GIVEN in others.get("transform", ()) else ""
    return [
        f"{trained.source}: {here} for {there}, which order a patient's genes alike{unknown}"
        for code, (here, there) in others.items()
        if _makes_no_difference(trained, code, here, there)
    ]


def expression_cautions(trained: TrainedModel, values: np.ndarray) -> list[list[Caution]]:
    """For each patient, how the expression leaves the range of the training patients.

    The sum of values on another scale is far from that of training, and near it after a logarithm
    or a power of two. What one training patient in a hundred exceeds is no reason to doubt.

    Args:
        trained: the model; without a fitted scaling there is nothing to compare with.
        values: (n, G) in the order of the model's genes, not scaled; NaN where not measured.
    """
    found: list[list[Caution]] = [[] for _ in values]
    if not trained.scaler.mean.any():
        return found
    ranges = trained.ranges
    far, level, logged, raised = expression_statistics(trained.scaler, values)
    most_far = max(FAR_SHARE, ranges.most_far_genes or 0.0)
    highest = max(_LEVEL, ranges.highest_level or 0.0)
    lowest = 1 / _LEVEL if ranges.lowest_level is None else min(1 / _LEVEL, ranges.lowest_level)
    is_linear = (level > highest) & (logged > 0.5) & (logged < 2)
    is_log = (level < lowest) & (raised > 0.2) & (raised < 5)
    for row in np.flatnonzero(is_linear | is_log):
        looks = "linear" if is_linear[row] else "like log2"
        text = f"looks {looks}: {level[row]:.2g} times the level of training"
        found[row].append(Caution("expression-scale", text))
    for row in np.flatnonzero(far > most_far):
        text = f"{far[row]:.0%} of the genes beyond {FAR:g} standard deviations"
        found[row].append(Caution("expression-range", text))
    return found


def seen_patients(trained: TrainedModel, cohort: Cohort, case_ids: Sequence[str]) -> dict[str, str]:
    """case_id -> how it is known that the model was trained or chosen on the patient."""
    if trained.known_patients is not None:
        found = trained.known_patients.find(cohort, case_ids)
        return {case: str(sighting) for case, sighting in found.items()}
    if trained.trained_on.get("fingerprint") != cohort.fingerprint:
        return {}
    split = cohort.split(trained.trained_on["split"])
    return {case: f"in the {part} part" for part in TRAINED_PARTS for case in split[part]}


def unchecked(trained: TrainedModel, cohort: Cohort) -> list[str]:
    """Sentences on what cannot be checked for this model and cohort; usually none."""
    notes, source = [], trained.source
    is_same = trained.trained_on.get("fingerprint") == cohort.fingerprint
    if trained.known_patients is None and not is_same:
        notes.append(
            f"{source}: was trained by an earlier version, which kept nothing by which its "
            "patients can be recognised: training-patient cannot be checked. If some of them are "
            "among these, results are better than on new patients"
        )
    elif trained.known_patients is not None and not is_same:
        for note in trained.known_patients.cannot_compare(cohort):
            notes.append(f"{source}: patients of training cannot be recognised {note}")
    if trained.uses_slides and trained.ranges.fewest_patches is None:
        notes.append(f"{source}: the run kept no sizes of its slides: small-bag cannot be checked")
    return notes


def merged(all_found: Sequence[dict[str, list[Caution]]]) -> dict[str, tuple[Caution, ...]]:
    """The cautions of several models about the same patients, without repetitions."""
    return {
        case: tuple(dict.fromkeys(c for found in all_found for c in found[case]))
        for case in all_found[0]
    }


def codes_of(cautions: Sequence[Caution]) -> str:
    """Codes, each once, separated by semicolons."""
    return ";".join(dict.fromkeys(caution.code for caution in cautions))


def counts(cautions: Mapping[str, Sequence[Caution]]) -> dict[str, int]:
    """Code -> patients, the commonest first."""
    codes = (code for of_case in cautions.values() for code in {c.code for c in of_case})
    return dict(Counter(codes).most_common())


def table_text(cautions: Mapping[str, Sequence[Caution]]) -> str:
    """A line for each code: how many patients, and the message of one of them."""
    examples = {c.code: c.message for of_case in cautions.values() for c in of_case}
    rows = [
        (code, f"{n}/{len(cautions)}", f"{CODES[code]} ({examples[code]})")
        for code, n in counts(cautions).items()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows)
