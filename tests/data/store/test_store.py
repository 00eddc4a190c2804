"""The packed store: what was packed comes back, from any process, and other tools can read it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open

from gimp_fast.data.slides.order import patch_order
from gimp_fast.data.slides.scan import scan_slide
from gimp_fast.data.store.reader import FeatureStore
from gimp_fast.data.store.writer import PackedSlide, write_store
from gimp_fast.errors import FaultError

LENGTHS = {"a": 1, "b": 300, "ü/c": 7}
DIM = 512  # 128 rows of fp32 a block


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> dict[str, tuple[Path, np.ndarray, np.ndarray]]:
    folder, rng = tmp_path_factory.mktemp("slides"), np.random.default_rng(0)
    made = {}
    for number, (name, rows) in enumerate(LENGTHS.items()):
        features = rng.standard_normal((rows, DIM)).astype(np.float32)
        coords = rng.integers(0, 9000, (rows, 2)).astype(np.int32)
        with h5py.File(folder / f"{number}.h5", "w") as h5:
            h5["features"], h5["coords"] = features, coords
        made[name] = folder / f"{number}.h5", features, coords
    return made


def pack(out: Path, slides: dict, dtype: str = "fp16", order: str = "file", **changes) -> Path:
    packed = []
    for name, (path, features, _) in slides.items():
        facts = {"num_patches": len(features), "coords_dtype": "int32", "checksum": ""}
        packed.append(PackedSlide(name, path, **(facts | changes)))
    write_store(out, packed, dtype=dtype, feature_dim=DIM, order=order)
    return out


TORCH = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("order", ["file", "hilbert", "row"])
def test_round_trip(tmp_path, slides, dtype, order):
    store = FeatureStore(pack(tmp_path / "s", slides, dtype, order))
    assert (store.dtype, store.feature_dim, store.patch_order) == (dtype, DIM, order)
    assert store.slide_ids == tuple(LENGTHS)
    for name, (_, features, coords) in slides.items():
        places = patch_order(coords, order)
        expected = torch.from_numpy(features[places]).to(TORCH[dtype])
        assert torch.equal(store.tensor(name), expected)
        rows = store.read(name)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, expected.float().numpy())
        np.testing.assert_array_equal(store.coords(name), coords[places])
        assert store.num_patches(name) == LENGTHS[name]


def test_windows_across_blocks(tmp_path, slides):
    path = pack(tmp_path / "s", slides, "fp32")
    features = slides["b"][1]
    for start, stop in [(0, 1), (127, 129), (130, 299), (0, 300), (299, 300), (5, 5), (300, 300)]:
        store = FeatureStore(path)  # has verified no block yet
        for _ in range(2):
            np.testing.assert_array_equal(store.read("b", start, stop), features[start:stop])
    with pytest.raises(ValueError, match="not inside"):
        store.read("b", 0, 301)


def test_any_safetensors_reader_can_open_it(tmp_path, slides):
    path = pack(tmp_path / "s", slides, "bf16")
    store = FeatureStore(path)
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("features/b"), store.tensor("b"))
        assert torch.equal(file.get_slice("features/b")[3:9], store.tensor("b", 3, 9))
        np.testing.assert_array_equal(file.get_tensor("coords/b").numpy(), slides["b"][2])
        assert file.metadata()["patch_order"] == "file"


def test_slides_without_coordinates(tmp_path, slides):
    store = FeatureStore(pack(tmp_path / "s", slides, coords_dtype=""))
    assert store.coords("b") is None


def test_equal_input_gives_equal_bytes(tmp_path, slides):
    a, b = (pack(tmp_path / name, slides, order="hilbert").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_values_beyond_the_type_are_a_fault(tmp_path, dtype):
    features = np.zeros((40, DIM), np.float32)
    features[33, 2] = -3.4e38
    with h5py.File(tmp_path / "big.h5", "w") as h5:
        h5["features"] = features
    slides = {"big": (tmp_path / "big.h5", features, None)}
    with pytest.raises(FaultError, match="in row 33") as error:
        pack(tmp_path / "s", slides, dtype, coords_dtype="")
    assert error.value.faults[0].kind == "out-of-range"


def test_a_file_that_changed_since_it_was_checked(tmp_path, slides):
    for changes in ({"num_patches": 5}, {"checksum": "0" * 16}):
        with pytest.raises(FaultError) as error:
            pack(tmp_path / "s", {"b": slides["b"]}, **changes)
        assert error.value.faults[0].kind == "changed-file"
    assert pack(tmp_path / "s", {"b": slides["b"]}, checksum=scan_slide(slides["b"][0]).checksum)


def test_a_damaged_block_names_its_slide_and_spares_the_others(tmp_path, slides):
    path = pack(tmp_path / "s", slides, "fp32")
    content = bytearray(path.read_bytes())
    content[content.index(slides["b"][1][200].tobytes())] ^= 4
    path.write_bytes(content)
    store = FeatureStore(path)
    np.testing.assert_array_equal(store.read("b", 0, 128), slides["b"][1][:128])
    np.testing.assert_array_equal(store.read("a"), slides["a"][1])
    for _ in range(2):
        with pytest.raises(FaultError, match=r"rows 128 to 256 of 'b'") as error:
            store.read("b", 100, 140)
        assert error.value.faults[0].kind == "checksum"


def test_verify_reads_again_what_was_verified_before(tmp_path, slides):
    path = pack(tmp_path / "s", slides, "fp32")
    store = FeatureStore(path)
    store.read("b")
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(slides["b"][1][200].tobytes()))
        file.write(b"\x00\x00\x00\x7f")
    store.read("b", 128, 256)  # known to be good when it was read first
    with pytest.raises(FaultError, match="checksum"):
        store.verify("b")


def test_a_store_cut_while_it_is_open_is_an_error(tmp_path, slides):
    path = pack(tmp_path / "s", slides)
    store = FeatureStore(path)
    os.truncate(path, 5000)
    with pytest.raises(FaultError) as error:
        store.read("b")
    assert error.value.faults[0].kind == "truncated-file"


@pytest.mark.parametrize("content", ["missing", "empty", "other"])
def test_files_that_are_no_store(tmp_path, content):
    path = tmp_path / "s"
    if content == "empty":
        path.touch()
    elif content == "other":
        from safetensors.numpy import save_file

        save_file({"features/a": np.ones((2, 3))}, path, {"format": "pt", "version": "1"})
    with pytest.raises(FaultError) as error:
        FeatureStore(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(tmp_path, slides, method):
    store = FeatureStore(pack(tmp_path / "s", slides, "fp32"))
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for found in [pool.submit(store.read, "b", 100, 200) for _ in range(4)]:
            np.testing.assert_array_equal(found.result(), slides["b"][1][100:200])


def test_a_pickled_store_is_its_path(tmp_path, slides):
    store = FeatureStore(pack(tmp_path / "s", slides, "fp32"))
    text = pickle.dumps(store)
    assert len(text) < 300
    np.testing.assert_array_equal(pickle.loads(text).read("b"), slides["b"][1])
