"""What the tests of the fusion models share: patients who lack this or that, in every pattern."""

from __future__ import annotations

import itertools

import pytest
import torch

from gimp_fast.models.inputs import PatientInputs

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
        loss = model.loss(labels, PatientInputs.of(**inputs)).loss.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def aligned_batch():
    """Windows (b, V, L, C) and genes (b, G) of patients who share a hidden cause."""
    return _aligned_batch


def _aligned_batch(patients=4, views=1, length=9, num_genes=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cause = torch.randn(patients, 3, generator=generator)
    to_patch = torch.randn(3, CHANNELS, generator=generator)
    to_genes = torch.randn(3, num_genes, generator=generator)
    noise = torch.randn(patients, views, length, CHANNELS, generator=generator)
    windows = (cause @ to_patch)[:, None, None] + 0.3 * noise
    return windows.double(), (cause @ to_genes).double()


@pytest.fixture
def ranks_add_up():
    return _ranks_add_up


def _ranks_add_up(model, windows, genes):
    """Whether three processes' shares of loss and gradients sum to those of one, as the engine
    shares them: means of rows by the total, scalars of gathered rows by an equal part.
    """
    gathered = []

    def record(rows):
        gathered.append(rows.detach())
        return rows

    def backward(terms, total, ranks):
        loss = 0.0
        for term in terms.values():
            own = term.sum() / total if term.dim() else term - term.detach() * (1 - 1 / ranks)
            loss = loss + own
        loss.backward()
        return loss.detach()

    model.zero_grad()
    whole = backward(model.alignment_terms(windows, genes, record), len(genes), 1)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    summed = 0.0
    for part in torch.arange(len(genes)).tensor_split(3):
        others = iter(gathered)

        def gather(rows, part=part, others=others):
            rows_of_all = next(others).clone()
            assert torch.allclose(rows_of_all[part], rows.detach(), atol=1e-9)
            rows_of_all[part] = rows
            return rows_of_all

        terms = model.alignment_terms(windows[part], genes[part], gather)
        summed = summed + backward(terms, len(genes), 3)
    torch.testing.assert_close(summed, whole)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=name)


@pytest.fixture
def untrained_by_alignment():
    return _untrained_by_alignment


def _untrained_by_alignment(model, windows, genes):
    """Names of aligned parameters whose gradient is absent, zero or not finite."""
    terms = model.train().alignment_terms(windows, genes, lambda rows: rows)
    sum(term.mean() for term in terms.values()).backward()
    aligned = {p for module in model.aligned_modules() for p in module.parameters()}
    for p in model.parameters():
        assert p in aligned or p.grad is None
    return {
        name
        for name, p in model.named_parameters()
        if p in aligned and not (p.grad is not None and p.grad.isfinite().all() and p.grad.any())
    }


@pytest.fixture
def aligning_losses():
    return _aligning_losses


def _aligning_losses(model, windows, genes, steps, lr=2e-3):
    """Each term, step after step, of pre-training on the same patients."""
    model.train()
    parameters = [p for module in model.aligned_modules() for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        terms = model.alignment_terms(windows, genes, lambda rows: rows)
        sum(term.mean() for term in terms.values()).backward()
        optimizer.step()
        history.append({name: term.mean().item() for name, term in terms.items()})
    return history
