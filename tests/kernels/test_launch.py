"""Kernels that were launched once are launched again as Triton would launch them."""

from __future__ import annotations

import random
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from gimp_fast.kernels import launch as launching
from gimp_fast.kernels.compiled import specialization
from gimp_fast.kernels.launch import Config, launch
from gimp_fast.ops import nystrom_attention

# As they are before any kernel is interpreted. The interpreter replaces them while it runs one, and
# a test that was ended within a kernel leaves its replacements to the tests that follow.
OWNERS = (tl, tl.core, tl.tensor, tl.math, tl.dtype, tl.core.tensor_descriptor_base)
AS_COMPILED = [(owner, dict(vars(owner))) for owner in OWNERS]

CONFIG = Config(tokens=16, landmarks=16, num_warps=4, num_stages=2)


def _seven(a, b, c, d, e, f, g, BLOCK: tl.constexpr):
    return


def _add_one(source, target, count, step, BLOCK: tl.constexpr, TWICE: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(source + at, mask=at < count, other=0.0) + step
    if TWICE:
        value += step
    tl.store(target + at, value, mask=at < count)


class PretendedDriver:
    """A driver of Triton for a GPU that is not here, which keeps what it is given to launch."""

    def __init__(self, capability=90):
        self.calls, self.device, self.stream = [], 0, 7
        self.target = GPUTarget("cuda", capability, 32)
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"max_shared_mem": 1 << 20},
            load_binary=lambda name, *_: (object(), f"function of {name}", 0, 0, 1024),
        )

    def launcher_cls(self, source, metadata):
        return lambda *arguments: self.calls.append(arguments)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.device

    def get_current_stream(self, device):
        return self.stream + device


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU, on which nothing has been launched."""
    pretended = PretendedDriver()
    for owner, members in AS_COMPILED:
        for name, member in dict(vars(owner)).items():
            if name not in members:
                monkeypatch.delattr(owner, name)
            elif member is not members[name]:
                monkeypatch.setattr(owner, name, members[name])
    monkeypatch.setattr(driver, "_active", pretended)
    monkeypatch.setattr(launching, "_compiled", {})
    return pretended


@pytest.fixture
def add_one():
    return JITFunction(_add_one, do_not_specialize=["count"])


def tensor(dtype=torch.float32, offset=0):
    """64 elements that begin so many elements after a multiple of 16 bytes."""
    return torch.zeros(128, dtype=dtype)[offset : offset + 64]


def random_argument(rng):
    dtype = rng.choice([torch.float32, torch.bfloat16, torch.float16, torch.int32])
    number = rng.choice([0, 1, 2, 15, 16, 17, 48, -1, -16, 2**31 - 1, 2**31, 2**32, 2**33 + 1])
    return rng.choice([tensor(dtype, rng.randrange(9)), number, 0.5, 1.0, True, False, None])


@pytest.mark.parametrize("capability", [80, 90, 120], ids="sm_{}".format)
def test_keys_distinguish_what_triton_distinguishes(capability, monkeypatch):
    monkeypatch.setattr(driver, "_active", PretendedDriver(capability))
    kernel = JITFunction(_seven, do_not_specialize=["b", "g"])
    bind = kernel.create_binder()[-1]
    rng, by_key = random.Random(0), defaultdict(set)
    values = [random_argument(rng) for _ in range(200)]
    calls = [tuple(rng.choice(values) for _ in range(7)) for _ in range(3000)]
    # Seven at random are rarely alike; so each argument alone, too, and pairs.
    calls += [(x, y, *values[:5]) for x in values for y in values[:40]]
    for arguments in calls:
        found = bind(*arguments, BLOCK=1)[1]
        by_key[tuple(specialization(kernel, arguments))].add(str(found))
    assert len(by_key) > 1000
    assert {len(found) for found in by_key.values()} == {1}


def test_keys_are_few_where_triton_compiles_once():
    """Sizes that change from step to step must not fill the memory."""
    kernel = JITFunction(_seven, do_not_specialize=["b"])
    keys = {
        tuple(specialization(kernel, (16 * n, n, 16 * n + 3, tensor(offset=4 * n), None, 0.1 * n)))
        for n in range(2, 30)
    }
    assert len(keys) == 1


def call_of(arguments):
    """A call of the launcher without the hooks and their metadata."""
    return arguments[:6], arguments[9:]


def test_the_second_launch_is_what_triton_would_launch(gpu, add_one):
    source, target = tensor(), tensor(torch.bfloat16)
    for _ in range(2):
        launch(add_one, (3, 2), CONFIG, source, target, 64, 0.5, TWICE=True, BLOCK=16)
    add_one[(3, 2)](source, target, 64, 0.5, 16, True, num_warps=4, num_stages=2)
    first, second, expected = map(call_of, gpu.calls)
    assert first == second == expected
    assert second[0][:4] == (3, 2, 1, 7)
    assert second[1] == (source, target, 64, 0.5, 16, True)


@pytest.mark.parametrize(
    "change",
    [
        {"source": tensor(torch.float16)},
        {"source": tensor(offset=1)},
        {"step": 2},
        {"step": 1},
        {"TWICE": False},
        {"config": Config(16, 16, 8, 2)},
        {"config": Config(16, 16, 4, 3)},
        {"device": 1},
    ],
    ids=["dtype", "alignment", "number", "one", "constant", "warps", "stages", "device"],
)
def test_what_triton_compiles_again_is_compiled_again(change, gpu, add_one):
    def run(config=CONFIG, device=0, **changed):
        gpu.device = device
        given = {"source": tensor(), "target": tensor(), "count": 64, "step": 0.5, "TWICE": True}
        *arguments, twice = (given | changed).values()
        launch(add_one, (4,), config, *arguments, BLOCK=16, TWICE=twice)

    run()
    run()
    assert len(launching._compiled) == 1
    run(**change)
    assert len({found.run for found in launching._compiled.values()}) == 2


def test_a_profiler_hears_of_every_launch(gpu, add_one, monkeypatch):
    heard = []
    monkeypatch.setattr(knobs.runtime.launch_enter_hook, "calls", [heard.append])
    for _ in range(2):
        launch(add_one, (4,), CONFIG, tensor(), tensor(), 64, 0.5, BLOCK=16, TWICE=True)
    hooks = [arguments[7] for arguments in gpu.calls]
    assert hooks == [knobs.runtime.launch_enter_hook] * 2


@pytest.mark.gpu
def test_kept_kernels_give_the_bits_of_the_first_launch():
    qkv = torch.randn(2, 700, 3, 2, 64, device="cuda", dtype=torch.bfloat16)
    inputs = [x.transpose(1, 2).requires_grad_() for x in qkv.unbind(2)]

    def step():
        out = nystrom_attention(*inputs, num_landmarks=64)
        return out, *torch.autograd.grad(out.float().sin().sum(), inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "_compiled", {})
        first, second = step(), step()
        assert launching._compiled
    assert all(map(torch.equal, first, second))


def test_recorded_and_empty_launches_are_not_made(gpu, add_one):
    launch(add_one, (0, 4), CONFIG, None, None, 64, 0.5, BLOCK=16, TWICE=True)
    with launching.recording() as launches:
        launch(add_one, (4,), CONFIG, None, None, 64, 0.5, BLOCK=16, TWICE=True)
    assert [made.grid for made in launches] == [(4,)]
    assert gpu.calls == [] == list(launching._compiled)
