"""Tensors that are no plain table are refused by their cause, or read; a scan never raises."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.slide_files import COORDS, FEATURES

from gimp_fast.data.slides import open_slide
from gimp_fast.data.slides.base import short_coords_note
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.errors import Fault

TABLE, PLACES = torch.from_numpy(FEATURES), torch.from_numpy(COORDS)


pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse", "ignore:The PyTorch API of nested", "ignore:torch.quant"
)


def quantised(table: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(table.float(), 0.1, 0, torch.qint8)


def nested(table: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([table.float(), table.float()])


UNUSUAL = {
    "sparse": (lambda t: t.to_sparse(), "a sparse tensor"),
    "sparse-csr": (lambda t: t.float().to_sparse_csr(), "a sparse tensor"),
    "quantised": (quantised, "a quantised tensor"),
    "meta": (lambda t: t.to("meta"), "a tensor without values (device 'meta')"),
    "nested": (nested, "a nested tensor"),
    "list": (lambda t: t.tolist(), "a list"),
    "number": (lambda t: 3.5, "a float"),
}


def scanned(tmp_path: Path, content: object, **options: object):
    torch.save(content, tmp_path / "s.pt", **options)
    return scan_slide(tmp_path / "s.pt")


def fault_of(tmp_path: Path, content: object) -> Fault:
    (fault,) = scanned(tmp_path, content).faults
    return fault


@pytest.mark.parametrize("case", UNUSUAL)
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"features": t}], ids=["bare", "dict"])
def test_features_that_are_no_table_of_numbers(tmp_path, case, wrap):
    make, text = UNUSUAL[case]
    fault = fault_of(tmp_path, wrap(make(TABLE)))
    assert fault.kind in ("no-features", "unsafe-pickle", "unreadable-file")
    assert fault.kind != "no-features" or fault.found == text


@pytest.mark.parametrize("case", ["sparse", "quantised", "nested", "meta", "list"])
def test_coordinates_that_are_none_leave_the_features_usable(tmp_path, case):
    make, text = UNUSUAL[case]
    scan = scanned(tmp_path, {"features": TABLE, "coords": make(PLACES)})
    assert scan.faults == ()
    assert not scan.info.has_coords
    assert text in scan.info.coords_note


OTHER_COORDS = {
    "bool": PLACES > 3,
    "complex": PLACES.to(torch.complex64),
    "one-dimension": PLACES[:, 0],
    "float8": PLACES.to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("case", OTHER_COORDS)
def test_coordinates_of_other_types_leave_the_features_usable(tmp_path, case):
    scan = scanned(tmp_path, {"features": TABLE, "coords": OTHER_COORDS[case]})
    assert scan.faults == ()
    assert "not numbers (N, 2)" in scan.info.coords_note


@pytest.mark.parametrize("shape", [(37, 0), (37, 1), (36, 2), (2, 37, 2), (1, 36, 2), (0, 2)])
def test_coordinates_of_another_shape(tmp_path, shape):
    fault = fault_of(tmp_path, {"features": TABLE, "coords": torch.zeros(shape)})
    assert fault.kind == "coords-shape"


OVERLAPPING = {
    "stride-0": torch.zeros(1, 5).expand(1_000_000_000, 5),
    "all-one-number": torch.zeros(1).expand(10_000_000, 512),
    "stride-1": torch.arange(40.0).as_strided((30, 8), (1, 1)),
    "windows": torch.arange(400.0).as_strided((39, 20), (10, 1)),
    "columns-alike": torch.zeros(40, 1).expand(40, 6),
}


@pytest.mark.parametrize("case", OVERLAPPING)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_rows_that_share_their_place(tmp_path, case, zipped):
    scan = scanned(tmp_path, OVERLAPPING[case], _use_new_zipfile_serialization=zipped)
    assert [fault.kind for fault in scan.faults] == ["feature-shape"]
    assert (tmp_path / "s.pt").stat().st_size < 10_000
    both = {"features": torch.ones(40, 5), "coords": torch.zeros(1, 2).expand(40, 2)}
    assert fault_of(tmp_path, both).kind == "coords-shape"


VIEWS = {
    "first-rows": TABLE[:20],
    "every-other-row": TABLE[::2],
    "some-columns": TABLE[:, 1:4],
    "transposed": torch.arange(60.0).reshape(5, 12).T,
    "batched": TABLE[None],
    "parameter": torch.nn.Parameter(TABLE),
    "one-row": torch.ones(1, 5).expand(1, 5),
    "bfloat16": TABLE.bfloat16(),
    "float16": TABLE.half(),
    "float64": TABLE.double(),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views_and_types_that_are_real_tables(tmp_path, case):
    scan = scanned(tmp_path, VIEWS[case])
    assert scan.faults == ()
    expected = VIEWS[case].detach().reshape(-1, VIEWS[case].shape[-1]).float().numpy()
    with open_slide(tmp_path / "s.pt") as slide:
        np.testing.assert_array_equal(slide.read(), expected)


def test_coordinates_in_half_precision_that_are_exact(tmp_path):
    grid = torch.arange(37)[:, None] * torch.tensor([512, 1024])
    for coords in (grid, PLACES):  # below 256 all whole numbers are exact
        scan = scanned(tmp_path, {"features": TABLE, "coords": coords.bfloat16()})
        assert scan.faults == ()
        assert (scan.info.coords_dtype, scan.info.coords_note) == ("float32", "")
        with open_slide(tmp_path / "s.pt") as slide:
            np.testing.assert_array_equal(slide.coords(), coords)


def test_coordinates_that_lost_digits_are_left_out(tmp_path):
    coords = (PLACES * 224 + 13_107).bfloat16()
    scan = scanned(tmp_path, {"features": TABLE.bfloat16(), "coords": coords})
    assert scan.faults == ()
    assert not scan.info.has_coords
    assert scan.info.coords_note == "bfloat16 coordinates, which are exact up to 256 only"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("step", [1, 2, 7, 32, 224, 256, 512, 1000, 4096])
@pytest.mark.parametrize("offset", [0, 1, 96, 20_000])
def test_only_exact_coordinates_are_used(dtype, step, offset):
    """What is used must be equal to what was stored before the type was made shorter."""
    coords = torch.arange(1, 101)[:, None] * torch.tensor([step, 2 * step]) % 60_000 + offset
    short = coords.to(getattr(torch, dtype)).float()
    exact = torch.equal(short, coords.float())
    used = short_coords_note(short.numpy(), dtype) == ""
    assert exact or not used
    assert used or coords.max() > 256


def test_coordinates_beyond_half_precision(tmp_path):
    coords = torch.arange(74).reshape(37, 2) * 1024.0
    scan = scanned(tmp_path, {"features": TABLE, "coords": coords.half()})
    assert scan.faults == ()
    assert not scan.info.has_coords


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_refused_pickle_is_named_so_in_every_protocol(tmp_path, protocol):
    file = tmp_path / "s.pt"
    file.write_bytes(pickle.dumps(Decimal(1), protocol=protocol))
    (bare,) = scan_slide(file).faults
    (saved,) = scanned(tmp_path, Decimal(1), pickle_protocol=max(protocol, 2)).faults
    assert (bare.kind, saved.kind) == ("unsafe-pickle", "unsafe-pickle")
    assert "weights_only" not in bare.found + saved.found
