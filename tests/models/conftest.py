"""What the tests of the fusion models share: patients who lack this or that, in every pattern."""

from __future__ import annotations

import itertools

import pytest
import torch

CHANNELS = 12
# Of three patients: who has slides, and who has RNA. Every pattern, also of nobody.
PATTERNS = [
    (slides, rna)
    for slides in itertools.product([True, False], repeat=3)
    for rna in ([True, True, True], [True, False, False], [False, True, False], [False] * 3)
]
LENGTHS = (1, 9, 4)


def pattern_id(pattern):
    return "-".join("".join("ny"[has] for has in who) for who in pattern)


@pytest.fixture(params=PATTERNS, ids=pattern_id)
def pattern(request):
    """Who has slides, and who has RNA: (three bools, three bools)."""
    return request.param


@pytest.fixture
def batch_of():
    return _batch_of


@pytest.fixture
def steps_until_learned():
    return _steps_until_learned


def _batch_of(slides, rna, num_genes, seed=0):
    """Inputs of three patients, NaN wherever one has nothing to be read."""
    generator = torch.Generator().manual_seed(seed)
    bags = [torch.randn(n, CHANNELS, generator=generator).double() for n in LENGTHS]
    genes = torch.randn(3, num_genes, generator=generator).double()
    genes[~torch.tensor(rna)] = float("nan")
    bags = [bag for bag, has in zip(bags, slides, strict=True) if has]
    return {
        "patches": torch.cat([torch.empty(0, CHANNELS).double(), *bags]),
        "cu_seqlens": torch.tensor([0, *map(len, bags)]).cumsum(0).int(),
        "genes": genes,
        "has_slide": torch.tensor(slides),
        "has_genes": torch.tensor(rna),
    }


def _steps_until_learned(model, num_genes, steps, lr=3e-3):
    """Losses of a model that is shown the same eight patients again and again."""
    generator = torch.Generator().manual_seed(1)
    lengths = (1, 3, 5, 2, 7, 4, 1, 6)
    inputs = {
        "patches": torch.randn(sum(lengths), CHANNELS, generator=generator),
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0).int(),
        "genes": torch.randn(8, num_genes, generator=generator),
    }
    labels = torch.arange(8) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(labels, **inputs).loss.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
