"""GroupMSA: counts that do not divide, what each gene reaches, gradients."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.nn import GroupMSA

# (genes, fragments, groups): dividing, nothing dividing, one of everything, groups left over.
COUNTS = [(64, 8, 4), (67, 8, 3), (1, 1, 1), (50, 10, 4), (10, 9, 9), (61, 16, 7)]


@pytest.mark.parametrize("counts", COUNTS, ids=["-".join(map(str, c)) for c in COUNTS])
def test_every_gene_reaches_the_cls_token(counts):
    genes, fragments, groups = counts
    torch.manual_seed(0)
    encoder = GroupMSA(genes, dim=16, heads=4, num_fragments=fragments, num_groups=groups).double()
    x = torch.randn(3, genes, dtype=torch.float64, requires_grad=True)
    cls = encoder(x)
    assert cls.shape == (3, 16)
    (gradient,) = torch.autograd.grad((cls * torch.randn(3, 16)).sum(), x)
    assert (gradient != 0).all()


def test_patients_do_not_mix():
    encoder = GroupMSA(67, dim=16, heads=4, num_fragments=8, num_groups=3).double()
    x = torch.randn(4, 67, dtype=torch.float64)
    alone = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(encoder(x), alone, rtol=1e-12, atol=1e-12)


def test_fragments_have_identities():
    """A shared projection without them could not tell which fragment a value came from."""
    encoder = GroupMSA(64, dim=16, heads=4, num_fragments=8, num_groups=2)
    x = torch.randn(1, 64)
    swapped = torch.cat([x[:, 8:16], x[:, :8], x[:, 16:]], dim=1)
    assert not torch.allclose(encoder(x), encoder(swapped), atol=1e-5)


def test_the_papers_gene_count_and_todays_fit():
    for genes in (60_480, 60_483, 60_660):
        encoder = GroupMSA(genes, dim=16, heads=2, num_fragments=64, num_groups=8)
        assert encoder(torch.randn(2, genes)).shape == (2, 16)


def test_all_parameters_get_gradients():
    encoder = GroupMSA(50, dim=16, heads=4, num_fragments=10, num_groups=5, mlp_ratio=2)
    encoder(torch.randn(2, 50)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroupMSA(10, num_fragments=11, num_groups=2), "got 2, 11, 10"),
        (lambda: GroupMSA(10, num_fragments=4, num_groups=5), "got 5, 4, 10"),
        (lambda: GroupMSA(10, num_fragments=4, num_groups=0), "got 0, 4, 10"),
        (lambda: GroupMSA(10, dim=30, heads=4, num_fragments=4, num_groups=2), "must divide dim"),
        (
            lambda: GroupMSA(10, dim=8, num_fragments=4, num_groups=2)(torch.ones(2, 9)),
            r"\(B, 10\), got \(2, 9\)",
        ),
    ],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
