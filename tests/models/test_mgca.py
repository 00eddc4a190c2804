"""MGCA: its three terms written out, its subset of patches, what fine-tuning trains."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from builders.alignment import (
    GENE_SETS,
    SETTINGS,
    aligned_model,
    losses_of_aligning,
    one_process,
    windows_and_genes,
)

from gimp_fast import models
from gimp_fast.losses import swapped_prediction_loss
from gimp_fast.models.mgca import evenly_spaced

make = partial(aligned_model, "mgca", prototypes=7)


def unit(row):
    return row / row.norm()


def info_nce(first, second, temperature):
    """InfoNCE of unit vectors, the mean of both directions."""
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
    attended = []
    for query in queries:
        scores = torch.stack([(wq @ query + bq) @ (wk @ row + bk) for row in rows])
        weights = (scores / len(query) ** 0.5).softmax(0)
        mixed = sum(w * (wv @ row + bv) for w, row in zip(weights, rows, strict=True))
        attended.append(unit(module.out_proj(mixed)))
    return torch.stack(attended)


def token_term(model, window, genes):
    """The contrast of tokens of one patient."""
    _, patches = model.aggregator(window[None])
    _, fragments = model.gene_encoder.encode(genes[None])
    slots = model.gene_encoder.gene_mask.any(1)
    visual = torch.stack([unit(model.project_patches(p)) for p in patches[0]])
    words = torch.stack([unit(model.project_fragments(f)) for f in fragments[0, slots]])
    from_words = attend(model.patches_to_fragments, visual, words)
    from_patches = attend(model.fragments_to_patches, words, visual)
    return 0.7 * (info_nce(visual, from_words, 0.1) + info_nce(words, from_patches, 0.1))


@pytest.mark.parametrize("gene_sets", [None, GENE_SETS], ids=["cut", "sets"])
def test_terms_equal_the_formulas(gene_sets):
    model = make(gene_sets=gene_sets)
    windows, genes = windows_and_genes()
    terms = model.alignment_terms(windows, genes, one_process)
    assert list(terms) == ["contrast", "tokens", "prototypes"]
    cls_img, cls_ge = model.aggregator(windows[:, 0])[0], model.gene_encoder(genes)
    slide = torch.stack([unit(model.project_slide(row)) for row in cls_img])
    rna = torch.stack([unit(model.project_genes(row)) for row in cls_ge])
    torch.testing.assert_close(terms["contrast"], 2 * info_nce(slide, rna, 0.07))
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


def test_a_subset_of_the_patches_takes_part():
    windows, genes = windows_and_genes(length=10)
    few = make(max_tokens=5).alignment_terms(windows, genes, one_process)["tokens"]
    assert few.shape == (4,)
    assert not torch.allclose(few, make().alignment_terms(windows, genes, one_process)["tokens"])


def test_words_are_fragments_and_not_padding():
    model = make(gene_sets=GENE_SETS)
    assert model.words.tolist() == [*range(model.gene_encoder.group_size), *(
        model.gene_encoder.group_size * group for group in (1, 2)
    )]  # fmt: skip
    assert model.word_genes.sum() == 8
    assert not any(name.startswith("word") for name in model.state_dict())


def test_fine_tuning_trains_only_encoders_and_head():
    model = make()
    trained = {p for m in model.finetuned_modules(freeze_genes=True) for p in m.parameters()}
    expected = {p for m in (model.head, model.aggregator, model.gene_encoder)
                for p in m.parameters()}  # fmt: skip
    assert trained == expected


def test_predictions_are_gimps():
    """Projections and prototypes take no part in predictions."""
    model = make()
    settings = {name: value for name, value in SETTINGS.items() if name != "projection_dim"}
    gimp = models.build("gimp", settings).eval().double()
    gimp.load_state_dict(model.state_dict() | {
        name: value for name, value in gimp.state_dict().items() if name.startswith("decoder")
    }, strict=False)  # fmt: skip
    batch = (torch.randn(5, 12).double(), torch.tensor([0, 2, 5]), torch.randn(2, 23).double())
    assert torch.equal(model.predict(*batch), gimp.predict(*batch))


def test_each_objective_is_learned():
    history = losses_of_aligning(make(), *windows_and_genes(8), 60)
    first, last = history[0], history[-1]
    assert last["contrast"] < 0.2 * first["contrast"]
    assert last["tokens"] < 0.9 * first["tokens"]
    assert last["prototypes"] < first["prototypes"]
    assert first["contrast"] > 0.5 * math.log(8)
