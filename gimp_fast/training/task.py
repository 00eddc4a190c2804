"""What a run predicts: the classes of the cohort, or one of its targets, fitted to training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gimp_fast import targets
from gimp_fast.data import Cohort
from gimp_fast.errors import GimpError, did_you_mean
from gimp_fast.models import Sizes
from gimp_fast.targets.base import Target
from gimp_fast.targets.regression import Regression
from gimp_fast.targets.survival import Survival
from gimp_fast.training.config import TrainConfig


def target_name(config: TrainConfig, cohort: Cohort) -> str | None:
    """The cohort's target that a run is about; None for its labels.

    Raises:
        GimpError: neither the cohort nor the package knows the target.
    """
    check_target(config.target, cohort.targets)
    if config.target in cohort.targets:
        return config.target
    if not cohort.classes:
        has = ", ".join(cohort.targets)
        raise GimpError(
            f"{cohort.path}: has no labels"
            + (f"; choose one of its targets with --target: {has}" if has else "")
        )
    return None


def check_target(name: str, of_cohort: Iterable[str]) -> None:
    """GimpError unless it is a target of a cohort, or a way to learn its labels."""
    of_labels, of_cohort = targets.available(), tuple(of_cohort)
    if name in of_labels or name in of_cohort:
        return
    if not of_cohort:
        raise GimpError(f"target: found '{name}'; expected {targets.expected_target(name)}")
    labels = f"one of {', '.join(of_labels)}" if len(of_labels) > 1 else of_labels[0]
    near = did_you_mean(name, [*of_cohort, *of_labels]) or "; your own target needs --plugin"
    raise GimpError(
        f"target: found '{name}'; expected {labels}, or a target of the cohort: "
        f"{', '.join(of_cohort)}{near}"
    )


def fitted_target(
    config: TrainConfig, cohort: Cohort, name: str | None, training: Sequence[str]
) -> Target:
    """The target, with what it takes from the training patients.

    Raises:
        GimpError: these patients do not suffice for it.
    """
    if name is None:
        return targets.target(config.target)
    known = cohort.targets[name]
    if known.kind == "class":
        return targets.Classification()
    truth = known.truth(training)
    try:
        if known.kind == "survival":
            return Survival.fit(config.survival, truth, known.unit)
        return Regression.fit(truth)
    except ValueError as error:
        raise GimpError(f"{cohort.path}: target '{name}', training patients: {error}") from error


def model_config_of(config: TrainConfig, cohort: Cohort, num_covariates: int = 0) -> Sizes:
    """Configuration of the model of a run on this cohort; GimpError if sizes do not fit.

    ``num_covariates`` are columns of the scaled covariates.
    """
    genes, gene_sets = 0, config.sets_of(cohort)
    if config.modalities != "slide":
        genes = len(cohort.gene_ids)
        if config.most_variable_genes and not gene_sets:
            genes = min(genes, config.most_variable_genes)
    values = config.model.model_dump() | {
        "num_outputs": _num_outputs(config, cohort, target_name(config, cohort)),
        "feature_dim": cohort.feature_dim or 1,
        "num_genes": genes,
        **({"num_covariates": num_covariates} if num_covariates else {}),
        "gene_sets": tuple(gene_sets.values()) if genes and gene_sets else None,
    }
    if len(config.model_class.reads) > 1:
        values["modalities"] = config.modalities
    try:
        return config.model_class.config_class(**values)
    except ValueError as error:
        raise GimpError(f"model: {error}") from error


def _num_outputs(config: TrainConfig, cohort: Cohort, name: str | None) -> int:
    kind = "class" if name is None else cohort.targets[name].kind
    if kind == "class":
        return len(cohort.classes_of(name))
    return config.survival.num_outputs if kind == "survival" else 1


def check_measure(config: TrainConfig, target: Target) -> None:
    """GimpError if ``finetune.select`` is no score of the target."""
    select = config.finetune.select
    if select is not None and select not in target.measures:
        raise GimpError(
            f"finetune.select: found {select}; expected {' or '.join(target.measures)}, which a "
            f"target of the kind '{target.kind}' has"
        )


def target_of_facts(facts: Mapping[str, Any] | None) -> Target:
    """The target of a checkpoint, whose buffers are among its weights.

    Raises:
        KeyError, TypeError, ValueError: the facts are damaged.
    """
    kinds = {"survival": Survival, "regression": Regression}
    if facts is None or facts["kind"] == "class":
        return targets.Classification()
    return kinds[facts["kind"]].of_facts(facts)
