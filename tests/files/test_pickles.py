"""The names in a pickle: found for every protocol and spelling, and in no other file."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gimp_fast.files.pickles import code_in_pickle, pickle_protocol

SPELLINGS = {
    "global": (b"cos\nsystem\n(S'x'\ntR.", "os.system"),
    "inst": (b"(S'x'\nios\nsystem\n.", "os.system"),
    "obj": (b"(cos\nsystem\nS'x'\no.", "os.system"),
    "stack-global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
    "by-memo": (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93.", "os.system"),
    "extension": (b"\x80\x02\x82\x07.", "extension 7"),
    "after-another-pickle": (pickle.dumps(1) + b"cos\nsystem\n.", "os.system"),
    "before-damage": (b"cos\nsystem\n(S'x", "os.system"),
    "module-of-torch": (b"ctorch.hub\nload\n.", "torch.hub.load"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPELLINGS)
def test_every_way_to_ask_for_code(tmp_path, case):
    data, name = SPELLINGS[case]
    (tmp_path / "x").write_bytes(data)
    assert code_in_pickle(tmp_path / "x") == name


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "before-1.6"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_of_every_type_ask_for_none(tmp_path, zipped, protocol):
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool)
    tensors = OrderedDict((str(dtype), torch.zeros(2, 3, dtype=dtype)) for dtype in dtypes)
    tensors["parameter"] = torch.nn.Parameter(torch.zeros(2))
    tensors["sizes"], tensors["dtype"] = torch.zeros(2, 3).shape, torch.float32
    file = tmp_path / "x.pt"
    torch.save(tensors, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert code_in_pickle(file) is None
    assert pickle_protocol(file) == protocol


@given(st.binary(max_size=60))
def test_any_bytes_are_looked_through(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("pickle") / "x"
    file.write_bytes(data)
    assert code_in_pickle(file) is None or isinstance(code_in_pickle(file), str)
    assert pickle_protocol(file) in range(256)


def test_a_file_that_is_gone_asks_for_nothing(tmp_path):
    assert code_in_pickle(tmp_path / "x") is None
    assert pickle_protocol(tmp_path / "x") == 0
