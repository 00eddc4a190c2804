"""MGCA: its three terms written out, patients who share no step, what is and is not trained."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from gimp_fast import models
from gimp_fast.losses import swapped_prediction_loss
from gimp_fast.models.mgca import evenly_spaced

SIZES = {"num_classes": 2, "feature_dim": 12, "num_genes": 23}
SMALL = SIZES | {"dim": 16, "heads": 4, "num_landmarks": 8, "head_hidden": 8, "projection_dim": 6,
                 "gene_fragments": 5, "gene_groups": 2, "prototypes": 7, "dropout": 0.0,
                 "gene_dropout": 0.0}  # fmt: skip


def make(**changes):
    torch.manual_seed(0)
    return models.build("mgca", SMALL | changes).eval().double()


def alone(rows):
    return rows


def unit(row):
    return row / row.norm()


def info_nce(first, second, temperature):
    """Rows that are unit vectors; mean of both directions."""
    total = 0.0
    for i in range(len(first)):
        own = first[i] @ second[i] / temperature
        to_second = torch.stack([first[i] @ b / temperature for b in second])
        to_first = torch.stack([a @ second[i] / temperature for a in first])
        total = total - own + 0.5 * (to_second.exp().sum().log() + to_first.exp().sum().log())
    return total / len(first)


def attend(module, queries, rows):
    """Single-head attention, query after query."""
    wq, wk, wv = module.in_proj_weight.chunk(3)
    bq, bk, bv = module.in_proj_bias.chunk(3)
    found = []
    for query in queries:
        scores = torch.stack([(wq @ query + bq) @ (wk @ row + bk) for row in rows])
        weights = (scores / len(query) ** 0.5).softmax(0)
        mixed = sum(w * (wv @ row + bv) for w, row in zip(weights, rows, strict=True))
        found.append(unit(module.out_proj(mixed)))
    return torch.stack(found)


def token_term(model, window, genes):
    """Of one patient."""
    _, patches = model.aggregator(window[None])
    _, fragments = model.gene_encoder.encode(genes[None])
    slots = model.gene_encoder.gene_mask.any(1)
    visual = torch.stack([unit(model.project_patches(p)) for p in patches[0]])
    words = torch.stack([unit(model.project_fragments(f)) for f in fragments[0, slots]])
    seen = attend(model.patches_to_fragments, visual, words)
    read = attend(model.fragments_to_patches, words, visual)
    return 0.7 * 0.5 * (info_nce(visual, seen, 0.1) + info_nce(words, read, 0.1))


@pytest.mark.parametrize("gene_sets", [None, ((0, 3, 4, 7, 9), (3, 1), (8,))], ids=["cut", "sets"])
def test_terms_equal_the_formulas(aligned_batch, gene_sets):
    model = make(gene_sets=gene_sets)
    windows, genes = aligned_batch()
    terms = model.alignment_terms(windows, genes, alone)
    assert list(terms) == ["contrast", "tokens", "prototypes"]
    cls_img, cls_ge = model.aggregator(windows[:, 0])[0], model.gene_encoder(genes)
    slide = torch.stack([unit(model.project_slide(row)) for row in cls_img])
    rna = torch.stack([unit(model.project_genes(row)) for row in cls_ge])
    torch.testing.assert_close(terms["contrast"], info_nce(slide, rna, 0.07))
    expected = [token_term(model, *one) for one in zip(windows[:, 0], genes, strict=True)]
    torch.testing.assert_close(terms["tokens"], torch.stack(expected))
    prototypes = torch.stack([unit(row) for row in model.prototypes.weight[:4]])  # 4 patients
    swap = swapped_prediction_loss(slide @ prototypes.T, rna @ prototypes.T)
    torch.testing.assert_close(terms["prototypes"], 0.5 * swap)


def test_defaults_are_those_of_the_paper():
    settings = models.model_class("mgca").settings_class()
    assert (settings.projection_dim, settings.temperature) == (128, 0.07)
    assert (settings.token_weight, settings.token_temperature) == (0.7, 0.1)
    assert (settings.prototype_weight, settings.prototypes) == (0.5, 500)
    assert (settings.sinkhorn_steps, settings.sinkhorn_epsilon) == (3, 0.05)
    assert settings.prototype_temperature == 0.2


@pytest.mark.parametrize(("total", "most", "expected"), [
    (1, 128, [0]), (5, 128, [0, 1, 2, 3, 4]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]),
])  # fmt: skip
def test_patches_are_spread_over_the_window(total, most, expected):
    assert evenly_spaced(total, most).tolist() == expected


def test_a_subset_of_the_patches_takes_part(aligned_batch):
    windows, genes = aligned_batch(length=10)
    few = make(max_tokens=5).alignment_terms(windows, genes, alone)["tokens"]
    assert few.shape == (4,)
    assert not torch.allclose(few, make().alignment_terms(windows, genes, alone)["tokens"])


def test_words_are_fragments_and_not_padding():
    model = make(gene_sets=((0, 3, 4, 7, 9), (3, 1), (8,)))
    assert model.words.tolist() == [*range(model.gene_encoder.group_size), *(
        model.gene_encoder.group_size * group for group in (1, 2)
    )]  # fmt: skip
    assert model.word_genes.sum() == 8
    assert not any(name.startswith("word") for name in model.state_dict())


@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("num_genes", [1, 7])
def test_one_patient_alone_has_nothing_to_be_contrasted_with(aligned_batch, length, num_genes):
    model = make(num_genes=num_genes, gene_fragments="auto", gene_groups="auto")
    windows, genes = aligned_batch(1, 1, length, num_genes)
    terms = model.alignment_terms(windows, genes, alone)
    assert terms["contrast"] == 0
    assert terms["prototypes"] == 0
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_processes_add_up(aligned_batch, ranks_add_up):
    ranks_add_up(make(), *aligned_batch(5))


def test_everything_that_is_aligned_gets_a_gradient(aligned_batch, untrained_by_alignment):
    model = make()
    untrained = untrained_by_alignment(model, *aligned_batch(7))
    assert untrained == {"aggregator.mask_token"}  # masked patches are GiMP's
    assert model.decoder is None


def test_fine_tuning_trains_encoders_and_head_alone():
    model = make()
    trained = {p for m in model.finetuned_modules(freeze_genes=True) for p in m.parameters()}
    expected = {p for m in (model.head, model.aggregator, model.gene_encoder)
                for p in m.parameters()}  # fmt: skip
    assert trained == expected


def test_predictions_are_gimps():
    """The same encoders and head; projections and prototypes have no part in them."""
    model = make()
    gimp = models.build("gimp", {name: SMALL[name] for name in SMALL
                                 if name not in ("projection_dim", "prototypes")})  # fmt: skip
    gimp = gimp.eval().double()
    gimp.load_state_dict(model.state_dict() | {
        name: value for name, value in gimp.state_dict().items() if name.startswith("decoder")
    }, strict=False)  # fmt: skip
    batch = (torch.randn(5, 12).double(), torch.tensor([0, 2, 5]), torch.randn(2, 23).double())
    assert torch.equal(model.predict(*batch), gimp.predict(*batch))


def test_each_objective_is_learned(aligned_batch, aligning_losses):
    model = make(gene_dropout=0.0).float()
    windows, genes = aligned_batch(8)
    history = aligning_losses(model, windows.float(), genes.float(), 60)
    first, last = history[0], history[-1]
    assert last["contrast"] < 0.2 * first["contrast"]
    assert last["tokens"] < 0.9 * first["tokens"]
    assert last["prototypes"] < first["prototypes"]
    assert first["contrast"] > 0.5 * math.log(8)


def test_bf16_steps_are_finite(aligned_batch):
    model = make().float()
    windows, genes = aligned_batch()
    full = model.alignment_terms(windows.float(), genes.float(), alone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.alignment_terms(windows.float(), genes.float(), alone)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, full[name], rtol=0.05, atol=0.05)
    sum(term.mean() for term in terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_settings_that_cannot_be_aligned_are_refused():
    with pytest.raises(ValidationError, match="slides are aligned with its gene fragments"):
        make(gene_encoder="snn")
    with pytest.raises(ValueError, match="modalities is 'slide'; expected 'both'"):
        make(modalities="slide")
