"""What a run predicts: the classes of the cohort, or its targets, fitted to training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gimp_fast import targets
from gimp_fast.data import Cohort
from gimp_fast.data.cohort_truth import Asked
from gimp_fast.errors import GimpError, did_you_mean
from gimp_fast.models import Sizes
from gimp_fast.targets.base import Target
from gimp_fast.targets.member import Member
from gimp_fast.targets.regression import Regression
from gimp_fast.targets.several import Several
from gimp_fast.targets.survival import Survival
from gimp_fast.training.config import TrainConfig


def asked_of(config: TrainConfig, cohort: Cohort) -> Asked:
    """What a run asks of the cohort: a target, its labels (None), or several of them.

    Raises:
        GimpError: neither the cohort nor the package knows a target, or two are the labels.
    """
    asked = tuple(_asked(name, cohort) for name in config.target_names)
    of_labels = [name for name, one in zip(config.target_names, asked, strict=True) if one is None]
    if len(of_labels) > 1:
        raise GimpError(
            f"target: found {' and '.join(of_labels)}, which are ways to learn the same labels; "
            "expected one of them"
        )
    return asked if len(asked) > 1 else asked[0]


def _asked(name: str, cohort: Cohort) -> str | None:
    check_target(name, cohort.targets)
    if name in cohort.targets:
        return name
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
    config: TrainConfig, cohort: Cohort, asked: Asked, training: Sequence[str]
) -> Target:
    """The target, with what it takes from the training patients.

    Raises:
        GimpError: these patients do not suffice for it.
    """
    if not isinstance(asked, tuple):
        return _fitted(config, cohort, config.target, asked, training)
    members = []
    for (name, weight), one in zip(config.target_weights.items(), asked, strict=True):
        known = [case for case in training if cohort.knows(case, one)]
        target = _fitted(config, cohort, name, one, known)
        members.append(Member(name, target, cohort.classes_of(one), one is None, weight))
    try:
        return Several(members)
    except ValueError as error:
        raise GimpError(f"target: {error}") from error


def _fitted(
    config: TrainConfig, cohort: Cohort, name: str, asked: str | None, training: Sequence[str]
) -> Target:
    if asked is None:
        return targets.target(name)
    known = cohort.targets[asked]
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
        "num_outputs": _num_outputs(config, cohort, asked_of(config, cohort)),
        "feature_dim": cohort.feature_dim or 1,
        "num_genes": genes,
        **({"num_covariates": num_covariates} if num_covariates else {}),
        "gene_sets": tuple(gene_sets.values()) if genes and gene_sets else None,
        **({"linear": True} if has_linear_part(config, cohort) else {}),
    }
    if len(config.model_class.reads) > 1:
        values["modalities"] = config.modalities
    try:
        return config.model_class.config_class(**values)
    except ValueError as error:
        raise GimpError(f"model: {error}") from error


def has_linear_part(config: TrainConfig, cohort: Cohort) -> bool:
    """Whether risks that are linear in each input are added to the model's outputs.

    Raises:
        GimpError: they are asked for, and the only target is not one of survival.
    """
    if not config.survival.linear:
        return False
    asked = asked_of(config, cohort)
    if isinstance(asked, str) and cohort.targets[asked].kind == "survival":
        return True
    raise GimpError(
        f"survival.linear=true: found the target {', '.join(config.target_names)}; expected one "
        "target of survival"
    )


def _num_outputs(config: TrainConfig, cohort: Cohort, asked: Asked) -> int:
    if isinstance(asked, tuple):
        return sum(_num_outputs(config, cohort, one) for one in asked)
    kind = "class" if asked is None else cohort.targets[asked].kind
    if kind == "class":
        return len(cohort.classes_of(asked))
    return config.survival.num_outputs if kind == "survival" else 1


def check_measure(config: TrainConfig, target: Target) -> None:
    """GimpError if ``finetune.select`` is no score of the target."""
    select = config.finetune.select
    if select is None or select in target.measures:
        return
    if isinstance(target, Several):
        near = did_you_mean(select, target.measures)
        raise GimpError(
            f"finetune.select: found {select}; expected one of {', '.join(target.measures)}{near}"
        )
    raise GimpError(
        f"finetune.select: found {select}; expected {' or '.join(target.measures)}, which a "
        f"target of the kind '{target.kind}' has"
    )


def target_of_facts(facts: Mapping[str, Any] | None) -> Target:
    """The target of a checkpoint, whose buffers are among its weights.

    Raises:
        KeyError, TypeError, ValueError: the facts are damaged.
    """
    if facts is not None and facts["kind"] == "several":
        return Several([_member_of_facts(one) for one in facts["targets"]])
    return _target_of_facts(facts)


def _member_of_facts(facts: Mapping[str, Any]) -> Member:
    classes = tuple(map(str, facts["classes"]))
    if bool(classes) != (facts["kind"] == "class"):
        raise ValueError(f"a target '{facts['name']}' of classes {classes}")
    return Member(facts["name"], _target_of_facts(facts), classes, bool(facts["of_labels"]))


def _target_of_facts(facts: Mapping[str, Any] | None) -> Target:
    kinds = {"survival": Survival, "regression": Regression}
    if facts is None or facts["kind"] == "class":
        return targets.Classification()
    return kinds[facts["kind"]].of_facts(facts)
