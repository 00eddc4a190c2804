"""The model card of an export: what the model is, what it was trained on, what it is not for."""

from __future__ import annotations

from typing import Any

from gimp_fast.files.safe_text import markdown
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs.score_texts import (
    READS,
    fusion_text,
    has_scores,
    metrics_text,
    modality_lines,
    modality_note,
)
from gimp_fast.runs.scores import ByModality, Fusion
from gimp_fast.targets import Target
from gimp_fast.targets.several import Several

_UNKNOWN = "not recorded"

# What the card asks for, and what publishing it puts in their place.
LICENCE_ASKED = "name them here."
FOLDER_ASKED = "THIS_FOLDER"

_LIMITS = """\
## Use and limits

For research, and **not for clinical use**: to predict patients like those it was trained on, and
for comparison. It is no medical device and has not been validated for decisions about patients.

{of_target}
- Hospitals, scanners, encoders, patch sizes and RNA pipelines other than those of training change
  its results. `gimp-fast predict` warns of the differences that it can see; it cannot see all.
- The intervals are over the patients of one split: another cohort or another seed may differ more.

## Licence

gimp_fast is under the MIT licence. These weights come from patients' data and from the features of
a patch encoder. Their terms decide who may use and share the weights: {asked}
"""

_OF_TARGET = {
    "class": (
        "- It assigns one of its classes to every patient, also to patients who belong to none of "
        "them.\n- Probabilities are not calibrated."
    ),
    "survival": (
        "- Risks order patients; they have no unit. Survival at horizons depends on treatment and "
        "on\n  when and where patients were treated."
    ),
    "regression": "- It gives a number for every patient, also for one unlike any of training.",
}

LOADING = f"""\
## Loading

```bash
gimp-fast prepare --slides SLIDES --rna RNA --genes-of {FOLDER_ASKED} --out new_patients
gimp-fast predict --run {FOLDER_ASKED} --data new_patients --out predicted
```

```python
import gimp_fast

model = gimp_fast.load("{FOLDER_ASKED}")
predicted = model.predict(patches, genes)  # (patients, columns), in the order of model.columns
```
"""
_VERIFIED = """
Loading verifies `checksums.txt`; so does `sha256sum -c checksums.txt`.
"""


def model_card(trained: TrainedModel, facts: dict[str, Any]) -> str:
    """The model card as Markdown: what the model is, what it was trained on, what it is not for.

    Args:
        trained: the model.
        facts: what its export says of it.
    """
    cohort, metrics, run = trained.trained_on, facts.get("metrics", {}), facts.get("training", {})
    columns = ", ".join(map(markdown, trained.columns))
    title = f"# {markdown(trained.method)}: {READS[trained.modalities]} → {columns}\n"
    reads, kind = {}, "patients"
    if trained.uses_slides:
        mpp, side = cohort["mpp"], cohort["patch_size"]
        encoder = markdown(cohort["encoder"] or _UNKNOWN)
        reads |= {
            "patch encoder": f"{encoder}, {trained.feature_dim} channels",
            "resolution": f"{mpp:g} µm a pixel" if mpp else _UNKNOWN,
            "patch size": f"{side} pixels" if side else _UNKNOWN,
            "patch order": markdown(cohort["patch_order"]),
        }
    if trained.uses_genes:
        transform = markdown(cohort["expression_transform"])
        reads |= {
            "genes": f"{len(trained.gene_ids)}, in the order of `genes.csv`",
            "unit": markdown(cohort["expression"].get("column") or _UNKNOWN),
            "transform": f"{transform}; scaling is part of the model",
        }
    if trained.harmonises:
        reads["harmonised"] = (
            f"by {trained.scaler.harmonise}, within each patient: also takes units and transforms "
            "that order a patient's genes alike"
        )
    if trained.covariates is not None:
        hidden = getattr(trained.model.config, "covariate_hidden", 0)
        layer = f"; through a hidden layer of {hidden}" if hidden else ""
        reads["covariates"] = ", ".join(map(markdown, trained.covariates.names)) + layer
    if (fusion := _fusion(trained, metrics)) is not None:
        reads["fusion of both"] = fusion_text(fusion)
    if trained.synthetic:
        kind = "**SYNTHETIC** patients"
        title += (
            "\n> **SYNTHETIC.** This model was trained on generated patients. It shows that the "
            "tool works and says nothing about real patients.\n"
        )
    patients = metrics.get("cohort", {}).get("n", {})
    parts = ", ".join(f"{count} {part}" for part, count in patients.items()) or _UNKNOWN
    name, split = markdown(cohort["name"]), markdown(cohort["split"])
    training = {
        "cohort": f"'{name}', {kind}, fingerprint `{markdown(cohort['fingerprint'][:16])}`",
        "split": f"{split}: {parts}",
        "seed, epoch": f"{run.get('seed', _UNKNOWN)}, {facts.get('epoch', _UNKNOWN)}",
        "precision": trained.precision,
        "versions": f"trained with gimp_fast {run.get('gimp_fast') or _UNKNOWN}, exported with "
        "gimp_fast {gimp_fast}, torch {torch}".format(**facts["exported_with"]),
    }
    sections = [
        title,
        _card_table("What it reads", reads),
        _card_table("What it was trained on", training),
        *(f"- Caution: {markdown(text)}" for text in metrics.get("cautions", ())),
        _card_results(metrics),
        _LIMITS.format(of_target=_limits_of(trained.target), asked=LICENCE_ASKED),
        LOADING + _VERIFIED,
    ]
    return "\n".join(sections)


def _limits_of(target: Target) -> str:
    """What the card says of a target, or of each of several."""
    if not isinstance(target, Several):
        return _OF_TARGET[target.kind]
    lines = []
    for kind in dict.fromkeys(member.target.kind for member in target.members):
        named = ", ".join(markdown(m.name) for m in target.members if m.target.kind == kind)
        lines.append(_OF_TARGET[kind].replace("- ", f"- {named}: "))
    return "\n".join(lines)


def _fusion(trained: TrainedModel, metrics: dict[str, Any]) -> Fusion | None:
    """The weight in the model, and how many patients chose it where that is recorded."""
    weight = trained.model.fusion_weight_of_both()
    if weight is None:
        return None
    chosen_on = (metrics.get("fusion") or {}).get("chosen_on")
    return Fusion(weight=weight, chosen_on=chosen_on)


def _card_results(metrics: dict[str, Any]) -> str:
    """Metrics of both parts, and of each modality alone where the run recorded them."""
    if metrics.get("targets"):
        lines = [
            line
            for name, scores in metrics["targets"].items()
            for line in _part_lines(scores, f"{markdown(name)}, ")
        ]
    else:
        lines = _part_lines(metrics)
    if recorded := metrics.get("by_modality"):
        scores = ByModality.model_validate(recorded)
        lines += [f"- test, {shown}: {markdown(text)}" for shown, text in modality_lines(scores)]
        lines.append(f"\n{markdown(modality_note(scores))}")
    return "\n".join(["## Results\n", *lines, ""])


def _part_lines(metrics: dict[str, Any], of_target: str = "") -> list[str]:
    """The metrics of both parts, of one target."""
    notes = {"test": "", "val": " (the epoch was chosen on these patients)"}
    lines = [
        f"- {of_target}{part}{note}: {metrics_text(metrics[part])}"
        for part, note in notes.items()
        if has_scores(metrics.get(part))
    ]
    if not has_scores(metrics.get("test")):
        lines.append(f"- {of_target}{_UNKNOWN}")
    return lines


def _card_table(title: str, rows: dict[str, str]) -> str:
    lines = [f"| {name} | {text} |" for name, text in rows.items()]
    return "\n".join([f"## {title}\n\n| | |\n|---|---|", *lines, ""])
