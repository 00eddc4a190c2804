"""A table chooses the library of large products; without oneDNN everything works and is equal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gimp_fast import processor
from gimp_fast.errors import GimpError
from gimp_fast.ops import product_library
from gimp_fast.ops.product_library import ONEDNN, TORCH, choice, choose, speeds, why_no_onednn
from gimp_fast.ops.products import SMALLEST, is_fast, linear, precise_product, product

pytestmark = pytest.mark.usefixtures("nothing_native")
ROWS, INPUTS, OUTPUTS = 1500, 96, 80
assert ROWS * INPUTS * OUTPUTS >= SMALLEST


@pytest.fixture
def amd(monkeypatch, choose_library):
    """A processor for which the table has oneDNN."""
    monkeypatch.setattr(processor, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    choose_library("auto")


def results(linear=linear, product=product, precise_product=precise_product) -> list[torch.Tensor]:
    """Of every kind of product that may go to oneDNN."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,), (ROWS, OUTPUTS))
    *tensors, grad = (torch.randn(shape, generator=generator) for shape in shapes)
    x, weight, bias = (tensor.requires_grad_() for tensor in tensors)
    out = linear(x, weight, bias)
    grads = torch.autograd.grad(out, [x, weight, bias], grad)
    x, weight, grad = x.detach()[None], weight.detach()[None], grad[None]
    return [out, *grads, product(x, weight, grad), precise_product(x, weight)]


def torch_results() -> list[torch.Tensor]:
    """The same by torch's own products."""
    return results(
        F.linear, lambda x, w, add: torch.baddbmm(add, x, w.mT), lambda x, w: torch.bmm(x, w.mT)
    )


def assert_same_bits(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert [torch.equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * len(found)


@pytest.mark.parametrize(
    ("vendor", "instructions", "library"),
    [
        ("AuthenticAMD", "AVX512", ONEDNN),
        ("AuthenticAMD", "AVX2", TORCH),
        ("GenuineIntel", "AVX512", TORCH),
        ("GenuineIntel", "AVX2", TORCH),
        ("CentaurHauls", "AVX512", TORCH),
        ("", "DEFAULT", TORCH),
    ],
)
def test_the_table_goes_by_vendor_and_instruction_set(vendor, instructions, library):
    found = choose("auto", vendor, instructions, None)
    assert found.library == library
    assert f"{vendor or 'an unknown vendor'} with {instructions}" in found.reason


@pytest.mark.parametrize("library", [TORCH, ONEDNN])
@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_the_environment_overrules_the_table(vendor, library):
    expected = (library, f"GIMP_FAST_PRODUCTS={library}")
    assert choose(library, vendor, "AVX512", None) == expected


def test_this_processor_has_the_choice_of_its_vendor(amd, monkeypatch, choose_library):
    assert choice().library == (TORCH if why_no_onednn() else ONEDNN)
    monkeypatch.setattr(processor, "vendor", lambda: "GenuineIntel")
    choose_library("auto")
    assert choice() == (TORCH, "the table's choice for GenuineIntel with AVX512")


@pytest.mark.parametrize("name", ["mkl", "oneDNN", "onednn "])
def test_an_unknown_value_is_one_clear_error(choose_library, name):
    choose_library(name)
    with pytest.raises(GimpError, match=f"GIMP_FAST_PRODUCTS={name} is unknown; expected one of "):
        results()


def test_an_empty_value_is_none(choose_library):
    choose_library("")
    assert choice().library in (TORCH, ONEDNN)


def test_onednn_by_name_where_it_cannot_run_is_an_error():
    with pytest.raises(GimpError, match="GIMP_FAST_PRODUCTS=onednn cannot run: gone"):
        choose(ONEDNN, "AuthenticAMD", "AVX512", "gone")


def changed_operator() -> SimpleNamespace:
    schemas = {"default": "(Tensor X, Tensor W)", "binary": product_library.SCHEMAS["binary"]}
    overloads = {name: SimpleNamespace(_schema=schema) for name, schema in schemas.items()}
    return SimpleNamespace(_linear_pointwise=SimpleNamespace(**overloads))


@pytest.mark.parametrize(
    "operators", [SimpleNamespace(), changed_operator()], ids=["missing", "changed"]
)
def test_without_the_private_operator_products_are_those_of_torch(amd, monkeypatch, operators):
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    assert choice().library == TORCH
    assert "no operator" in choice().reason
    assert_same_bits(results(), torch_results())
    assert speeds(8, 8, 8, budget_s=0).keys() == {TORCH}


def test_onednn_switched_off_by_torch_is_not_used(amd):
    expected = torch_results()
    before = choice()
    with torch.backends.mkldnn.flags(enabled=False):
        assert choice() == (TORCH, "torch.backends.mkldnn is switched off")
        assert_same_bits(results(), expected)
    assert choice() == before


def test_a_compiled_graph_has_torchs_own_products(amd):
    x, weight = torch.randn(ROWS, INPUTS), torch.randn(OUTPUTS, INPUTS)
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, weight), F.linear(x, weight))


def test_results_are_repeated_bit_for_bit(library):
    assert choice().library == library
    assert is_fast(torch.empty(1), SMALLEST) == (library == ONEDNN)
    assert_same_bits(results(), results())


def test_libraries_are_measured():
    found = speeds(64, 16, 32, budget_s=0)
    assert TORCH in found
    assert (ONEDNN in found) == (why_no_onednn() is None)
    assert all(speed > 0 for speed in found.values())
