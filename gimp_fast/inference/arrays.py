"""From arrays and tables in memory to the tensors that a trained model reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from gimp_fast.data import Cohort
from gimp_fast.data.rna.genes import find_genes
from gimp_fast.errors import GimpError
from gimp_fast.models.inputs import PatientInputs

if TYPE_CHECKING:
    import pandas as pd

    from gimp_fast.training.scaling import GeneScaler

_SHOWN = 5


class ModelFacts(Protocol):
    """What a :class:`gimp_fast.TrainedModel` says of the inputs that it reads; see there."""

    source: Path
    device: torch.device
    modalities: str
    uses_slides: bool
    uses_genes: bool
    feature_dim: int
    gene_ids: tuple[str, ...]
    gene_names: tuple[str, ...]
    scaler: GeneScaler | None


def model_inputs(
    trained: ModelFacts,
    patches: Sequence[np.ndarray | Tensor | None] | None,
    genes: np.ndarray | pd.DataFrame | None,
) -> PatientInputs:
    """What the model reads, on its device; see ``TrainedModel.predict``."""
    rows = None if genes is None else expression_rows(trained, genes)
    count = len(patches) if patches is not None else 0 if rows is None else len(rows)
    if rows is not None and len(rows) != count:
        raise GimpError(
            f"found {count} bags of patches and {len(rows)} rows of genes; expected as "
            "many of both, one a patient"
        )
    if count == 0:
        raise GimpError("found no patient; expected patches or genes of one or more")
    bags = [None] * count
    if trained.uses_slides and patches is not None:
        bags = [_bag(trained, place, bag) for place, bag in enumerate(patches)]
    has_genes, scaled = [False] * count, None
    if trained.uses_genes:
        scaled, has_genes = _scaled(trained, rows, count)
    nothing = [i for i in range(count) if bags[i] is None and not has_genes[i]]
    if nothing:
        raise GimpError(
            f"patients {_some(nothing)}: found nothing of what the model reads; "
            f"expected {_wanted(trained)}"
        )
    packed = PatientInputs.packed(
        bags if trained.uses_slides else None, scaled, has_genes, feature_dim=trained.feature_dim
    )
    return packed.to(trained.device)


def _bag(trained: ModelFacts, place: int, bag: np.ndarray | Tensor | None) -> Tensor | None:
    """(N, C) float32; None for a patient without patches."""
    if bag is None:
        return None
    rows = torch.as_tensor(bag)
    if rows.dim() != 2 or rows.shape[1] != trained.feature_dim:
        raise GimpError(
            f"patches of patient {place}: found shape {tuple(rows.shape)}; expected "
            f"(patches, {trained.feature_dim}), as the model was trained on"
        )
    rows = rows.detach().cpu().float()
    if not bool(rows.isfinite().all()):
        raise GimpError(f"patches of patient {place}: found NaN or infinity; expected numbers")
    return rows if len(rows) else None


def _scaled(trained: ModelFacts, rows: np.ndarray | None, count: int) -> tuple[Tensor, list[bool]]:
    """Scaled expression (B, G), zero where absent, and who has it."""
    scaled = torch.zeros(count, len(trained.gene_ids))
    if rows is None:
        return scaled, [False] * count
    has_genes = ~np.isnan(rows).all(1)
    scaled[torch.from_numpy(has_genes)] = torch.from_numpy(trained.scaler(rows[has_genes]))
    return scaled, has_genes.tolist()


def expression_rows(trained: ModelFacts, genes: np.ndarray | pd.DataFrame) -> np.ndarray:
    """(B, G) float32 in the order of the model's genes, not scaled.

    Raises:
        GimpError: another number of columns, genes that are missing, or infinite values.
    """
    if not trained.uses_genes:
        return np.empty((len(genes), 0), np.float32)
    if hasattr(genes, "columns"):
        ids = [str(name) for name in genes.columns]
        places = gene_columns(trained, ids, ("",) * len(ids), "the table of genes")
        values = genes.to_numpy(dtype=np.float32)[:, places]
    else:
        values = np.asarray(genes, np.float32)
        if values.ndim != 2 or values.shape[1] != len(trained.gene_ids):
            raise GimpError(
                f"genes: found shape {values.shape}; expected (patients, {len(trained.gene_ids)}), "
                "the columns of gene_ids"
            )
    if np.isinf(values).any():
        raise GimpError("genes: found infinite values; expected numbers, or NaN if not measured")
    return values


def cohort_columns(trained: ModelFacts, cohort: Cohort) -> np.ndarray:
    """(G,) columns of a cohort's expression in the order of the model's genes."""
    if cohort.gene_ids == trained.gene_ids:
        return np.arange(len(trained.gene_ids))
    return gene_columns(trained, cohort.gene_ids, cohort.gene_names, str(cohort.path))


def gene_columns(
    trained: ModelFacts, gene_ids: Sequence[str], gene_names: Sequence[str], where: str
) -> np.ndarray:
    """(G,) places of the model's genes among those of a table: by id, else by name.

    Ids match whatever their version.

    Raises:
        GimpError: a gene is missing.
    """
    rows = [
        {"gene_id": id, "gene_name": name} for id, name in zip(gene_ids, gene_names, strict=True)
    ]
    found = find_genes(rows, trained.gene_ids, trained.gene_names)
    missing = [id for id, place in zip(trained.gene_ids, found, strict=True) if place is None]
    if missing:
        raise GimpError(
            f"{where}: found {len(found) - len(missing)} of the model's {len(found)} genes; "
            f"missing: {_some(missing)}. `gimp-fast prepare --genes-of {trained.source}` aligns "
            "new patients to the model and reports genes that were not measured; in a table, such "
            "a gene is a column of NaN"
        )
    return np.array(found, np.int64)


def _wanted(trained: ModelFacts) -> str:
    return {"both": "patches or genes", "slide": "patches", "rna": "genes"}[trained.modalities]


def _some(items: Sequence[object]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(map(str, items[:_SHOWN])) + more
