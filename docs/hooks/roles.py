"""Sphinx's roles and blocks of docstrings, as Markdown: :class:`name` becomes a link."""

from __future__ import annotations

import re

import griffe

_ROLE = re.compile(r":(?:py:)?(?:func|class|meth|mod|attr|data|exc):`~?([^`]+)`")
_BLOCK = re.compile(r"::(?=\n\n[ \t]+\S)")


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package when all of it is read."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        _rewrite(pkg, set())


def _rewrite(thing: griffe.Object, done: set[str]) -> None:
    if thing.path in done:
        return
    done.add(thing.path)
    if thing.docstring:
        thing.docstring.value = as_markdown(thing.docstring.value, thing)
    for member in thing.members.values():
        if not member.is_alias:
            _rewrite(member, done)


def as_markdown(text: str, thing: griffe.Object) -> str:
    """The docstring of a thing, with links to what its roles name.

    Literals keep their double backticks, which Markdown has too. A name that has no page stays
    code without a link.
    """

    def link(match: re.Match) -> str:
        name = match[1].rstrip("()")
        path = _path_of(name, thing)
        code = f"<code>{match[1]}</code>"
        return f'<autoref optional identifier="{path}">{code}</autoref>' if path else code

    return _BLOCK.sub(":", _ROLE.sub(link, text))


def _path_of(name: str, thing: griffe.Object) -> str:
    """The full path of a name as the docstring's module knows it; empty if it knows none."""
    if name.startswith("gimp_fast"):
        return name
    first, _, rest = name.partition(".")
    try:
        return ".".join(filter(None, [thing.resolve(first), rest]))
    except griffe.NameResolutionError:
        return ""
