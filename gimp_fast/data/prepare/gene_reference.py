"""The ordered gene list of a cohort or a trained model, to which new patients are aligned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gimp_fast.data.cohort import open_cohort
from gimp_fast.errors import FaultError, GimpError
from gimp_fast.runs import layout

CHECKPOINTS = ("finetune", "last")


@dataclass(frozen=True)
class GeneReference:
    """What a new patient's expression must become.

    Attributes:
        gene_ids, gene_names: in order; names are empty where not known.
        gene_sets: signature -> columns.
        transform: of the values.
        column: unit of GDC files; None if it came from elsewhere.
    """

    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    gene_sets: dict[str, tuple[int, ...]]
    transform: str
    column: str | None


def read_gene_reference(path: str | Path) -> GeneReference:
    """Read the gene list of a cohort folder, a run folder, an exported model, or a checkpoint.

    Raises:
        FaultError: it is none of them, or holds no genes.
    """
    path = Path(path)
    try:
        is_cohort = (path / "cohort.json").is_file()
        facts = _of_cohort(path) if is_cohort else _of_checkpoint(path)
        reference = GeneReference(
            tuple(map(str, facts["gene_ids"])),
            tuple(map(str, facts["gene_names"])),
            {name: tuple(columns) for name, columns in facts["gene_sets"].items()},
            str(facts["expression_transform"]),
            facts["expression"].get("column"),
        )
    except (GimpError, KeyError, TypeError, ValueError, AttributeError) as error:
        found = " ".join(str(error).split())
        expected = "a cohort folder, a run folder, an exported model or a checkpoint"
        raise FaultError.of("gene-reference", str(path), found, expected) from error
    if not reference.gene_ids:
        found = "a model or cohort without genes"
        raise FaultError.of("gene-reference", str(path), found, "an ordered gene list")
    return reference


def _of_cohort(path: Path) -> dict[str, Any]:
    cohort = open_cohort(path)
    return {
        "gene_ids": cohort.gene_ids,
        "gene_names": cohort.gene_names,
        "gene_sets": cohort.gene_sets,
        "expression_transform": cohort.expression_transform,
        "expression": cohort.expression_facts,
    }


def _of_checkpoint(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        files = [layout.checkpoint_file(path, name) for name in CHECKPOINTS]
        files.append(path / layout.WEIGHTS)
        path = next((file for file in files if file.is_file()), files[0])
    try:
        with safe_open(path, framework="numpy") as file:
            state = (file.metadata() or {}).get(layout.STATE_KEY)
    except (OSError, SafetensorError) as error:
        raise GimpError(str(error)) from error
    if state is None:
        raise GimpError("a safetensors file that is no checkpoint of gimp_fast")
    return json.loads(state)["cohort"]
