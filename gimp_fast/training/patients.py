"""What a run checks and records of its patients before the first step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from gimp_fast.data import Cohort
from gimp_fast.data.class_checks import not_learnable
from gimp_fast.data.known_patients import KnownPatients
from gimp_fast.errors import GimpError
from gimp_fast.training.config import TrainConfig
from gimp_fast.training.ranges import TrainingRanges
from gimp_fast.training.stage import StageContext

Log = Callable[[str], None]


def check_classes(
    config: TrainConfig,
    cohort: Cohort,
    split_name: str,
    split: dict[str, list[str]],
    target: str | None,
    name: str | None = None,
) -> None:
    """GimpError for a split of patients who can be read whose classes cannot be trained on.

    ``name`` is that of the target if it is one of several.
    """
    counts, where = cohort.class_counts(split, target), f"{cohort.path}: split '{split_name}'"
    if config.modalities != "both":
        where += f", patients with the modality '{config.modalities}'"
    if name is not None:
        where += f", target '{name}'"
    area = "auc" if name is None else f"{name}:auc"
    if lack := not_learnable(counts):
        raise GimpError(
            f"{where}: {lack}; expected two classes or more, and all of them among the training "
            "patients, because no model can learn a class that it never sees. Choose another "
            "split, or leave the class out of the labels"
        )
    if config.finetune.select == area and not all(counts["val"].values()):
        others = f"{area.removesuffix('auc')}accuracy or loss"
        raise GimpError(
            f"{where}: found a validation part without one of the classes, so that its AUC is "
            f"undefined; expected every class with finetune.select={area}. Choose another split, "
            f"or finetune.select={others}"
        )


def check_several(
    config: TrainConfig,
    cohort: Cohort,
    split_name: str,
    split: dict[str, list[str]],
    asked: tuple[str | None, ...],
) -> None:
    """GimpError if a part of the split lacks one of several targets, or its classes do not fit."""
    for name, one in zip(config.target_names, asked, strict=True):
        known = {p: [c for c in cases if cohort.knows(c, one)] for p, cases in split.items()}
        if lacking := [part for part, cases in known.items() if not cases]:
            raise GimpError(
                f"{cohort.path}: split '{split_name}': found no patient with a value of the target "
                f"'{name}' in {', '.join(lacking)}; expected some in every part. Leave the target "
                "out, or choose another split"
            )
        if cohort.classes_of(one):
            check_classes(config, cohort, split_name, known, one, name)


def facts_of_patients(context: StageContext, cohort: Cohort, log: Log) -> dict[str, Any]:
    """By which new patients are recognised and judged; warns of patients who are in two parts."""
    config, split, scaler = context.config, context.split, context.reader.scaler
    salt = hashlib.sha256(f"{cohort.fingerprint}:{config.seed}".encode()).hexdigest()[:16]
    columns = None if scaler is None else scaler.columns
    known = KnownPatients.of(cohort, split, columns, salt)
    copies = known.find(cohort, split["test"])
    if copies:
        named = [f"{case} ({sighting})" for case, sighting in list(copies.items())[:5]]
        more = f" and {len(copies) - 5} more" if len(copies) > 5 else ""
        log(
            f"warning: the data of {len(copies)} of {len(split['test'])} test patients are in "
            f"training or validation too: {'; '.join(named)}{more}. Test metrics are no evidence "
            "for them"
        )
    ranges = TrainingRanges.of(cohort, split["train"], config.modalities, scaler)
    return {"known_patients": known.as_dict(), "ranges": ranges.as_dict()}
