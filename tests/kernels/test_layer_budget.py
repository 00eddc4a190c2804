"""What a whole layer asks of a GPU in training, counted on tensors without data."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from builders.layer_shapes import SHAPES

pytest.importorskip("triton")
from gimp_fast.kernels.launch import recording
from gimp_fast.losses import triplet_loss
from gimp_fast.models.gimp import GiMP, GiMPConfig
from gimp_fast.models.inputs import Presence
from gimp_fast.nn import NystromAttention
from gimp_fast.ops import backends, nystrom_operators
from gimp_fast.ops.masks import Masked
from gimp_fast.ops.nystrom_layer import nystrom_layer
from gimp_fast.ops.packing import Bags
from gimp_fast.ops.registration import implementations

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the tests lie without the benchmarks"
)


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("_device_operations")
    del sys.modules["_device_operations"]


@pytest.mark.parametrize("capability", [86, 90], ids="sm_{}".format)
@pytest.mark.parametrize(("bags", "tokens", "packed"), SHAPES.values(), ids=SHAPES)
def test_a_layer_takes_few_operations_and_never_waits(bags, tokens, packed, capability, counting):
    found = counting.count_layer(bags, tokens, packed=packed, capability=capability)
    assert found.launches["_pinv_bwd_kernel"] == 1
    assert found.operators["mm"] + found.operators["addmm"] == 6  # two projections, three each
    assert found.device_operations == (47 if capability == 90 else 49)
    assert found.largest_cast == 3 * 512 * 512  # a weight, and nothing that has all tokens
    assert not found.waits


def test_a_pretraining_step_never_waits(counting):
    """Forward and backward pass; what was counted on the CPU is used, whatever the GPU computes."""
    windows, length, channels, num_genes = 4, 700, 96, 60
    config = GiMPConfig(feature_dim=channels, num_genes=num_genes, num_outputs=3, dim=128, heads=2)
    model = GiMP(config).to("meta").train()
    patches = torch.empty(windows, length, channels, device="meta")
    mask = torch.empty(windows, length, dtype=torch.bool, device="meta")
    rna = Presence((True, False, True, True), *(torch.empty(n, device="meta") for n in (4, 3)))
    genes = torch.empty(windows, num_genes, device="meta")
    labels = torch.empty(windows, dtype=torch.int64, device="meta")
    counts = counting.Counts()
    with counting.pretended_gpu(90) as autocast, recording(), counting.counting(counts):
        with autocast:
            masked = Masked(mask, (350, 350, 340, 350))
            reconstruction, cls_pat = model.pretrain_parts(patches, masked, genes, rna)
        (reconstruction + triplet_loss(cls_pat.float(), labels)).backward()
    assert counts.operators["masked_reconstruction_rows"] == 1
    assert not counts.waits


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).all()),
        lambda x: x.repeat_interleave(torch.empty(3, dtype=torch.int64, device=x.device)),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
    ],
    ids=["item", "tolist", "nonzero", "mask", "bool", "repeat", "tensor", "to", "copy"],
)
def test_the_counter_sees_waits(wait, counting):
    counts = counting.Counts()
    x = torch.empty(3, device="meta")
    # Without data there is nothing to read, so most of them fail then.
    with counting.counting(counts), suppress(NotImplementedError, RuntimeError):
        wait(x)
    assert counts.waits.total() == 1


def test_the_counter_counts_kernels_and_no_views(counting):
    counts = counting.Counts()
    x = torch.empty(4, 6, device="meta")
    with counting.counting(counts):
        (x.t().reshape(3, 8)[1:].unbind(0)[0].new_empty(3) + 1).mul_(2).detach()
    assert counts.operators == {"clone": 1, "add": 1, "mul_": 1}


OPERATORS = torch.ops.gimp_fast


def bags_of(*lengths):
    return Bags.of_lengths(lengths, "meta")


def test_a_compiled_layer_of_packed_bags_is_one_graph_that_trusts_them(monkeypatch):
    """On a GPU nothing reads the bounds: not to check them, and not to compile for their values."""
    monkeypatch.setattr(backends, "_why_not", lambda *_, **__: None)
    graphs = []

    def keep(module, inputs):
        graphs.append(module)
        return module.forward

    def layer(qkv, weight, bags):
        return nystrom_layer(qkv, weight, num_landmarks=16, cu_seqlens=bags, backend="triton")

    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=keep)
    qkv = torch.empty(1, 57, 3, 2, 16, device="meta")
    weight = torch.empty(2, 1, 5, 1, device="meta")
    for bags in (bags_of(20, 0, 37), bags_of(5, 40, 12)):
        compiled(qkv, weight, bags)
    (graph,) = graphs
    bounds = {
        node.target: node.args[8 if node.target is OPERATORS.nystrom_attention_fwd.default else 4]
        for node in graph.graph.nodes
        if "gimp_fast" in str(node.target)
    }
    assert bounds == {
        OPERATORS.nystrom_attention_fwd.default: [],
        OPERATORS.token_conv_fwd.default: [],
    }


@pytest.mark.parametrize(("bounds", "waits"), [([], 0), ([0, 20, 57], 0), (None, 1)])
def test_an_operator_reads_bounds_only_if_nobody_checked_them(bounds, waits, counting):
    q, k, v = (torch.empty(1, 2, 57, 16, device="meta") for _ in range(3))
    cu_seqlens = bags_of(20, 37).cu_seqlens
    counts = counting.Counts()
    run = implementations[OPERATORS.nystrom_attention_fwd.default]
    with recording(), counting.counting(counts), suppress(NotImplementedError):
        run(q, k, v, cu_seqlens, 16, 6, 0.25, "triton", bounds)
    assert counts.waits.total() == waits


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [([], [0, 57, 57]), ([0, 20, 57], [-3, 99, 57])],
    ids=["trusted", "known"],
)
def test_bounds_that_were_not_read_stay_within_the_tensor(bounds, expected):
    q = torch.empty(1, 2, 57, 16)
    cu_seqlens = torch.tensor([-3, 99, 57])
    assert nystrom_operators._device_bounds(cu_seqlens, bounds, q).tolist() == expected


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_a_layer_on_a_gpu_never_waits(packed, compiled):
    layer = NystromAttention(128, 64, 2, 64).cuda()
    attend = torch.compile(layer, fullgraph=True) if compiled else layer
    shape = (1, 1000, 128) if packed else (2, 700, 128)
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    bags = Bags.of_lengths([300, 700], "cuda") if packed else None

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            out = x + attend(x, cu_seqlens=bags)
        out.backward(torch.ones_like(out))

    step()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
