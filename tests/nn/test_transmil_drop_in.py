"""Our attention swapped into a TransMIL-shaped model with the same weights.

The outputs equal those with nystrom-attention 0.0.14 where that is correct. Elsewhere the tests
show what the swap repairs.
"""

from __future__ import annotations

import math

import pytest
import torch
from builders.packed import random_rows
from builders.peers import equal_heads, summed_over_heads
from torch import nn

from gimp_fast.nn import NystromAttention

peer_package = pytest.importorskip("nystrom_attention")

FEATURES, DIM, HEADS, DIM_HEAD, CLASSES = 24, 32, 4, 8, 3


class TransMILShaped(nn.Module):
    """Linear, square of tokens, CLS, Nyström layer, position convolutions, Nyström layer, head."""

    def __init__(self, attention: type[nn.Module], num_landmarks: int, **kwargs):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(FEATURES, DIM), nn.ReLU())
        self.cls_token = nn.Parameter(torch.randn(DIM))
        self.position = nn.ModuleList(
            nn.Conv2d(DIM, DIM, size, padding=size // 2, groups=DIM) for size in (7, 5, 3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(3))
        self.layers = nn.ModuleList(
            attention(
                dim=DIM,
                dim_head=DIM_HEAD,
                heads=HEADS,
                num_landmarks=num_landmarks,
                pinv_iterations=6,
                residual=True,
                dropout=0.1,
                **kwargs,
            )
            for _ in range(2)
        )
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, patches):
        """(B, N, FEATURES) -> logits (B, CLASSES); N + 1 tokens, N rounded up to a square."""
        tokens = self.embed(patches)
        side = math.isqrt(tokens.shape[1] - 1) + 1
        tokens = torch.cat([tokens, tokens[:, : side * side - tokens.shape[1]]], dim=1)
        cls = self.cls_token.expand(len(tokens), 1, -1)
        hidden = torch.cat([cls, tokens], dim=1)  # (B, side² + 1, DIM)
        hidden = hidden + self.layers[0](self.norms[0](hidden))
        grid = hidden[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # (B, DIM, side, side)
        grid = grid + sum(conv(grid) for conv in self.position)
        hidden = torch.cat([hidden[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
        hidden = hidden + self.layers[1](self.norms[1](hidden))
        return self.head(self.norms[2](hidden)[:, 0])


def models(num_landmarks, *, same_heads=True, dtype=torch.float64):
    """Ours, the peer's, and ours computed by the reference, all with the weights of the peer's."""
    torch.manual_seed(0)
    peer = TransMILShaped(peer_package.NystromAttention, num_landmarks)
    for layer in peer.layers:
        layer.to_qkv.weight.data *= 3
        if same_heads:
            layer.to_qkv.weight.data = equal_heads(layer.to_qkv.weight.data, HEADS)
    ours = TransMILShaped(NystromAttention, num_landmarks)
    reference = TransMILShaped(NystromAttention, num_landmarks, backend="reference")
    for model in (ours, reference):
        model.load_state_dict(peer.state_dict())
    return [model.to(dtype).eval() for model in (ours, peer, reference)]


def bag(n, *, seed=0, batch=1):
    return random_rows(batch, n, FEATURES, seed=seed)


def logits_and_gradients(model, patches):
    patches = patches.clone().requires_grad_()
    logits = model(patches)
    logits.logsumexp(-1).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in [name for name in gradients if name.endswith("to_qkv.weight")]:
        gradients[name] = summed_over_heads(gradients[name], HEADS)
    return {"logits": logits, "patches": patches.grad, **gradients}


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


# Patches; tokens with CLS after filling the square; landmarks, which divide these.
@pytest.mark.parametrize(
    ("n", "tokens", "num_landmarks"),
    [(37, 50, 10), (48, 50, 25), (49, 50, 10), (150, 170, 17), (300, 325, 65)],
)
def test_logits_and_every_gradient_equal_the_peers_where_landmarks_divide(n, tokens, num_landmarks):
    assert (math.isqrt(n - 1) + 1) ** 2 + 1 == tokens
    assert tokens % num_landmarks == 0
    ours, peer, _ = models(num_landmarks)
    found, expected = (logits_and_gradients(model, bag(n)) for model in (ours, peer))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-9, name


def test_weights_load_both_ways():
    ours, peer, _ = models(10, same_heads=False)
    fresh = TransMILShaped(peer_package.NystromAttention, 10).double().eval()
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh(bag(49)), peer(bag(49)))


@pytest.mark.parametrize(
    ("n", "num_landmarks"),
    [(49, 16), (60, 16), (150, 64), (9, 16), (1, 16)],
    ids=["50-of-64", "65-of-80", "170-of-192", "10-of-16", "2-of-16"],
)
def test_padding_changes_the_peers_logits_and_not_ours(n, num_landmarks):
    ours, peer, reference = models(num_landmarks)
    exact = reference(bag(n))
    assert relative_error(ours(bag(n)), exact) <= 1e-10
    assert relative_error(peer(bag(n)), exact) >= 1e-3


def test_batch_mates_change_the_peers_logits_and_not_ours():
    ours, peer, _ = models(10, same_heads=False)
    batch = bag(49, batch=8)
    assert relative_error(ours(batch)[:1], ours(batch[:1])) <= 1e-12
    assert relative_error(peer(batch)[:1], peer(batch[:1])) >= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_runs_and_the_peer_raises(dtype):
    ours, peer, _ = models(10, dtype=dtype)
    patches = bag(49).to(dtype)
    found = ours(patches).double()
    ours.double()
    error = (found - ours(patches.double())).abs().max()
    # A logit adds up DIM products that largely cancel: their rounding is what is left.
    read = []
    ours.head.register_forward_pre_hook(lambda _, inputs: read.extend(inputs))
    ours(patches.double())
    terms = read[0].abs() @ ours.head.weight.abs().T
    assert error <= 4 * torch.finfo(dtype).eps * terms.max()
    with pytest.raises(RuntimeError):
        peer(patches)
