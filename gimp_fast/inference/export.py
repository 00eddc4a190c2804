"""A trained model as a folder of its own, which needs neither its run nor its cohort."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gimp_fast import __version__
from gimp_fast.errors import GimpError, one_line
from gimp_fast.files.atomic import new_folder, write_text
from gimp_fast.files.safe_text import markdown
from gimp_fast.files.table import write_table
from gimp_fast.inference.model import TrainedModel
from gimp_fast.runs.checkpoint import load_checkpoint, save_checkpoint, with_prefix
from gimp_fast.runs.layout import CARD, CHECKSUMS, EXPORT_CONFIG, EXPORT_FILES, GENES, WEIGHTS
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

EXPORT_VERSION = 1
_KEPT = (
    "method",
    "model",
    "target",
    "cohort",
    "epoch",
    "metrics",
    "training",
    "known_patients",
    "ranges",
    "covariates",
    "gene_harmonise",
)
_GENE_COLUMNS = ("gene_id", "gene_name", "mean", "std")
_UNKNOWN = "not recorded"

_LIMITS = """\
## Use and limits

For research: to predict patients like those it was trained on, and for comparison. It is no
medical device and has not been validated for decisions about patients.

{of_target}
- Hospitals, scanners, encoders, patch sizes and RNA pipelines other than those of training change
  its results. `gimp-fast predict` warns of the differences that it can see; it cannot see all.
- The intervals are over the patients of one split: another cohort or another seed may differ more.

## Licence

gimp_fast is under the MIT licence. These weights come from patients' data and from the features of
a patch encoder. Their terms decide who may use and share the weights: name them here.
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

_LOADING = """\
## Loading

```bash
gimp-fast prepare --slides SLIDES --rna RNA --genes-of THIS_FOLDER --out new_patients
gimp-fast predict --run THIS_FOLDER --data new_patients --out predictions.csv
```

```python
import gimp_fast

model = gimp_fast.load("THIS_FOLDER")
predicted = model.predict(patches, genes)  # (patients, columns), in the order of model.columns
```

Loading verifies `checksums.txt`; so does `sha256sum -c checksums.txt`.
"""


def export_model(trained: TrainedModel, out: str | Path, *, overwrite: bool = False) -> None:
    """Write weights, configuration, genes and a model card; all of them or nothing.

    ``model.safetensors`` is all that loading needs: tensors, and JSON in its header.
    ``config.json`` and ``genes.csv`` repeat it for people and other programs. The card may be
    edited: the checksums are of the other three files.

    Args:
        trained: the model.
        out: folder to write; new or empty.
        overwrite: replace an export that is there.

    Raises:
        GimpError: the folder holds something else, or cannot be written.
    """
    out = Path(out)
    check_place(out, overwrite, _other_than_export, "an export")
    with new_folder(out, replace=overwrite) as folder:
        write_export(trained, folder)


def write_export(trained: TrainedModel, folder: Path) -> None:
    """Write the files of an export into a folder."""
    facts, genes = exported_facts(trained), []
    if trained.scaler is not None:
        columns = (trained.gene_ids, trained.gene_names, trained.scaler.mean, trained.scaler.std)
        rows = (map(str, row) for row in zip(*columns, strict=True))
        genes = [dict(zip(_GENE_COLUMNS, row, strict=True)) for row in rows]
    save_checkpoint(folder / WEIGHTS, _tensors(trained), facts)
    write_text(folder / EXPORT_CONFIG, json.dumps(_config(trained, facts), indent=2) + "\n")
    write_table(folder / GENES, genes, _GENE_COLUMNS)
    write_text(folder / CARD, model_card(trained, facts))
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in (WEIGHTS, EXPORT_CONFIG, GENES)]
    write_text(folder / CHECKSUMS, "".join(lines))


def exported_facts(trained: TrainedModel) -> dict[str, Any]:
    """What the export says of the model, without paths of the machine that trained it."""
    facts = {name: trained.facts[name] for name in _KEPT if name in trained.facts}
    expression = _without(facts["cohort"]["expression"], "paths", "aligned_to")
    return facts | {
        "cohort": facts["cohort"] | {"expression": expression},
        "export_version": EXPORT_VERSION,
        "exported_with": {"gimp_fast": __version__, "torch": str(torch.__version__)},
    }


def _without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def read_export(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of an export, after its files were compared with their checksums.

    Raises:
        GimpError: a file is missing, damaged or changed, or the export is of another version.
    """
    _check_files(path)
    tensors, facts = load_checkpoint(path / WEIGHTS)
    version = facts.get("export_version")
    if version != EXPORT_VERSION:
        raise GimpError(
            f"{path / WEIGHTS}: found export version {version}; expected {EXPORT_VERSION}"
        )
    return tensors, facts


def _check_files(folder: Path) -> None:
    """GimpError unless the files are those of ``checksums.txt``, in the format of sha256sum."""
    listing = folder / CHECKSUMS
    try:
        if not listing.is_file():  # a pipe would be waited for
            raise ValueError("no regular file")
        lines = listing.read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        expected = {name: digest for digest, name in pairs}
    except (OSError, ValueError) as error:
        raise GimpError(f"{listing}: cannot be read as checksums ({one_line(error)})") from error
    others = [name for name in expected if name not in EXPORT_FILES]
    if others:
        raise GimpError(
            f"{listing}: found a checksum of {others[0][:80]!a}; expected those of "
            f"{', '.join(EXPORT_FILES[:3])}"
        )
    if WEIGHTS not in expected:
        raise GimpError(f"{listing}: found no checksum of {WEIGHTS}; the file was changed or cut")
    for name, digest in expected.items():
        file = folder / name
        try:
            if not file.is_file():
                raise FileNotFoundError("missing, or no regular file")
            found = _sha256(file)
        except OSError as error:
            raise GimpError(f"{file}: cannot be read ({error})") from error
        if found != digest:
            raise GimpError(
                f"{file}: found SHA-256 {found[:12]}…; expected {digest[:12]}… as in {CHECKSUMS}: "
                "damaged or changed since the export"
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_place(out: Path, overwrite: bool, others: Callable[[Path], str], what: str) -> None:
    """GimpError unless ``out`` is new or empty, or may be overwritten and is ``what``.

    ``others`` names what a folder holds besides, or lacks; an empty text if it is ``what``.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise GimpError(f"{out}: found a file; expected a new or empty folder")
    if not overwrite:
        raise GimpError(
            f"{out}: found a folder with files in it; expected a new or empty one, or --overwrite "
            f"to replace {what}"
        )
    # Replacing deletes what is there.
    if found := others(out):
        raise GimpError(f"{out}: found {found}; --overwrite only replaces {what}")


def _other_than_export(folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if path.name not in EXPORT_FILES)
    if others:
        return ", ".join(others[:5])
    return "" if (folder / WEIGHTS).is_file() else f"no {WEIGHTS}"


def _tensors(trained: TrainedModel) -> dict[str, Tensor]:
    """All weights of the model, and the gene scaling; no optimiser, no state of a stage."""
    tensors = with_prefix("model", trained.model.state_dict())
    if trained.scaler is not None:
        tensors |= trained.scaler.tensors()
    if trained.slide_scaler is not None:
        tensors |= trained.slide_scaler.tensors()
    if trained.covariates is not None:
        tensors |= trained.covariates.tensors()
    return tensors


def _config(trained: TrainedModel, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without digests, and without the gene list, which is in ``genes.csv``."""
    cohort = _without(facts["cohort"], "gene_ids", "gene_names")
    named = {"modalities": trained.modalities, "classes": list(trained.classes)}
    facts = _without(facts, "known_patients")  # digests, which nobody can read
    return facts | named | {"cohort": cohort, "num_genes": len(trained.gene_ids)}


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
        _LIMITS.format(of_target=_limits_of(trained.target)),
        _LOADING,
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
