"""Kernels that hold all landmarks of a head: few GPUs have the room, the interpreter has."""

from __future__ import annotations

import pytest
import torch
from builders.attention import (
    STAGES,
    clustered_projections,
    loss_weight,
    outputs_and_gradients,
    plain_composition,
    random_projections,
    shape_ids,
    split,
)
from builders.dtypes import dtype_id
from builders.errors import assert_near, assert_no_worse, attention_sizes

from gimp_fast.ops import nystrom_attention
from gimp_fast.reference.nystrom_attention import nystrom_attention_reference

pytest.importorskip("triton")
from gimp_fast.kernels import launch as launching
from gimp_fast.kernels import nystrom_attention as kernels
from gimp_fast.kernels.landmarks import landmarks_fwd
from gimp_fast.kernels.launch import Architecture, Config
from gimp_fast.kernels.nystrom_attention import (
    Bags,
    nystrom_attention_bwd,
    nystrom_attention_fwd,
)

pytestmark = pytest.mark.triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter computes bf16 wrongly.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
FAMILIES = dict.fromkeys(
    ("all_reduce", "all_rows", "all_reduce_bwd", "all_rows_bwd"), (Config(32, 256, 4, 1),)
)
ARCH = Architecture(FAMILIES, FAMILIES, Config(32, 32, 4, 1), "ieee")
TILED = launching.UNKNOWN

# (B, H, N, D, M): fewer tokens than landmarks; just more; landmarks that fill a tile; landmarks
# that do not, and two chunks, the second of less than a tile.
SHAPES = [(2, 1, 7, 16, 16), (2, 2, 17, 16, 16), (1, 1, 130, 64, 64), (1, 1, 530, 32, 70)]
CASES = [
    pytest.param(shape, id=name, marks=[pytest.mark.slow] if i >= 2 else [])
    for i, (shape, name) in enumerate(zip(SHAPES, shape_ids(SHAPES), strict=True))
]


def attend(inputs, grad, m, cu_seqlens=None, iterations=6, arch=ARCH):
    """Output and gradients."""
    q, k, v = (x.detach().to(DEVICE) for x in inputs)
    settings = (iterations, q.shape[3] ** -0.5, arch)
    out, *saved = nystrom_attention_fwd(q, k, v, cu_seqlens, m, *settings)
    grads = nystrom_attention_bwd(
        grad.to(q), q, k, v, cu_seqlens, *saved, *settings, num_landmarks=m
    )
    return [out, *grads]


def reference(qkv, m):
    """The same in fp64, and what errors are relative to."""
    inputs = split(qkv)
    expected = outputs_and_gradients(nystrom_attention_reference, inputs, num_landmarks=m)
    return expected, attention_sizes(expected, inputs, loss_weight(inputs))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", CASES)
def test_output_and_gradients_match_the_fp64_reference(shape, dtype):
    b, h, n, d, m = shape
    qkv = random_projections(b, n, h, d, gain=1.5).to(DEVICE)
    found = attend(split(qkv, dtype), loss_weight(split(qkv)), m)
    expected, sizes = reference(qkv, m)
    assert_near(found, expected, TOLERANCE[dtype], sizes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_error_is_at_most_twice_that_of_the_plain_composition(kind):
    """Also that of q, whose gradient is rounded before its landmarks' share is added, and after."""
    n, d, m, dtype = 250, 16, 36, torch.float16
    qkv = random_projections(1, n, 1, d)
    if kind == "clustered":
        qkv = clustered_projections(torch.arange(n) * 6 // n, 1, d, gain=3, noise=0.01)
    qkv = qkv.to(DEVICE, dtype).double()
    inputs = split(qkv, dtype)
    peer = outputs_and_gradients(plain_composition, inputs, num_landmarks=m)
    found = attend(inputs, loss_weight(inputs), m)
    expected, sizes = reference(qkv, m)
    assert_no_worse(found, peer, expected, 2, sizes, STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=dtype_id)
def test_a_bag_is_bitwise_the_same_alone_in_a_batch_and_packed(dtype):
    lengths, m = (37, 37, 0, 5, 1, 20, 530), 20
    bags = [
        random_projections(1, n, 1, 16, gain=1 + 0.3 * i, seed=i) for i, n in enumerate(lengths)
    ]
    grads = [loss_weight(split(bag)) for bag in bags]

    def bits(bags, grads, dim, cu_seqlens=None):
        inputs = split(torch.cat(bags, dim), dtype)
        return attend(inputs, torch.cat(grads, 2 * dim), m, cu_seqlens, iterations=3)

    alone = [bits([bag], [grad], 0) for bag, grad in zip(bags, grads, strict=True)]
    batch = zip(*(x.split(1) for x in bits(bags[:2], grads[:2], 0)), strict=True)
    bounds = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()
    packed = zip(*(x.split(lengths, 2) for x in bits(bags, grads, 1, bounds)), strict=True)
    for found, expected in [*zip(batch, alone[:2], strict=True), *zip(packed, alone, strict=True)]:
        assert all(map(torch.equal, found, expected))


def test_needed_rows_match_those_of_the_tiled_kernels():
    """Bags below and above M, one without needed rows, one with none at all."""
    lengths, counts, m = (40, 7, 0, 33, 36), (13, 7, 0, 0, 36), 16
    q, k, v = (x.detach().float().to(DEVICE) for x in split(random_projections(1, 116, 2, 16)))
    bounds, q_bounds = (
        torch.tensor([0, *sizes], device=DEVICE).cumsum(0).int() for sizes in (lengths, counts)
    )
    marks, _ = landmarks_fwd(q, k, Bags(len(lengths), 116, bounds), m)
    needed, settings = q[:, :, : sum(counts)].contiguous(), (6, 0.25)
    results = []
    for arch in (ARCH, TILED):
        out, *saved = nystrom_attention_fwd(
            needed, k, v, bounds, m, *settings, arch, marks, q_bounds
        )
        grad = loss_weight([needed])
        results.append(
            [out, *nystrom_attention_bwd(
                grad, needed, k, v, bounds, *saved, *settings, arch, q_bounds
            )]
        )  # fmt: skip
    assert_near(*results, tolerance=1e-5)


def test_a_short_bag_has_the_tiles_of_longer_ones(monkeypatch):
    """Those of the call's number of landmarks, in both passes: other tiles can give other bits."""
    monkeypatch.setattr(kernels, "architecture", lambda device: launching.ARCHITECTURES[90])
    sizes = []
    for lengths in ((40,), (40, 260)):
        bounds = torch.tensor([0, *lengths]).cumsum(0).int() if len(lengths) > 1 else None
        qkv = random_projections(1, sum(lengths), 1, 64).to(DEVICE)
        inputs = split(qkv, torch.bfloat16)
        options = {"num_landmarks": 200, "cu_seqlens": bounds, "backend": "triton"}
        with launching.recording() as launches:
            outputs_and_gradients(nystrom_attention, inputs, **options)
        held = [made for made in launches if "_all_" in made.name or "to_keys_fwd" in made.name]
        sizes += [{made.name: made.constants["BLOCK_M"] for made in held}]
    short, both = sizes
    assert set(both) - set(short) == {"_queries_to_landmarks_all_bwd_kernel"}
    assert {*short.values(), *both.values()} == {256}


@pytest.mark.parametrize(
    ("dtype", "head_dim", "landmarks", "block"),
    [
        (torch.bfloat16, 64, 256, 256),
        (torch.float16, 32, 129, 256),
        (torch.bfloat16, 64, 7, 64),
        (torch.bfloat16, 64, 257, None),
        (torch.bfloat16, 128, 256, None),
        (torch.bfloat16, 40, 256, None),
        (torch.float32, 64, 256, None),
    ],
    ids=[
        "largest",
        "part-of-a-tile",
        "few",
        "too-many-landmarks",
        "wide-heads",
        "odd-heads",
        "fp32",
    ],
)
def test_landmarks_that_fit_are_held(dtype, head_dim, landmarks, block):
    families = ("all_reduce", "all_rows", "all_reduce_bwd", "all_rows_bwd")
    arch = launching.ARCHITECTURES[90]
    found = [launching.choose_all(arch, name, dtype, head_dim, landmarks) for name in families]
    assert {config and config.landmarks for config in found} == {block}
