"""Reads the gene list to which new patients are aligned, wherever it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gimp_fast.data.cohort_files import MANIFEST
from gimp_fast.data.prepare.gene_reference import (
    GeneReference,
    make_gene_reference,
    no_gene_list,
    read_cohort_genes,
)
from gimp_fast.errors import GimpError
from gimp_fast.files.json_file import parse_json
from gimp_fast.runs import layout
from gimp_fast.runs.hub import local_copy

_STAGES = ("finetune", "last")


def read_gene_reference(path: str | Path) -> GeneReference:
    """The gene list of a cohort, a run, an exported model or ensemble, or a checkpoint.

    A model may be ``hf://ORGANISATION/NAME``.

    Raises:
        GimpError: a model of the hub cannot be fetched.
        FaultError: the path is none of them, or holds no genes.
    """
    path = local_copy(path)
    if (path / layout.ENSEMBLE).is_file():
        return _of_ensemble(path)
    if (path / MANIFEST).is_file():
        return read_cohort_genes(path)
    try:
        state = parse_json(_state_of(path), path)
        facts, harmonised = state["cohort"], _is_harmonised(state)
    except (GimpError, KeyError, TypeError, ValueError) as error:
        raise no_gene_list(path, error) from error
    return make_gene_reference(path, facts, harmonised=harmonised)


def _of_ensemble(path: Path) -> GeneReference:
    """The gene list of the first member that reads genes; all of them read the same."""
    members = sorted(path.glob(layout.member_name("*")))
    states = [parse_json(_state_of(member), member) for member in members]
    states = [state for state in states if state["cohort"]["gene_ids"]]
    if not states:
        raise no_gene_list(path, GimpError(f"{len(members)} models without genes"))
    harmonised = all(map(_is_harmonised, states))
    return make_gene_reference(path, states[0]["cohort"], harmonised=harmonised)


def _is_harmonised(state: dict[str, Any]) -> bool:
    return state.get("gene_harmonise", "none") != "none"


def _state_of(path: Path) -> str:
    """The JSON in the header of a checkpoint, of which no weights are read."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        files = [layout.checkpoint_file(path, name) for name in _STAGES]
        files.append(path / layout.WEIGHTS)
        path = next((file for file in files if file.is_file()), files[0])
    try:
        with safe_open(path, framework="numpy") as file:
            state = (file.metadata() or {}).get(layout.STATE_KEY)
    except (OSError, SafetensorError) as error:
        raise GimpError(str(error)) from error
    if state is None:
        raise GimpError("a safetensors file that is not a checkpoint of gimp_fast")
    return state
