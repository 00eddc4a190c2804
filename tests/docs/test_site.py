"""The site that mkdocs builds: strict, complete, and without anything from other hosts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOOKS = ROOT / "docs" / "hooks"

if not (ROOT / "mkdocs.yml").is_file():
    pytest.skip("the tests lie without the documentation", allow_module_level=True)
for needed in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(needed, reason="mkdocs is not installed; `make docs` installs it")


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        # -P: the installed package, as in all tests, and not the sources in this folder.
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_is_on_a_page(site):
    complete = hook("complete")
    documented = complete.names_of_inventory((site / "objects.inv").read_bytes())
    names = dict(complete.public_names())
    assert {"gimp_fast.load", "gimp_fast.ops.nystrom_attention", "gimp_fast.data.Bag"} <= set(names)
    assert [name for name, home in names.items() if not {name, home} & documented] == []


@pytest.mark.slow
def test_a_page_needs_no_other_host(site):
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]*\bsrc="(https?:)?//|<link[^>]*href="https?://'
    )
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    assert [page.name for page in pages if fetched.search(page.read_text(encoding="utf-8"))] == []


def test_a_name_without_a_page_stops_the_build(tmp_path):
    complete = hook("complete")
    names = {name for name, _ in complete.public_names()}
    config = SimpleNamespace(site_dir=tmp_path)

    def write(documented: set[str]) -> None:
        lines = "".join(f"{name} py:function 1 a.html#$ -\n" for name in documented)
        header = b"# Sphinx inventory version 2\n# Project: x\n# Version: 0\n# ... using zlib.\n"
        (tmp_path / "objects.inv").write_bytes(header + zlib.compress(lines.encode()))

    write(names)
    complete.on_post_build(config)
    write(names - {"gimp_fast.load_config"})
    with pytest.raises(complete.PluginError, match=r"not documented: gimp_fast\.load_config; each"):
        complete.on_post_build(config)


def test_links_out_of_docs_become_pages():
    outside = hook("outside_docs")
    assert outside.path_outside("training.md", "../examples/plugins") == "examples/plugins"
    assert outside.path_outside("api/index.md", "../../CHANGELOG.md") == "CHANGELOG.md"
    assert outside.path_outside("api/index.md", "../data.md") == ""
    assert outside.path_outside("data.md", "../../elsewhere.md") == ""
    assert outside.place_in_site(ROOT, "examples/plugins") == "repository/examples/plugins/index.md"
    assert outside.place_in_site(ROOT, "docs/hooks/law.py") == "repository/docs/hooks/law.py.md"


def test_roles_of_docstrings_become_links():
    roles = hook("roles")
    module = roles.griffe.visit("gimp_fast.demo", Path("demo.py"), "def build(): ...\n")
    text = roles.as_markdown("See :func:`build`, :class:`Other`::\n\n    code()\n", module)
    assert text.startswith('See <autoref optional identifier="gimp_fast.demo.build">')
    assert "<code>build</code></autoref>, <code>Other</code>:\n\n    code()" in text
