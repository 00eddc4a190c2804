"""timm beside a torchvision whose operators do not load, and none at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gimp_fast.errors import GimpError
from gimp_fast.wsi.encoders import timm_import

# As torchvision does it: shapes of an operator that its library should have defined.
TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(0, dtype=torch.long)
"""
ASK = """
from gimp_fast.wsi.encoders.timm_import import mend_torchvision
print(mend_torchvision(), mend_torchvision())
import torchvision, torch
print("imported")
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NotImplementedError as error:
    print("no implementation")
"""


def run(code: str, path: Path) -> str:
    folders = [str(path), *filter(None, sys.path)]
    program = f"import sys; sys.path[:0] = {folders!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.fixture
def broken(tmp_path) -> Path:
    """A torchvision whose compiled library is for another torch."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(TORCHVISION, encoding="utf-8")
    (package / "_C.so").write_bytes(b"of another torch")
    return tmp_path


def test_a_torchvision_of_another_torch_is_imported_without_operators(broken):
    assert "operator torchvision::nms does not exist" in run("import torchvision", broken)
    assert run(ASK, broken).split("\n")[:3] == ["True False", "imported", "no implementation"]


def test_without_torchvision_nothing_is_declared(monkeypatch):
    monkeypatch.setattr(timm_import, "_declared", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not timm_import.mend_torchvision()


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(GimpError, match=r"--encoder uni needs timm.*pip install 'gimp-fast\[wsi\]"):
        timm_import.import_timm("--encoder uni")
