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
    single = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(encoder(x), single, rtol=1e-12, atol=1e-12)


def test_fragments_have_identities():
    """Without them, the shared projection could not distinguish the fragments."""
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


SETS = [[0, 3, 4, 7, 9], [3, 1], [8]]  # gene 3 twice; genes 2, 5, 6 in none


def with_sets(gene_sets=SETS, num_genes=10, num_fragments=4, **changes):
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 4, "num_fragments": num_fragments} | changes
    return GroupMSA(num_genes, **sizes, gene_sets=gene_sets).double()


def attend(block, rows):
    """The block's first row, written out: one softmax a head over all rows."""
    q, k, v = block.to_qkv(block.norm(rows)).chunk(3, -1)
    outputs = []
    for qh, kh, vh in zip(*(x.chunk(block.heads, -1) for x in (q, k, v)), strict=True):
        weights = (qh[:1] @ kh.T / kh.shape[1] ** 0.5).softmax(-1)
        outputs.append(weights @ vh)
    return rows[:1] + block.to_out(torch.cat(outputs, -1))


def test_gene_sets_are_groups_of_their_own_size():
    """Eight listed genes in four fragments: two genes each, so three, one and one fragment."""
    encoder = with_sets()
    assert (encoder.fragment_size, encoder.num_fragments) == (2, 5)
    assert (encoder.num_groups, encoder.group_size) == (3, 3)
    x = torch.randn(10, dtype=torch.float64)
    fragments = [
        [(x[0], x[3]), (x[4], x[7]), (x[9], 0.0)],
        [(x[3], x[1])],
        [(x[8], 0.0)],
    ]
    tokens = [encoder.cls_token[0]]
    for group, members in enumerate(fragments):
        rows = encoder.project(torch.tensor(members, dtype=torch.float64))
        rows = rows + encoder.fragment_embedding[3 * group : 3 * group + len(members)]
        tokens.append(attend(encoder.intra, torch.cat([encoder.group_tokens[group], rows])))
    expected = encoder.norm(attend(encoder.inter, torch.cat(tokens)))
    torch.testing.assert_close(encoder(x[None]), expected, rtol=1e-12, atol=1e-12)


def test_padded_slots_do_not_count():
    encoder = with_sets()
    x = torch.randn(3, 10, dtype=torch.float64)
    before = encoder(x)
    # Random, because the norm would remove a constant.
    with torch.no_grad():
        encoder.fragment_embedding[[4, 5, 7, 8]] = 100 * torch.randn(4, 16, dtype=torch.float64)
    assert torch.equal(encoder(x), before)
    with torch.no_grad():
        encoder.fragment_embedding[3] += torch.randn(16, dtype=torch.float64)
    assert not torch.allclose(encoder(x), before)


def test_genes_of_a_set_and_no_others_get_gradients():
    encoder = with_sets()
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    encoder(x).square().sum().backward()
    listed = sorted({gene for genes in SETS for gene in genes})
    unlisted = sorted(set(range(10)) - set(listed))
    assert (x.grad[:, listed] != 0).all()
    assert (x.grad[:, unlisted] == 0).all()
    permuted = x.detach().clone()
    permuted[:, unlisted] = x.detach()[:, unlisted[::-1]]
    assert torch.equal(encoder(permuted), encoder(x))


def test_a_gene_counts_in_each_of_its_sets():
    """Moving gene 3 out of one set leaves its influence through the other."""
    x = torch.randn(1, 10, dtype=torch.float64, requires_grad=True)
    gradients = []
    for sets in (SETS, [[0, 2, 4, 7, 9], [3, 1], [8]], [[0, 3, 4, 7, 9], [2, 1], [8]]):
        (gradient,) = torch.autograd.grad(with_sets(sets)(x).square().sum(), x)
        gradients.append(gradient[0, 3])
    assert all(gradient != 0 for gradient in gradients)
    assert len({gradient.item() for gradient in gradients}) == 3


def test_patients_do_not_mix_with_gene_sets():
    encoder = with_sets(mlp_ratio=2)
    x = torch.randn(4, 10, dtype=torch.float64)
    single = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(encoder(x), single, rtol=1e-12, atol=1e-12)


def test_sets_in_order_are_the_groups_in_order():
    """With sets of equally many consecutive genes, the encoder equals that without sets."""
    torch.manual_seed(0)
    plain = GroupMSA(24, dim=16, heads=4, num_fragments=6, num_groups=3)
    sets = with_sets([range(0, 8), range(8, 16), range(16, 24)], 24, 6).float()
    assert sets.slot_mask is None
    assert list(plain.state_dict()) == list(sets.state_dict())
    sets.load_state_dict(plain.state_dict())
    x = torch.randn(2, 24)
    torch.testing.assert_close(sets(x), plain(x))


@pytest.mark.parametrize("fragments", [1, 3, 8])
@pytest.mark.parametrize("heads", [1, 4])
def test_number_of_fragments_with_gene_sets(fragments, heads):
    encoder = with_sets(num_fragments=fragments, heads=heads)
    assert fragments <= encoder.num_fragments < fragments + len(SETS)
    assert encoder(torch.randn(2, 10, dtype=torch.float64)).isfinite().all()


def test_what_is_saved_has_no_index():
    plain = GroupMSA(10, dim=16, heads=4, num_fragments=4, num_groups=2)
    assert set(with_sets().state_dict()) == {name for name, _ in plain.named_parameters()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: with_sets([]), "gene_sets is empty"),
        (lambda: with_sets([[1], []]), "gene set 1 is empty"),
        (lambda: with_sets([[1], [3, 10]]), "gene set 1: column 10 is not in 0 … 9"),
        (lambda: with_sets([[-1]]), "gene set 0: column -1 is not"),
        (lambda: with_sets([[1, 2, 1]]), "gene set 0 has column 1 twice"),
        (lambda: with_sets(num_fragments=9), "got 9, 8"),
        (lambda: with_sets(num_fragments=0), "got 0, 8"),
        (lambda: GroupMSA(10, num_fragments=11, num_groups=2), "got 2, 11, 10"),
        (lambda: GroupMSA(10, num_fragments=4, num_groups=5), "got 5, 4, 10"),
        (lambda: GroupMSA(10, num_fragments=4, num_groups=0), "got 0, 4, 10"),
        (lambda: GroupMSA(10, dim=30, heads=4, num_fragments=4, num_groups=2), "must divide dim"),
        (
            lambda: GroupMSA(10, dim=8, num_fragments=4, num_groups=2)(torch.ones(2, 9)),
            r"\(B, 10\), got \(2, 9\)",
        ),
    ],
    ids=[
        "no-sets",
        "empty-set",
        "large-column",
        "negative-column",
        "column-twice",
        "fragments",
        "no-fragments",
        "fragments-over-genes",
        "groups-over-fragments",
        "no-groups",
        "heads",
        "genes",
    ],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_encoding_shows_the_fragments_after_their_groups_attention():
    """A slot's token is the residual stream of the first block, slot after slot."""
    encoder = with_sets()
    x = torch.randn(10, dtype=torch.float64)
    cls, fragments = encoder.encode(x[None])
    assert torch.equal(cls, encoder(x[None]))
    assert fragments.shape == (1, 9, 16)
    rows = encoder.project(torch.stack([x[[0, 3]], x[[4, 7]], x[9] * torch.tensor([1.0, 0.0])]))
    rows = torch.cat([encoder.group_tokens[0], rows + encoder.fragment_embedding[:3]])
    for slot in range(3):
        # `attend` computes the first row, so rotate each fragment to the front.
        rotated = torch.cat([rows[slot + 1 :], rows[: slot + 1]])
        torch.testing.assert_close(fragments[0, slot], attend(encoder.intra, rotated)[0])


@pytest.mark.parametrize("counts", COUNTS, ids=["-".join(map(str, c)) for c in COUNTS])
def test_the_gene_mask_tells_genes_from_padding(counts):
    genes, fragments, groups = counts
    encoder = GroupMSA(genes, dim=16, heads=4, num_fragments=fragments, num_groups=groups)
    mask = encoder.gene_mask
    assert mask.shape == (encoder.num_groups * encoder.group_size, encoder.fragment_size)
    assert mask.sum() == genes
    assert mask.any(1).sum() == encoder.num_fragments
    x = torch.randn(2, genes)
    cut = encoder.cut(x)
    assert torch.equal(cut[:, mask], x)
    assert not cut[:, ~mask].any()


def test_the_gene_mask_of_gene_sets():
    mask = with_sets().gene_mask
    assert mask.tolist() == [
        *([True, True], [True, True], [True, False]),
        *([True, True], [False, False], [False, False]),
        *([True, False], [False, False], [False, False]),
    ]


def test_a_masked_fragment_is_not_read_but_known_by_its_place():
    torch.manual_seed(0)
    encoder = GroupMSA(12, dim=16, heads=4, num_fragments=4, num_groups=2).double()
    token = torch.randn(16, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 12, dtype=torch.float64)
    masked = torch.tensor([[False, True, False, False], [False, False, False, True]])
    other = x.clone()
    other[0, 3:6], other[1, 9:] = float("inf"), 7.0
    cls, fragments = encoder.encode(x, masked=masked, mask_token=token)
    unseen = encoder.encode(other, masked=masked, mask_token=token)
    assert torch.equal(unseen[0], cls)
    assert torch.equal(unseen[1], fragments)
    assert not torch.allclose(fragments[0, 1], fragments[1, 3])
    nothing = torch.zeros_like(masked)
    for found, plain in zip(
        encoder.encode(x, masked=nothing, mask_token=token), encoder.encode(x), strict=True
    ):
        assert torch.equal(found, plain)
    (cls * torch.randn(2, 16)).sum().backward()
    assert token.grad.any()


@pytest.mark.parametrize(
    "arguments",
    [{"masked": torch.ones(2, 4) > 0}, {"mask_token": torch.ones(8)}],
    ids=["mask", "token"],
)
def test_a_mask_needs_a_token_and_a_token_a_mask(arguments):
    encoder = GroupMSA(10, dim=8, heads=2, num_fragments=4, num_groups=2)
    with pytest.raises(ValueError, match="go together"):
        encoder.encode(torch.ones(2, 10), **arguments)


@pytest.mark.parametrize("counts", COUNTS, ids=["-".join(map(str, c)) for c in COUNTS])
def test_projections_of_their_own_are_linear_maps_of_each_fragment(counts):
    genes, fragments, groups = counts
    torch.manual_seed(0)
    encoder = GroupMSA(
        genes, dim=16, heads=4, num_fragments=fragments, num_groups=groups, projection="own"
    ).double()
    x = torch.randn(3, genes, dtype=torch.float64)
    cut = encoder.cut(x)
    projected = encoder.project(cut)
    for slot in range(cut.shape[1]):
        expected = cut[:, slot] @ encoder.project.weight[slot]
        torch.testing.assert_close(projected[:, slot], expected, rtol=1e-12, atol=1e-12)
    single = torch.cat([encoder(row[None]) for row in x])
    torch.testing.assert_close(encoder(x), single, rtol=1e-12, atol=1e-12)
    encoder(x).square().sum().backward()
    used = encoder.gene_mask[..., None].expand_as(encoder.project.weight)
    assert (encoder.project.weight.grad[used] != 0).all()
    assert (encoder.project.weight.grad[~used] == 0).all()


def test_projections_of_their_own_also_have_gene_sets():
    encoder = with_sets(projection="own")
    x = torch.randn(2, 10, dtype=torch.float64)
    assert encoder(x).shape == (2, 16)
    assert encoder.project.weight.shape[:2] == encoder.gene_mask.shape
