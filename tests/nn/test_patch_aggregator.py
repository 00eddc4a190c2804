"""PatchAggregator and PatchDecoder: packed equals dense, masking, tiny bags."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from builders.packed import cu_seqlens_of, random_rows

from gimp_fast.nn import PatchAggregator, PatchDecoder
from gimp_fast.ops import masked_l1_loss
from gimp_fast.ops.packing import Bags


def aggregator(**kwargs):
    torch.manual_seed(0)
    defaults = {"feature_dim": 12, "dim": 16, "heads": 4, "num_landmarks": 8}
    return PatchAggregator(**(defaults | kwargs)).double()


def bag(n, seed=0):
    return random_rows(n, 12, seed=seed)


def test_packed_bags_equal_each_bag_alone():
    module = aggregator()
    lengths = (1, 7, 8, 30, 2)
    bags = [bag(n, seed=n) for n in lengths]
    cls, tokens = module(torch.cat(bags), cu_seqlens=cu_seqlens_of(lengths))
    assert cls.shape == (5, 16)
    for i, (x, found) in enumerate(zip(bags, tokens.split(lengths), strict=True)):
        cls_alone, tokens_alone = module(x[None])
        torch.testing.assert_close(cls[i : i + 1], cls_alone, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[None], tokens_alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masks", [False, True], ids=["whole", "masked"])
def test_a_bag_is_bitwise_the_same_alone_and_packed(masks):
    module = aggregator(feature_dim=64, dim=64, num_landmarks=16).float().eval()
    lengths = (700, 5, 33)
    x = random_rows(sum(lengths), 64, dtype=torch.float32)
    masked = torch.arange(len(x)) % 3 == 0 if masks else None
    bags = Bags.of_lengths(lengths)
    cls, tokens = module(x, cu_seqlens=bags, masked=masked)
    for i, span in enumerate(bags.spans):
        rows = slice(*span)
        bag_mask = None if masked is None else masked[None, rows]
        cls_alone, tokens_alone = module(x[None, rows], masked=bag_mask)
        assert torch.equal(cls[i], cls_alone[0])
        assert torch.equal(tokens[rows], tokens_alone[0])


def test_masked_patches_are_invisible():
    module = aggregator()
    x = bag(40)[None]
    masked = torch.zeros(1, 40, dtype=torch.bool)
    masked[0, 5:15] = True
    changed = x.clone()
    changed[0, 5:15] += 100
    for a, b in zip(module(x, masked=masked), module(changed, masked=masked), strict=True):
        assert torch.equal(a, b)
    assert not torch.allclose(module(x)[0], module(changed)[0])


def test_masked_patches_are_not_read():
    module = aggregator()
    x = bag(40)[None]
    masked = torch.arange(40)[None] % 3 == 0
    changed = x.masked_fill(masked[..., None], float("nan"))
    for a, b in zip(module(x, masked=masked), module(changed, masked=masked), strict=True):
        assert torch.equal(a, b)


def kept(module, keep, *, packed, masked):
    x, bags = torch.stack([bag(20, seed=1), bag(20, seed=2)]), None
    if packed:
        x, masked, bags = x.flatten(0, 1), masked.flatten(), Bags.of_lengths([20, 20])
    return module(x, cu_seqlens=bags, masked=masked, keep=keep)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_tokens_that_are_not_kept_change_nothing(packed):
    module = aggregator()
    masked = torch.arange(40).reshape(2, 20) % 3 == 0
    cls, tokens = kept(module, "all", packed=packed, masked=masked)
    cls_only, none = kept(module, "none", packed=packed, masked=masked)
    cls_masked, masked_tokens = kept(module, "masked", packed=packed, masked=masked)
    assert none is None
    picked = tokens.reshape(40, 16)[masked.flatten()]
    for a, b in ((cls_only, cls), (cls_masked, cls), (masked_tokens, picked)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    parameters = [p for name, p in module.named_parameters()]
    expected = torch.autograd.grad((picked.sin().sum() + cls.cos().sum()), parameters)
    found = torch.autograd.grad((masked_tokens.sin().sum() + cls_masked.cos().sum()), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("masks", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_the_embedding_written_in_place_equals_the_composition(packed, masks):
    """A dropout probability that drops nothing makes the composed path run."""
    fused, composed = aggregator(), aggregator(input_dropout=1e-300)
    masked = torch.arange(40).reshape(2, 20) % 3 == 0 if masks else torch.zeros(2, 20) > 0
    results = []
    for module in (fused, composed):
        cls, tokens = kept(module.train(), "all", packed=packed, masked=masked)
        (cls.sin().sum() + tokens.cos().sum()).backward()
        results.append([cls, tokens, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_dropout_of_the_input_leaves_the_tokens_alone():
    module = aggregator(input_dropout=0.9, num_layers=1).train()
    seen = []
    module.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module.norms[0] = torch.nn.Identity()
    masked = torch.arange(20)[None] % 2 == 0
    module(bag(20)[None], masked=masked)
    hidden = seen[0][0]
    assert torch.equal(hidden[0], module.cls_token)
    assert torch.equal(hidden[1:][masked[0]], module.mask_token.expand(10, -1))
    assert (hidden[1:][~masked[0]] == 0).double().mean() > 0.5


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "autocast-bf16"])
@pytest.mark.parametrize("keep", ["all", "masked", "none"])
def test_checkpointed_layers_have_bitwise_the_same_gradients(keep, packed, dtype):
    results = []
    for recompute in (False, True):
        module = aggregator(dropout=0.3, checkpoint_layers=recompute).float().train()
        x = torch.stack([bag(20, seed=1), bag(20, seed=2)]).float()
        bags = Bags.of_lengths([20, 20]) if packed else None
        x = x.flatten(0, 1) if packed else x
        torch.manual_seed(1)
        masked = torch.arange(40).reshape(x.shape[:-1]) % 3 == 0 if keep == "masked" else None
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            cls, tokens = module(x, cu_seqlens=bags, keep=keep, masked=masked)
        loss = cls.float().sin().sum()
        loss = loss if tokens is None else loss + tokens.float().cos().sum()
        loss.backward()
        results.append([cls, tokens, torch.rand(3), *(p.grad for p in module.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_any_number_of_layers_gives_the_kept_tokens(num_layers):
    module = aggregator(num_layers=num_layers)
    masked = torch.arange(40).reshape(2, 20) % 3 == 0
    cls, tokens = kept(module, "all", packed=True, masked=masked)
    cls_masked, masked_tokens = kept(module, "masked", packed=True, masked=masked)
    torch.testing.assert_close(cls_masked, cls, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(masked_tokens, tokens[masked.flatten()], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", ["masked", "none"])
def test_kept_tokens_of_a_bag_are_bitwise_the_same_alone_and_packed(keep):
    module = aggregator(feature_dim=64, dim=64, num_landmarks=16).float().eval()
    bags = Bags.of_lengths((700, 5, 33))
    x = random_rows(bags.num_rows, 64, dtype=torch.float32)
    masked = torch.arange(len(x)) % 3 == 0 if keep == "masked" else None
    found = module(x, cu_seqlens=bags, masked=masked, keep=keep)
    alone = [
        module(x[None, a:b], masked=None if masked is None else masked[None, a:b], keep=keep)
        for a, b in bags.spans
    ]
    for whole, parts in zip(found, zip(*alone, strict=True), strict=True):
        assert whole is None or torch.equal(whole, torch.cat(parts))


def test_only_the_last_layer_computes_rows():
    module, rows = aggregator(num_layers=2), Counter()
    for number, layer in enumerate(module.layers):

        def count(_, args, number=number):
            rows[number] += args[0].numel() // 16

        layer.to_out[0].register_forward_pre_hook(count)
    module(bag(50), cu_seqlens=Bags.of_lengths((30, 20)), keep="none")
    assert rows == {0: 31 + 21, 1: 2}


def test_checkpointed_layers_keep_less():
    def kept(checkpoint_layers):
        module, sizes = aggregator(dropout=0.3, checkpoint_layers=checkpoint_layers), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()) or x, lambda x: x
        ):
            module(bag(200)[None])
        return sum(sizes)

    assert kept(True) < 0.3 * kept(False)


def test_all_parameters_get_gradients():
    module = aggregator()
    masked = torch.arange(40)[None] % 2 == 0
    cls, tokens = module(bag(40)[None], masked=masked)
    (cls.square().sum() + tokens.sin().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("hidden", [0, 24], ids=["linear", "hidden"])
def test_decoder_maps_rows(hidden):
    decoder = PatchDecoder(16, 12, hidden=hidden)
    assert decoder(torch.randn(5, 16)).shape == (5, 12)
    assert decoder(torch.randn(0, 16)).shape == (0, 12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("hidden", [0, 24], ids=["linear", "hidden"])
def test_reconstruction_loss_equals_that_of_all_decoded_rows(hidden, reduction):
    torch.manual_seed(0)
    decoder = PatchDecoder(16, 12, hidden=hidden).double()
    target = torch.stack([bag(20, seed=1), bag(20, seed=2)])
    tokens = torch.randn(2, 20, 16, dtype=torch.float64, requires_grad=True)
    masked = torch.arange(40).reshape(2, 20) % 3 == 0
    inputs = [tokens, *decoder.parameters()]
    expected = masked_l1_loss(decoder(tokens), target, masked, reduction=reduction)
    found = decoder.reconstruction_loss(tokens[masked], target, masked, reduction=reduction)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    expected_grads = torch.autograd.grad(expected, inputs)
    grads = torch.autograd.grad(found, inputs)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(bag(4)), r"\(B, N, 12\), got \(4, 12\)"),
        (lambda m: m(bag(4)[None], cu_seqlens=torch.tensor([0, 4])), r"packed \(T, 12\)"),
        (lambda m: m(bag(4)[None, :, :5]), r"got \(1, 4, 5\)"),
        (lambda m: m(bag(4)[None], masked=torch.ones(1, 5) > 0), r"\(1, 4\), got \(1, 5\)"),
        (lambda m: m(bag(4), cu_seqlens=torch.tensor([0, 3])), r"tokens 4, got \[0, 3\]"),
        (lambda m: m(bag(4)[None], keep="cls"), "keep must be .* got 'cls'"),
        (lambda m: m(bag(4)[None], keep="masked"), "needs masked"),
    ],
    ids=["dims", "packed-dims", "channels", "mask", "bounds", "keep", "keep-masked"],
)
def test_bad_input_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(aggregator())
