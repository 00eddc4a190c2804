"""Models that are pre-trained by alignment, windows and genes for them, and checks of a step."""

from __future__ import annotations

from typing import Any

import torch
from builders.models import CHANNELS, seeded_model
from torch import Tensor

from gimp_fast.models.alignment import AlignedModel

SETTINGS = {
    "num_outputs": 2, "feature_dim": CHANNELS, "num_genes": 23, "dim": 16, "heads": 4,
    "num_landmarks": 8, "head_hidden": 8, "projection_dim": 6, "gene_fragments": 5,
    "gene_groups": 2, "dropout": 0.0, "gene_dropout": 0.0,
}  # fmt: skip
GENE_SETS = ((0, 3, 4, 7, 9), (3, 1), (8,))


def aligned_model(name: str, **changes: Any) -> AlignedModel:
    """A small model in fp64 and eval mode."""
    return seeded_model(name, SETTINGS | changes)


def one_process(rows: Tensor) -> Tensor:
    """The ``gather`` of a run with a single process."""
    return rows


def windows_and_genes(
    patients: int = 4, views: int = 1, length: int = 9, num_genes: int = 23
) -> tuple[Tensor, Tensor]:
    """Windows (b, V, L, C) and genes (b, G) in fp64 of patients with a common hidden cause."""
    generator = torch.Generator().manual_seed(0)
    cause = torch.randn(patients, 3, generator=generator)
    to_patch = torch.randn(3, CHANNELS, generator=generator)
    to_genes = torch.randn(3, num_genes, generator=generator)
    noise = torch.randn(patients, views, length, CHANNELS, generator=generator)
    windows = (cause @ to_patch)[:, None, None] + 0.3 * noise
    return windows.double(), (cause @ to_genes).double()


def check_processes_add_up(model: AlignedModel, windows: Tensor, genes: Tensor) -> None:
    """Loss and gradients of three processes must sum to those of one.

    The parts are weighted as in the engine: means of rows by the total number of patients, scalars
    of gathered rows by an equal share.
    """
    gathered = []

    def record(rows: Tensor) -> Tensor:
        gathered.append(rows.detach())
        return rows

    def backward(terms: dict[str, Tensor], total: int, ranks: int) -> Tensor:
        loss = 0.0
        for term in terms.values():
            share = term.sum() / total if term.dim() else term - term.detach() * (1 - 1 / ranks)
            loss = loss + share
        loss.backward()
        return loss.detach()

    model.zero_grad()
    whole = backward(model.alignment_terms(windows, genes, record), len(genes), 1)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    summed = 0.0
    for part in torch.arange(len(genes)).tensor_split(3):
        from_all = iter(gathered)

        def gather(rows: Tensor, part: Tensor = part, from_all=from_all) -> Tensor:
            rows_of_all = next(from_all).clone()
            torch.testing.assert_close(rows_of_all[part], rows.detach(), rtol=0, atol=1e-9)
            rows_of_all[part] = rows
            return rows_of_all

        terms = model.alignment_terms(windows[part], genes[part], gather)
        summed = summed + backward(terms, len(genes), 3)
    torch.testing.assert_close(summed, whole)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def untrained_by_alignment(model: AlignedModel, windows: Tensor, genes: Tensor) -> set[str]:
    """Names of aligned parameters whose gradient is absent, zero or not finite."""
    terms = model.train().alignment_terms(windows, genes, one_process)
    sum(term.mean() for term in terms.values()).backward()
    aligned = {p for module in model.aligned_modules() for p in module.parameters()}
    assert all(p in aligned or p.grad is None for p in model.parameters())
    return {
        name
        for name, p in model.named_parameters()
        if p in aligned and not (p.grad is not None and p.grad.isfinite().all() and p.grad.any())
    }


def losses_of_aligning(
    model: AlignedModel, windows: Tensor, genes: Tensor, steps: int, lr: float = 2e-3
) -> list[dict[str, float]]:
    """Each term of each step, in fp32 and all on the same patients."""
    model.float().train()
    windows, genes = windows.float(), genes.float()
    parameters = [p for module in model.aligned_modules() for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        terms = model.alignment_terms(windows, genes, one_process)
        sum(term.mean() for term in terms.values()).backward()
        optimizer.step()
        history.append({name: term.mean().item() for name, term in terms.items()})
    return history


def finite_gradients(model: AlignedModel, terms: dict[str, Tensor]) -> bool:
    """True if the sum of the terms has finite gradients."""
    sum(term.mean() for term in terms.values()).backward()
    return all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
