"""An answer of its own for patients who lack a modality."""

from __future__ import annotations

import pytest
import torch

from gimp_fast.errors import FaultError
from gimp_fast.models import Presence, Representation, build
from gimp_fast.training import load_config

SIZES = {"num_outputs": 3, "feature_dim": 6, "num_genes": 12, "dim": 8, "heads": 2}
SIZES |= {"gene_fragments": 4, "gene_groups": 2, "head_hidden": 8}
# Three patients: of both, of slides alone, of RNA alone.
SLIDE, RNA = Presence.of([True, True, False]), Presence.of([True, False, True])


def model_of(**changes: str):
    torch.manual_seed(0)
    return build("gimp", SIZES | {"missing": "heads"} | changes).eval()


@pytest.fixture
def shown() -> Representation:
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    return Representation(vectors, SLIDE, RNA)


@pytest.mark.parametrize("fusion", ["head", "validated"])
def test_each_patient_is_answered_by_what_they_have(shown, fusion):
    model, vectors = model_of(fusion=fusion), shown.vectors
    both = model.head(vectors[:1])
    if fusion == "validated":
        model.fusion_weight.fill_(0.3)
        both = 0.7 * model.gene_head(vectors[:1, 8:]) + 0.3 * both
    expected = torch.cat(
        [both, model.slide_head(vectors[1:2, :8]), model.gene_head(vectors[2:, 8:])]
    )
    torch.testing.assert_close(model.classify(shown), expected)


def test_what_a_patient_lacks_is_not_looked_at(shown):
    model, changed = model_of(), shown.vectors.clone()
    changed[1, 8:], changed[2, :8] = 5.0, 5.0
    other = Representation(changed, SLIDE, RNA)
    torch.testing.assert_close(model.classify(shown)[1:], model.classify(other)[1:])


def test_fine_tuning_trains_the_head_of_both_alone():
    model = model_of()
    assert list(model.finetuned_modules(freeze_genes=True)) == [model.head]
    assert model.answers_parts


def test_the_head_trains_by_its_own_logits(shown):
    model = model_of()
    model.head.train()
    model.head[2].p = 0.0
    torch.testing.assert_close(model.classify(shown), model.head(shown.vectors))


def test_the_weight_of_the_fusion_is_chosen_as_without_heads():
    heads, token = model_of(fusion="validated"), model_of(fusion="validated", missing="token")
    heads.load_state_dict(token.state_dict(), strict=False)
    everybody = Presence.of([True] * 30)
    vectors = torch.randn(30, 16, generator=torch.Generator().manual_seed(2))
    shown, labels = Representation(vectors, everybody, everybody), torch.arange(30) % 3
    assert heads.fit_to_validation(shown, labels) == token.fit_to_validation(shown, labels) is True
    assert heads.fusion_weight_of_both() == token.fusion_weight_of_both()
    torch.testing.assert_close(heads.classify(shown), token.classify(shown))


def test_first_weights_of_what_was_there_before_are_the_same():
    before, heads = model_of(missing="token").state_dict(), model_of().state_dict()
    assert {name for name in heads if name not in before} == {
        f"{head}.{part}"
        for head, parts in (
            ("gene_head", ("weight", "bias")),
            ("slide_head", ("0.weight", "0.bias", "3.weight", "3.bias")),
        )
        for part in parts
    }
    assert all(torch.equal(before[name], heads[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gimp", {"modalities": "slide"}), ("gimp", {"modalities": "rna"}), ("mgca", {})],
    ids=["slide", "rna", "no-genes-stage"],
)
def test_models_without_two_encoders_of_their_own_have_no_other_heads(name, changes):
    model = build(name, SIZES | {"missing": "heads"} | changes)
    assert model.slide_head is None
    assert not model.answers_parts


def test_the_default_is_not_written_down():
    assert "missing" not in load_config().model.model_dump()
    asked = load_config(overrides=["model.missing=heads"])
    assert asked.model.model_dump()["missing"] == "heads"
    assert "missing" not in model_of(missing="token").config.model_dump()
    assert model_of().config.model_dump()["missing"] == "heads"


def test_a_gene_encoder_that_moves_on_is_refused():
    overrides = ["model.missing=heads", "finetune.freeze_genes=false"]
    with pytest.raises(FaultError, match=r"freeze_genes=true with model.missing=heads"):
        load_config(overrides=overrides)
