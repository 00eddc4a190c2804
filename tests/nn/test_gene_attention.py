"""Attention of CLS_ge against dense attention matrices in fp64, for every layout of groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gimp_fast.nn import GeneAttentionProbe, GroupMSA, fragment_columns

LAYOUTS = {
    "even": {"num_genes": 24, "num_fragments": 6, "num_groups": 3},
    "last-group-short": {"num_genes": 23, "num_fragments": 7, "num_groups": 3},
    "one-group": {"num_genes": 5, "num_fragments": 5, "num_groups": 1},
    "gene-sets": {
        "num_genes": 12,
        "num_fragments": 5,
        "gene_sets": [[0, 3, 5], [7], [3, 8, 9, 11]],
    },
}


def encoder(layout) -> GroupMSA:
    torch.manual_seed(0)
    module = GroupMSA(dim=16, heads=4, **layout).double().eval()
    for block in (module.intra, module.inter):
        block.to_qkv.weight.data *= 4
    return module


def dense(block, x, mask=None):
    """The whole attention matrix, averaged over heads: (B, N, N)."""
    q, k, _ = block.to_qkv(block.norm(x)).unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    return scores.softmax(-1).mean(1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_it_is_the_first_row_of_both_levels(layout):
    module = encoder(layout)
    genes = torch.randn(3, layout["num_genes"], dtype=torch.float64)
    seen = {}
    for name in ("intra", "inter"):
        getattr(module, name).register_forward_pre_hook(
            lambda block, args, name=name: seen.update({name: args})
        )
    with GeneAttentionProbe(module) as probe:
        expected_cls = module(genes)
    found = probe.attention()
    groups = dense(module.inter, *seen["inter"])[:, 0, 1:]
    fragments = dense(module.intra, *seen["intra"])[:, 0, 1:].unflatten(0, (3, -1))
    torch.testing.assert_close(found.groups, groups)
    torch.testing.assert_close(found.fragments, fragments)
    torch.testing.assert_close(found.rolled_out(), groups[..., None] * fragments)
    assert found.rolled_out().flatten(1).sum(1).max() <= 1
    assert torch.equal(module(genes), expected_cls)
    assert len(module.intra._forward_pre_hooks) == 1


def test_a_probe_that_saw_no_patient_has_nothing():
    with GeneAttentionProbe(encoder(LAYOUTS["even"])) as probe:
        pass
    assert probe.attention() is None


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_columns_are_what_each_slot_reads(layout):
    module = encoder(layout)
    columns = fragment_columns(module)
    assert len(columns) == module.num_groups * module.group_size
    with torch.no_grad():
        module.project.weight.fill_(1.0)
        before = _first_block_input(module, torch.zeros(1, layout["num_genes"]))
        for gene in range(layout["num_genes"]):
            one = torch.eye(layout["num_genes"])[gene : gene + 1]
            changed = (_first_block_input(module, one) != before).any(1)
            holding = [slot for slot, held in enumerate(columns) if gene in held]
            assert np.flatnonzero(changed.numpy()).tolist() == holding


def _first_block_input(module, genes):
    """(slots, d): the fragments, without the group tokens before them."""
    seen = []
    hook = module.intra.register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    module(genes.double())
    hook.remove()
    return seen[0][:, 1:].flatten(0, 1)


def test_slots_beyond_a_gene_set_get_no_attention():
    module = encoder(LAYOUTS["gene-sets"])
    with GeneAttentionProbe(module) as probe:
        module(torch.randn(2, 12, dtype=torch.float64))
    empty = np.array([len(genes) == 0 for genes in fragment_columns(module)])
    weights = probe.attention().fragments.flatten(1)
    assert empty.any()
    assert (weights[:, empty] == 0).all()
    assert (weights[:, ~empty] > 0).all()
