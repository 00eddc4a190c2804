"""The pages of docs/ as they lie in the repository: navigation, links, options of commands."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from gimp_fast.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not (ROOT / "mkdocs.yml").is_file(), reason="the tests lie without the documentation"
)

PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def entries(nav: list | dict | str) -> Iterator[str]:
    """The pages of a navigation, however deep."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from entries(part)


def test_the_navigation_has_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = [page for page in entries(config["nav"]) if not page.startswith("repository/")]
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_to_files_as_on_github(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    broken = [
        link
        for link in links
        if "://" not in link and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


def misread(text: str) -> list[str]:
    """Lines that GitHub and the site read in different ways.

    The site takes a list for one only after an empty line or a heading, and what belongs to an
    entry only if it is indented by four spaces.
    """
    found, before = [], ""
    for line in re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines():
        is_entry = re.match(r"(-|\d+\.) ", line)
        continues = not before.strip() or re.match(r"#|(-|\d+\.) |\s", before)
        if (is_entry and not continues) or re.match(r" {1,3}(```|- |\d+\. )", line):
            found.append(line)
        before = line
    return found


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_lists_are_read_alike_on_github_and_on_the_site(page):
    assert misread(page.read_text(encoding="utf-8")) == []


def test_planted_lists_are_found():
    assert misread("words\n- entry\n\n- entry\n  ```bash\n") == ["- entry", "  ```bash"]
    assert misread("# Title\n- entry\n    more\n- entry\n\n1. first\n") == []


@pytest.fixture(scope="module")
def law() -> ModuleType:
    """docs/hooks/law.py, a script."""
    spec = importlib.util.spec_from_file_location("law", DOCS / "hooks" / "law.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_law_is_that_of_contributing(law):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert law.levels(text)[0] == ["commands"]
    assert law.levels(text)[-1] == ["reference", "kernels", "native"]
    assert {"errors", "evaluation", "pages"} <= set(law.leaves(text))
    drawn = law.PICTURE.read_text(encoding="utf-8")
    assert drawn == law.draw(text), "run: python docs/hooks/law.py"
    assert law.draw(text.replace("ops →", "opera →")) != drawn


def flags_of(command: str) -> set[str]:
    module = f"gimp_fast.{command}" + (".command" if command == "experiments" else "")
    return set(importlib.import_module(module).build_parser()._option_string_actions)


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, its options) of every call of gimp-fast in code, in blocks and within lines."""
    text = text.replace("\\\n", " ")
    for match in re.finditer(r"gimp-fast ([a-z]+)([^`\n#|]*)", text):
        command, rest = match.groups()
        if command in COMMANDS:
            words = shlex.split(rest.replace("'", " ").replace('"', " "))
            yield command, [word.partition("=")[0] for word in words if word.startswith("--")]


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_options_that_a_page_names_are_there(page):
    unknown = [
        f"{command} {flag}"
        for command, flags in calls(page.read_text(encoding="utf-8"))
        for flag in flags
        if flag not in flags_of(command)
    ]
    assert unknown == []


def test_job_scripts_are_scripts_of_bash():
    text = (DOCS / "cluster.md").read_text(encoding="utf-8")
    scripts = [code for code in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if code[0] == "#"]
    assert [re.search(r"--job-name=(\w+)", code)[1] for code in scripts] == [
        "extract", "train", "experiments",
    ]  # fmt: skip
    for code in scripts:
        checked = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_planted_option_is_found():
    page = "```bash\ngimp-fast train --data c \\\n    --nonsense 3\n```\nor `gimp-fast extract --x`"
    assert list(calls(page)) == [("train", ["--data", "--nonsense"]), ("extract", ["--x"])]
    assert "--data" in flags_of("train")
    assert "--nonsense" not in flags_of("train")
    assert {"--tune", "--only"} <= flags_of("experiments")
