"""Files outside docs/ that its pages link, as parts of the site.

On GitHub, a link such as ``../examples/a.py`` opens the file in the repository. Here the file
becomes a part of the site, below ``repository/``, and the link leads there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

FOLDER = "repository"
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")  # pages of the navigation
_LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    docs = Path(config.docs_dir)
    wanted = set(ALWAYS)
    for file in files.documentation_pages():
        for link, _ in _LINK.findall(file.content_string):
            if outside := path_outside(file.src_uri, link):
                wanted.add(outside)
    inside = {path for wish in wanted for path in _with_contents(docs.parent, wish)}
    for path in sorted(inside):
        files.append(_as_file(docs.parent, path, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri

    def moved(match: re.Match) -> str:
        link, anchor = match[1], match[2] or ""
        if not (outside := path_outside(here, link)):
            return match[0]
        target = place_in_site(Path(config.docs_dir).parent, outside)
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(moved, markdown)


def path_outside(page: str, link: str) -> str:
    """The path of a link from its repository's root; empty if the link stays in docs/.

    Args:
        page: path of the page that has it, below docs/.
        link: as it is written there.
    """
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return "" if path.startswith(("docs/", "../", "/")) or page.startswith(FOLDER) else path


def place_in_site(root: Path, path: str) -> str:
    """Where a file or folder of the repository is in the site."""
    if (root / path).is_dir():
        return f"{FOLDER}/{path}/index.md"
    return f"{FOLDER}/{path}{'.md' if path.endswith('.py') else ''}"


def _with_contents(root: Path, path: str) -> list[str]:
    if not (root / path).is_dir():
        return [path]
    inside = [child.relative_to(root).as_posix() for child in _visible(root / path)]
    return [path, *inside]


def _visible(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in "._"
    ]


def _as_file(root: Path, path: str, config: MkDocsConfig) -> File:
    """A page of a text, a folder or Python code; any other file as it is."""
    source = root / path
    text = {"abs_src_path": str(source)}
    if source.is_dir():
        names = [file.name for file in _visible(source)]
        lines = [f"- [{name}]({name}{'.md' if name.endswith('.py') else ''})" for name in names]
        text = {"content": f"# {path}\n\n" + "\n".join(lines) + "\n"}
    elif path.endswith(".py"):
        code = source.read_text(encoding="utf-8")
        text = {"content": f"# {source.name}\n\n`{path}`\n\n```python\n{code}```\n"}
    level = InclusionLevel.UNDEFINED if path in ALWAYS else InclusionLevel.NOT_IN_NAV
    return File.generated(config, place_in_site(root, path), inclusion=level, **text)
