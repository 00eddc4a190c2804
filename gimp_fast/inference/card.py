"""The model card of an exported model: what it is, what it was trained on, what it is not for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gimp_fast.training.results import metrics_text

if TYPE_CHECKING:
    from gimp_fast.inference.model import TrainedModel

_READS = {"both": "slides and RNA", "slide": "slides", "rna": "RNA"}
_UNKNOWN = "not recorded"

_LIMITS = """\
## Use and limits

For research: to classify patients of the kind it was trained on, and to be compared with. It is no
medical device and has not been validated for decisions about patients.

- It gives one of its classes to any patient, also to one who has none of them.
- Probabilities are not calibrated.
- Hospitals, scanners, encoders, patch sizes and RNA pipelines other than those of training change
  its results. `gimp-fast predict` warns where it can see that; it cannot see all of it.
- The intervals are over patients of one split: they do not cover another cohort, nor another seed.

## Licence

gimp_fast is under the MIT licence. These weights come from patients' data and from the features of
a patch encoder: their terms decide who may use and share the weights, and are to be named here.
"""

_LOADING = """\
## Loading

```bash
gimp-fast prepare --slides SLIDES --rna RNA --genes-of THIS_FOLDER --out new_patients
gimp-fast predict --run THIS_FOLDER --data new_patients --out predictions.csv
```

```python
import gimp_fast

model = gimp_fast.load("THIS_FOLDER")
probabilities = model.predict(patches, genes)  # (patients, classes), in the order of model.classes
```

`checksums.txt` is for `sha256sum -c` as well; loading checks it.
"""


def model_card(trained: TrainedModel, facts: dict[str, Any]) -> str:
    """Markdown.

    Args:
        trained: the model.
        facts: what its export says of it.
    """
    parts = [_title(trained)]
    if trained.synthetic:
        parts.append(
            "> **SYNTHETIC.** This model was trained on generated patients. It shows that the tool "
            "works and says nothing about real ones.\n"
        )
    parts += [
        "\n".join(_inputs(trained)),
        "\n".join(_training(trained, facts)),
        "\n".join(_results(facts)),
        _LIMITS,
        _LOADING,
    ]
    return "\n".join(parts)


def _title(trained: TrainedModel) -> str:
    classes = ", ".join(trained.classes)
    reads = _READS[trained.modalities]
    return f"# {trained.method}: {reads} → {classes}\n"


def _inputs(trained: TrainedModel) -> Iterator[str]:
    cohort = trained.trained_on
    yield "## What it reads\n\n| | |\n|---|---|"
    if trained.uses_slides:
        mpp = f"{cohort['mpp']:g} µm a pixel" if cohort["mpp"] else _UNKNOWN
        side = f"{cohort['patch_size']} pixels" if cohort["patch_size"] else _UNKNOWN
        yield f"| patch encoder | {cohort['encoder'] or _UNKNOWN}, {trained.feature_dim} channels |"
        yield f"| resolution | {mpp} |"
        yield f"| patch size | {side} |"
        yield f"| patch order | {cohort['patch_order']} |"
    if trained.uses_genes:
        unit = cohort["expression"].get("column") or _UNKNOWN
        yield f"| genes | {len(trained.gene_ids)}, in the order of `genes.csv` |"
        yield f"| unit | {unit} |"
        yield f"| transform | {cohort['expression_transform']}; scaling is part of the model |"
    yield ""


def _training(trained: TrainedModel, facts: dict[str, Any]) -> Iterator[str]:
    cohort, metrics = trained.trained_on, facts.get("metrics", {})
    run, with_ = facts.get("training", {}), facts["exported_with"]
    patients = metrics.get("cohort", {}).get("n", {})
    parts = ", ".join(f"{count} {part}" for part, count in patients.items()) or _UNKNOWN
    kind = "**SYNTHETIC** patients" if trained.synthetic else "patients"
    yield "## What it was trained on\n\n| | |\n|---|---|"
    yield f"| cohort | '{cohort['name']}', {kind}, fingerprint `{cohort['fingerprint'][:16]}` |"
    yield f"| split | {cohort['split']}: {parts} |"
    yield f"| seed, epoch | {run.get('seed', _UNKNOWN)}, {facts.get('epoch', _UNKNOWN)} |"
    yield f"| precision | {trained.precision} |"
    yield (
        f"| versions | trained with gimp_fast {run.get('gimp_fast') or _UNKNOWN}, exported with "
        f"gimp_fast {with_['gimp_fast']}, torch {with_['torch']} |"
    )
    yield ""


def _results(facts: dict[str, Any]) -> Iterator[str]:
    yield "## Results\n"
    metrics = facts.get("metrics", {})
    for part, note in (("test", ""), ("val", " (the epoch was chosen on these patients)")):
        if part in metrics:
            yield f"- {part}{note}: {metrics_text(metrics[part])}"
    if "test" not in metrics:
        yield f"- {_UNKNOWN}"
    yield ""
