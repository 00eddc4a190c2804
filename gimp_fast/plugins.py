"""Users' own models, targets, encoders and readers: where their code is, and the names it gives.

Code registers itself when it is imported. It is imported once in each process, before the first
name is looked up: what ``--plugin`` names, and what installed packages declare as entry points of
the group ``gimp_fast.plugins``. Nothing is ever imported because a run, a model or a cohort names
it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from gimp_fast.errors import DAMAGE_ERRORS, GimpError, nearest, one_line, one_of

GROUP = "gimp_fast.plugins"
# What --plugin named, for the processes that a command starts: they inherit it.
VARIABLE = "GIMP_FAST_PLUGINS"
HELP = (
    "own code, a file or a module that registers models, targets, encoders or readers; may be "
    "repeated. Installed packages that declare it are found without this"
)
_ERRORS = (ImportError, SyntaxError, NameError, *DAMAGE_ERRORS)

T = TypeVar("T")
_loaded: dict[str, str] = {}  # what was imported -> its version or digest
_entry_points_done = False


def use_plugins(names: Sequence[str]) -> None:
    """Import these files or modules, here and in every process that this one starts.

    Raises:
        GimpError: one of them is missing or fails.
    """
    names = [_absolute(name) for name in names]
    for name in names:
        _import(name)
    asked = dict.fromkeys([*_asked(), *names])
    if asked:
        os.environ[VARIABLE] = os.pathsep.join(asked)


def load_plugins() -> Mapping[str, str]:
    """Import all plugins that are not imported yet; name -> version or digest, of each of them."""
    global _entry_points_done
    for name in _asked():
        _import(name)
    if not _entry_points_done:
        _entry_points_done = True  # first, because a plugin may look names up itself
        for point in metadata.entry_points(group=GROUP):
            try:
                point.load()
            except _ERRORS as error:
                # Every command would fail because of a package that it perhaps does not need.
                package = point.dist.name if point.dist else "an installed package"
                text = f"plugin '{point.name}' of {package} is left out: {one_line(error)}"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            else:
                _loaded[point.value] = point.dist.version if point.dist else ""
    return dict(_loaded)


def _asked() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def _absolute(name: str) -> str:
    """A file by its whole path: a process may start in another folder."""
    return str(Path(name).resolve()) if _is_file(name) else name


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _import(name: str) -> None:
    if name in _loaded:
        return
    where = f"--plugin {name}"
    _loaded[name] = ""  # first, because a plugin may look names up itself
    try:
        if _is_file(name):
            _loaded[name] = _import_file(Path(name))
        else:
            module = _import_module(name)
            _loaded[name] = str(getattr(module, "__version__", ""))
    except GimpError:
        del _loaded[name]
        raise
    except _ERRORS as error:
        del _loaded[name]
        raise GimpError(f"{where}: found code that fails: {one_line(error)}") from error


def _import_file(path: Path) -> str:
    """Digest of the file, after running it as a module of its own."""
    if not path.is_file():
        raise GimpError(f"--plugin {path}: found no such file; expected a Python file or a module")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = f"gimp_fast_plugin_{path.stem}_{digest[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise GimpError(
            f"--plugin {path}: found no Python file; expected a name that ends with .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return f"sha256:{digest}"


def _import_module(name: str) -> ModuleType:
    # A module in the current folder is found also by commands that are scripts elsewhere.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise GimpError(f"--plugin {name}: found no such module; expected a module or a .py file")
    return importlib.import_module(name)


def function_at(place: str, where: str) -> Callable[..., Any]:
    """The function ``"module:function"`` or ``"file.py:function"``; GimpError if there is none."""
    module, _, name = place.rpartition(":")
    if not module or not name:
        raise GimpError(f"{where}: found '{place}'; expected module:function")
    use_plugins([module])
    key = _absolute(module)
    if _is_file(key):
        digest = _loaded[key].removeprefix("sha256:")
        loaded = sys.modules[f"gimp_fast_plugin_{Path(key).stem}_{digest[:8]}"]
    else:
        loaded = sys.modules[module]
    function = getattr(loaded, name, None)
    if not callable(function):
        names = [key for key, value in vars(loaded).items() if callable(value) and key[0] != "_"]
        raise GimpError(
            f"{where}: {module} has no function '{name}'; expected {one_of(name, names)}"
        )
    return function


class Registry(Generic[T]):
    """Things by name: those of the package, and those that plugins add."""

    def __init__(self, kind: str, things: Mapping[str, T]):
        self.kind = kind
        self.things = dict(things)

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(tuple(self.things))

    def add(self, name: str, thing: T) -> None:
        """Add a thing; ValueError if the name is taken or no name."""
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise ValueError(f"{self.kind} {name!r}: expected a name, as text without outer spaces")
        if name in self.things:
            taken = self.things[name]
            by = getattr(taken, "__name__", type(taken).__name__)
            raise ValueError(f"{self.kind} {name!r} is taken by {by}; choose another")
        self.things[name] = thing

    def get(self, name: str) -> T:
        """The thing of a name; ValueError with the nearest name if there is none."""
        if name not in tuple(self):
            raise ValueError(f"unknown {self.kind} {name!r}; expected {self.expected(name)}")
        return self.things[name]

    def expected(self, name: object) -> str:
        """What was expected instead of a name that is not here."""
        own = "" if nearest(name, self) else f"; your own {self.kind} needs --plugin"
        return one_of(name, self) + own
