"""How many kernels a call launches, counted on tensors without data: no GPU is needed."""

from __future__ import annotations

import inspect
import math
from collections import Counter

import pytest
import torch
from builders.layer_shapes import SHAPES

pytest.importorskip("triton")
from gimp_fast.kernels import launch as launching
from gimp_fast.kernels import pinv
from gimp_fast.kernels.bags import Bags
from gimp_fast.kernels.nystrom_attention import (
    nystrom_attention_bwd,
    nystrom_attention_fwd,
)

HEADS, D, M = 8, 64, 256


def passes_of(bags, tokens, packed, capability=90):
    """Launches of a forward and of a backward pass on a GPU of this capability."""
    batch, length = (1, bags * tokens) if packed else (bags, tokens)
    cu_seqlens = torch.empty(bags + 1, dtype=torch.int32, device="meta") if packed else None
    qkv = torch.empty(batch, length, 3, HEADS, D, dtype=torch.bfloat16, device="meta")
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
    arch = launching.ARCHITECTURES[capability]
    with launching.recording() as forward:
        out, *saved = nystrom_attention_fwd(q, k, v, cu_seqlens, M, 6, 0.125, arch)
    with launching.recording() as backward:
        nystrom_attention_bwd(out, q, k, v, cu_seqlens, *saved, 6, 0.125, arch)
    return forward, backward


def launches_of(bags, tokens, packed):
    """Those of both passes on a GPU like an H100."""
    forward, backward = passes_of(bags, tokens, packed)
    return forward + backward


def products(launches):
    """How often a score, or a number as large as all scores, is a product of D numbers."""
    kernels = [x.kernel.fn for x in launches if "_to_landmarks_" in x.name or "_to_keys_" in x.name]
    return sum(inspect.getsource(kernel).count("tl.dot(") for kernel in kernels)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("capability", "count"), [(90, (7, 10)), (86, (7, 12))], ids=[90, 86])
def test_launches_do_not_grow_with_the_batch(capability, count, shape):
    forward, backward = passes_of(*shape, capability)
    assert (len(forward), len(backward)) == count
    assert Counter(made.name for made in forward)["_pinv_fwd_kernel"] == 1


@pytest.mark.parametrize(("capability", "count"), [(90, (4, 10)), (86, (4, 16))], ids=[90, 86])
def test_products_with_all_tokens(capability, count):
    """2 N M D flop for a bag and a head: the attention's work, as long as N is above M."""
    assert tuple(map(products, passes_of(1, 6000, False, capability))) == count


def test_kernels_are_the_same_for_3_and_for_300_bags():
    """No constant says how many bags there are, so nothing is compiled again."""
    few, many = (
        [(made.name, made.constants) for made in launches_of(bags, 1000, True)] for bags in (3, 300)
    )
    assert few == many


def test_a_team_fits_the_device_and_has_work():
    config = launching.ARCHITECTURES[90].product
    for matrices in (1, 7, 8, 64, 1024):
        for available in (1, 3, 20, 82, 132):
            for m in (1, 37, 64, 256, 512):
                team = pinv._team(matrices, m, config, available)
                assert 1 <= team <= min(available, pinv.LARGEST_TEAM)
                assert team <= math.ceil(m / 64) ** 2
    assert pinv._team(8, 256, config, 132) == 16
    assert [pinv._team(1024, m, config, 132) for m in (128, 256, 512)] == [1, 4, 16]


@pytest.mark.parametrize("marks", [64, 128, 200, 256, 384, 512])
def test_rooms_of_large_matrices_take_no_more_memory(marks):
    arch = launching.ARCHITECTURES[90]
    a = torch.empty(1024, HEADS, marks, marks, device="meta")
    w = torch.empty(1024, HEADS, marks, D, device="meta")
    with launching.recording() as launches:
        pinv.pinv_matmul_bwd(w, a, w, 6, Bags(1024, 1000, None), arch, "fp16")
    (room,) = (x for x in tensors_of(launches, "_pinv_bwd_kernel") if x.dim() == 2)
    assert room.nbytes <= 400 * 2**20


@pytest.mark.parametrize("capability", launching.ARCHITECTURES)
def test_tiles_depend_on_the_size_of_a_matrix_alone(capability):
    """Small ones need many tiles for their teams."""
    arch = launching.ARCHITECTURES[capability]
    for precision in ("fp16", arch.precision):
        large = pinv._config(256, arch, precision)
        assert pinv._config(129, arch, precision) == large
        assert pinv._config(128, arch, precision).tokens == min(64, large.tokens)


def tensors_of(launches, name):
    """Distinct arguments of the launches of a kernel."""
    arguments = (x for made in launches if made.name == name for x in made.arguments)
    return list({id(x): x for x in arguments if isinstance(x, torch.Tensor)}.values())


@pytest.mark.parametrize("tokens", [20, 100])
def test_matrices_of_short_packed_bags_take_no_memory(tokens):
    """At most 4 · H · M bytes a token, for A and for its gradient; a bag's own take M² · 4 · H."""
    launches = launches_of(1000, tokens, True)
    squares = [x for x in tensors_of(launches, "_pinv_bwd_kernel") if x.shape[-2:] == (M, M)]
    assert len(squares) == 2
    assert all(x.nbytes <= 4 * HEADS * M * 1000 * tokens for x in squares)


@pytest.mark.parametrize(
    ("shape", "rooms"), [("one", 8), ("batch-of-8", 33), ("batch-of-128", 33), ("300-packed", 33)]
)
def test_rooms_of_the_pseudo_inverse_do_not_grow_with_the_batch(shape, rooms):
    """A quarter of the multiprocessors is the most; a room of the backward pass has 9 MiB."""
    launches = launches_of(*SHAPES[shape])
    (room,) = (x for x in tensors_of(launches, "_pinv_bwd_kernel") if x.dim() == 2)
    assert room.shape[0] == rooms
    assert room.nbytes <= rooms * 9 * 2**20
