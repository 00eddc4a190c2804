"""What a user finds: names in ``dir``, all of ``__all__``, and nothing that loads too early."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gimp_fast

PACKAGES = (
    "gimp_fast", "gimp_fast.data", "gimp_fast.evaluation", "gimp_fast.experiments",
    "gimp_fast.external", "gimp_fast.heatmaps", "gimp_fast.inference", "gimp_fast.models",
    "gimp_fast.nn", "gimp_fast.ops", "gimp_fast.report", "gimp_fast.runs", "gimp_fast.targets",
    "gimp_fast.training", "gimp_fast.viewer", "gimp_fast.wsi",
)  # fmt: skip


DOCS = Path(__file__).resolve().parents[1] / "docs" / "api"


@pytest.mark.parametrize("name", PACKAGES)
def test_all_public_names_are_there_and_listed(name):
    package = importlib.import_module(name)
    assert package.__doc__
    assert package.__all__
    assert list(package.__all__) == sorted(set(package.__all__), key=package.__all__.index)
    assert [public for public in package.__all__ if getattr(package, public, None) is None] == []
    listed = dir(package)
    assert set(package.__all__) <= set(listed)
    assert {"Any", "importlib", "annotations", "TYPE_CHECKING"} & set(listed) == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_have_docstrings(name):
    package = importlib.import_module(name)
    things = {public: getattr(package, public) for public in package.__all__}
    described = {public: thing for public, thing in things.items() if not is_plain(thing)}
    assert [public for public, thing in described.items() if not thing.__doc__] == []


def is_plain(thing: object) -> bool:
    """A constant or an alias of types, whose own docstring Python does not keep."""
    return isinstance(thing, (str, tuple)) or hasattr(thing, "__origin__")


@pytest.mark.skipif(not DOCS.is_dir(), reason="the tests lie without the documentation")
@pytest.mark.parametrize("name", PACKAGES)
def test_public_packages_have_pages(name):
    page = DOCS / ("index.md" if name == "gimp_fast" else f"{name.removeprefix('gimp_fast.')}.md")
    assert f"::: {name}\n" in page.read_text(encoding="utf-8")


def test_the_rooms_are_there_without_an_import_of_their_own(tmp_path):
    code = (
        "import sys, gimp_fast; names = dir(gimp_fast); "
        "print('torch' in sys.modules, 'triton' in sys.modules, 'train_model' in names); "
        "print(gimp_fast.models.available()[-1], gimp_fast.nn.NystromAttention.__name__)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False True", "gimp NystromAttention"]


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(AttributeError, match="no attribute 'open_cohrt'; did you mean 'open_coh"):
        _ = gimp_fast.open_cohrt
    with pytest.raises(AttributeError, match="no attribute 'load_encodr'; did you mean 'load_enc"):
        _ = gimp_fast.wsi.load_encodr
    assert not hasattr(gimp_fast, "__wrapped__")


def test_type_checkers_are_told():
    assert (Path(gimp_fast.__file__).parent / "py.typed").is_file()


def test_a_model_with_a_wrong_field_says_so_in_our_words():
    sizes = {"num_outputs": 2, "feature_dim": 8}
    with pytest.raises(
        ValueError, match=r"attention_dmi: .*did you mean 'attention_dim'"
    ) as caught:
        gimp_fast.models.build("abmil", sizes | {"attention_dmi": 4})
    assert "Extra inputs" not in str(caught.value)
    with pytest.raises(ValueError, match=r"unknown model 'transmill'; .*did you mean 'transmil'"):
        gimp_fast.models.build("transmill", sizes)
    with pytest.raises(
        ValueError, match="num_outputs: found nothing; expected a whole number of 1"
    ):
        gimp_fast.models.build("abmil", {})
