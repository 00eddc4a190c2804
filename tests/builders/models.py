"""Models with seeded weights, and patients for them: complete, or lacking a modality."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from builders.packed import cu_seqlens_of
from torch import Tensor

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs
from gimp_fast.nn.snn import SNNEncoder

CHANNELS = 12
LENGTHS = (1, 9, 4)
# Of three patients: who has slides, and who has RNA. Every pattern, also with nobody.
_PATTERNS = [
    (slides, rna)
    for slides in itertools.product([True, False], repeat=3)
    for rna in ([True, True, True], [True, False, False], [False, True, False], [False] * 3)
]


def _pattern_id(pattern: tuple[Sequence[bool], Sequence[bool]]) -> str:
    return "-".join("".join("ny"[has] for has in flags) for flags in pattern)


every_pattern = pytest.mark.parametrize("pattern", _PATTERNS, ids=_pattern_id)


def seeded_model(name: str, settings: dict[str, Any], seed: int = 0) -> models.PatientModel:
    """The model in fp64 and eval mode, with the weights of a seed."""
    torch.manual_seed(seed)
    return models.build(name, settings).double().eval()


def patients(
    lengths: Sequence[int], num_genes: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Arguments of a model: one bag of each length, and the genes of as many patients."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "patches": torch.randn(sum(lengths), CHANNELS, generator=generator).to(dtype),
        "cu_seqlens": cu_seqlens_of(lengths),
        "genes": torch.randn(len(lengths), num_genes, generator=generator).to(dtype),
    }


def one_patient(batch: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    """The arguments for only patient i of a batch."""
    start, stop = batch["cu_seqlens"][i : i + 2].tolist()
    return {
        "patches": batch["patches"][start:stop],
        "cu_seqlens": cu_seqlens_of([stop - start]),
        "genes": batch["genes"][i : i + 1],
    }


def patients_lacking(
    slides: Sequence[bool], rna: Sequence[bool], num_genes: int
) -> dict[str, Tensor]:
    """Three patients in fp64 with these modalities; genes that must not be read are NaN."""
    batch = patients(LENGTHS, num_genes, torch.float64)
    bags = zip(batch["patches"].split(LENGTHS), slides, strict=True)
    present = [bag for bag, has in bags if has]
    batch["genes"][~torch.tensor(rna)] = float("nan")
    return {
        "patches": torch.cat([batch["patches"][:0], *present]),
        "cu_seqlens": cu_seqlens_of(map(len, present)),
        "genes": batch["genes"],
        "has_slide": torch.tensor(slides),
        "has_genes": torch.tensor(rna),
    }


def losses_of_overfitting(
    model: models.PatientModel, num_genes: int, steps: int, lr: float = 3e-3
) -> list[float]:
    """Loss of each step, all on the same eight patients."""
    inputs = PatientInputs.of(**patients((1, 3, 5, 2, 7, 4, 1, 6), num_genes, seed=1))
    labels = torch.arange(8) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(labels, inputs).loss.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def snn_by_hand(encoder: SNNEncoder, genes: Tensor) -> Tensor:
    """The blocks of a self-normalising network in eval mode, written out for one patient."""
    hidden = genes
    for linear, _, _ in encoder.blocks:
        hidden = linear.weight @ hidden + linear.bias
        hidden = torch.where(hidden > 0, hidden, hidden.exp() - 1)
    return hidden


def gated_weights_by_hand(scores: torch.nn.Module, rows: Tensor) -> Tensor:
    """Weights (N, 1) of gated attention pooling, written out."""
    gated = torch.tanh(scores.value(rows)) * torch.sigmoid(scores.gate(rows))
    exponentials = scores.score(gated).exp()
    return exponentials / exponentials.sum()
