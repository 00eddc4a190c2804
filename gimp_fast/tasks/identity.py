"""What a worker must have in common with the command whose tasks it runs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gimp_fast import __version__, plugins

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Identity:
    """The code of a process: results of other code are never mixed.

    Attributes:
        version: of gimp_fast.
        code: digest of all its Python files.
        torch: version of torch; empty if there is none.
        plugins: name -> version or digest.
    """

    version: str
    code: str
    torch: str
    plugins: Mapping[str, str]

    def differences(self, other: Identity) -> list[str]:
        """What another process has otherwise, in words: ``torch 2.12.0 (here 2.13.0)``."""
        pairs = {
            "gimp_fast": (self.version, other.version),
            "code of gimp_fast": (self.code[:12], other.code[:12]),
            "torch": (self.torch, other.torch),
        }
        for name in sorted({*self.plugins, *other.plugins}):
            short = (one.plugins.get(name, "none")[:19] for one in (self, other))
            pairs[f"plugin {name}"] = tuple(short)
        return [f"{name} {there} (here {here})" for name, (here, there) in pairs.items()
                if here != there]  # fmt: skip


def identity(asked_plugins: Sequence[str] = ()) -> Identity:
    """The identity of this process, with these plugins imported."""
    plugins.use_plugins(asked_plugins)
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = ""
    return Identity(__version__, code_digest(), torch, dict(plugins.load_plugins()))


@functools.cache
def code_digest() -> str:
    """Digest of all Python files of the package, as this process finds them."""
    spec = importlib.util.find_spec("gimp_fast.kernels")  # beside the package in a checkout
    folders = {"": _PACKAGE, "kernels/": Path(next(iter(spec.submodule_search_locations)))}
    files = {
        prefix + str(path.relative_to(folder)): path
        for prefix, folder in folders.items()
        for path in folder.rglob("*.py")
    }
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def asked_plugins() -> list[str]:
    """What ``--plugin`` named, for processes that do not inherit it."""
    return [name for name in os.environ.get(plugins.VARIABLE, "").split(os.pathsep) if name]
