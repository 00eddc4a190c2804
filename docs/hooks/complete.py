"""Stops the build of a site in which a public name of the package is not documented.

What is public: the names in ``__all__`` of the package and of the packages in it.
"""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError


def on_post_build(config: MkDocsConfig) -> None:
    documented = names_of_inventory((Path(config.site_dir) / "objects.inv").read_bytes())
    if missing := [name for name, home in public_names() if not {name, home} & documented]:
        raise PluginError(
            f"not documented: {', '.join(missing)}; each needs a docstring and a place in docs/api/"
        )


def public_packages() -> list[str]:
    """``gimp_fast``, and the packages directly in it that say what is public."""
    root = importlib.import_module("gimp_fast")
    inside = [
        f"gimp_fast.{module.name}" for module in pkgutil.iter_modules(root.__path__) if module.ispkg
    ]
    return ["gimp_fast", *(n for n in inside if hasattr(importlib.import_module(n), "__all__"))]


def public_names() -> Iterator[tuple[str, str]]:
    """Every public name and where it is defined, which are often the same.

    Of ``gimp_fast.ops.nystrom_attention``, the second is the documented one: the first is a module
    too. Names between two underscores are left out.
    """
    for package in public_packages():
        for name in importlib.import_module(package).__all__:
            if not name.startswith("__"):
                path, thing = f"{package}.{name}", getattr(importlib.import_module(package), name)
                yield path, f"{getattr(thing, '__module__', package)}.{name}"


def names_of_inventory(inventory: bytes) -> set[str]:
    """The names in Sphinx's ``objects.inv``, which mkdocstrings writes of all that it shows."""
    header, _, body = inventory.partition(b"zlib.\n")
    if not header.startswith(b"# Sphinx inventory version 2"):
        raise PluginError(
            f"objects.inv begins with {inventory[:40]!r}; expected Sphinx's version 2"
        )
    return {line.split(" ", 1)[0] for line in zlib.decompress(body).decode().splitlines() if line}
