"""On a CPU in eval mode, a patient's result has the same bits whatever it is computed beside."""

from __future__ import annotations

import itertools

import pytest
import torch
from builders.packed import cu_seqlens_of

from gimp_fast import models
from gimp_fast.models.inputs import PatientInputs

CHANNELS, GENES, LENGTHS = 48, 3001, (1, 70, 33)
# With default widths of the models, where libraries cut products among threads.
CASES = [
    pytest.param(name, modalities, id=f"{name}-{modalities}")
    for name in models.available()
    for modalities in models.model_class(name).reads
]
every_model = pytest.mark.parametrize(("name", "modalities"), CASES)


@pytest.fixture(autouse=True)
def threads():
    """Sets the number of threads; the old one is set again at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make(name, modalities, channels=CHANNELS, **settings):
    fields = models.model_class(name).config_class.model_fields
    sizes = {"num_outputs": 3, "feature_dim": channels, "num_genes": GENES}
    chosen = {"modalities": modalities, "num_landmarks": 32}
    chosen = {name: value for name, value in chosen.items() if name in fields}
    torch.manual_seed(0)
    return models.build(name, sizes | chosen | settings).eval()


def bags_and_genes(channels=CHANNELS):
    generator = torch.Generator().manual_seed(1)
    bags = [torch.randn(n, channels, generator=generator) for n in LENGTHS]
    return bags, torch.randn(len(LENGTHS), GENES, generator=generator)


def inputs_of(bags, genes, order):
    """The patients of these numbers, packed in this order."""
    chosen = [bags[i] for i in order]
    bounds = cu_seqlens_of(map(len, chosen))
    return PatientInputs.of(torch.cat(chosen), bounds, genes[list(order)])


@torch.no_grad()
def results(model, inputs):
    representation = model.represent(inputs)
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    outcome = model.loss(labels, inputs)
    logits = model.classify(representation)
    return [representation.vectors, logits, model(inputs), outcome.logits, outcome.loss]


@every_model
@pytest.mark.parametrize("channels", [CHANNELS, 77], ids=["aligned", "unaligned"])
def test_alone_batched_packed_and_with_other_mates(name, modalities, channels, threads):
    threads(1)
    model = make(name, modalities, channels)
    bags, genes = bags_and_genes(channels)
    everybody = range(len(bags))
    alone = [results(model, inputs_of(bags, genes, [i])) for i in everybody]
    for order in ([0, 1, 2], [2, 0], [1, 1]):
        together = results(model, inputs_of(bags, genes, order))
        for (place, i), part in itertools.product(enumerate(order), range(len(alone[0]))):
            assert torch.equal(together[part][place : place + 1], alone[i][part]), (order, i, part)


@every_model
def test_one_thread_and_two(name, modalities, threads):
    model = make(name, modalities)
    inputs = inputs_of(*bags_and_genes(), range(len(LENGTHS)))
    threads(1)
    expected = results(model, inputs)
    threads(2)
    for found, part in zip(results(model, inputs), expected, strict=True):
        assert torch.equal(found, part)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("modalities", ["both", "rna"])
def test_projections_of_each_fragment_of_its_own(modalities, threads):
    """Neither mates nor threads matter to them."""
    threads(1)
    model = make("gimp", modalities, gene_projection="own")
    bags, genes = bags_and_genes()
    alone = [results(model, inputs_of(bags, genes, [i])) for i in range(len(bags))]
    for count in (1, 2):
        threads(count)
        together = results(model, inputs_of(bags, genes, [2, 0]))
        for part, values in enumerate(together):
            expected = torch.cat([alone[2][part], alone[0][part]])
            assert torch.equal(values, expected), (count, part)


both = [case for case in CASES if case.values[1] == "both"]


@pytest.mark.parametrize(("name", "modalities"), both)
def test_mates_who_lack_a_modality(name, modalities, threads):
    threads(1)
    model, (bags, genes) = make(name, modalities), bags_and_genes()
    complete = results(model, inputs_of(bags, genes, [2]))
    mixed = PatientInputs.of(
        torch.cat([bags[0], bags[2]]),
        cu_seqlens_of([len(bags[0]), len(bags[2])]),
        genes[[0, 1, 2]],
        has_slide=[True, False, True],
        has_genes=[False, True, True],
    )
    for found, expected in zip(results(model, mixed), complete, strict=True):
        assert torch.equal(found[2:], expected)


def sizes_of_parts(model, inputs):
    """How many patients each call of the model's own code gets."""
    sizes, original = [], model.vectors
    model.vectors = lambda batch: sizes.append(len(batch)) or original(batch)
    model.represent(inputs)
    model.vectors = original
    return sizes


@every_model
def test_training_mode_computes_the_batch_at_once(name, modalities):
    """One product of many rows is faster, and dropout makes mates matter anyway."""
    model, inputs = make(name, modalities), inputs_of(*bags_and_genes(), range(len(LENGTHS)))
    assert sizes_of_parts(model.train(), inputs) == [len(LENGTHS)]


packed = pytest.mark.parametrize(
    ("name", "modalities"),
    [case for case in CASES if case.values[0] not in ("dsmil", "mean_pool")],
)


@packed
@torch.no_grad()
def test_eval_mode_computes_short_bags_together(name, modalities, threads):
    threads(1)
    model, inputs = make(name, modalities), inputs_of(*bags_and_genes(), range(len(LENGTHS)))
    assert sizes_of_parts(model, inputs) == [len(LENGTHS)]
    threads(2)  # they would cut what is packed at other places
    assert sizes_of_parts(model, inputs) == [1, 1, 1]
    threads(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert sizes_of_parts(model, inputs) == [1, 1, 1]
    bags, genes = bags_and_genes()
    wide = inputs_of([bag.double() for bag in bags], genes.double(), range(len(bags)))
    assert sizes_of_parts(model.double(), wide) == [1, 1, 1]


@torch.no_grad()
def test_a_width_that_loops_do_not_divide_keeps_patients_apart(threads):
    threads(1)
    sizes = {"num_outputs": 2, "feature_dim": CHANNELS, "num_genes": GENES}
    model = models.build("abmil", sizes | {"dim": 100}).eval()
    inputs = inputs_of(*bags_and_genes(), range(len(LENGTHS)))
    assert sizes_of_parts(model, inputs) == [1, 1, 1]


@pytest.mark.parametrize("name", ["gimp", "transmil", "mcat", "survpath", "porpoise", "clam_mb"])
@torch.no_grad()
def test_long_bags_stay_alone(name, threads):
    threads(1)
    model, generator = make(name, models.model_class(name).reads[0]), torch.Generator()
    lengths = [500, 400, 1, 1100, 30, 20, 990]
    bags = [torch.randn(n, CHANNELS, generator=generator) for n in lengths]
    genes = torch.randn(len(bags), GENES, generator=generator)
    inputs = inputs_of(bags, genes, range(len(bags)))
    assert sizes_of_parts(model, inputs) == [3, 1, 2, 1]
    together = results(model, inputs)
    for i in range(len(bags)):
        for found, alone in zip(together, results(model, inputs_of(bags, genes, [i])), strict=True):
            assert torch.equal(found[i : i + 1], alone)


@every_model
def test_patches_or_genes_of_another_width_are_named(name, modalities):
    model, (bags, genes) = make(name, modalities), bags_and_genes()
    if modalities != "rna":
        bags, message = [bag[:, 1:] for bag in bags], r"patches must be \(…, 48\).*got \(104, 47\)"
    else:
        genes, message = genes[:, 1:], r"genes must be \(…, 3001\).*got \(3, 3000\)"
    with pytest.raises(ValueError, match=message):
        model(inputs_of(bags, genes, range(3)))
