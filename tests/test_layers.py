"""The dependency law of CONTRIBUTING.md, read from the imports; and what importing may cost."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gimp_fast.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]

# A module may import those of lower levels, and those of its own room; rooms of one level are
# strangers to each other.
LEVELS = {
    "reference": 0, "kernels": 0, "native": 0,
    "ops": 1,
    "nn": 2, "targets": 2,
    "models": 3, "data": 3,
    "runs": 4,
    "training": 5, "report": 5, "heatmaps": 5, "wsi": 5,
    "inference": 6, "viewer": 6,
    "verbs": 7, "external": 7,
}  # fmt: skip
SAME_ROOM = {"losses": "nn", "_C": "native"}
# Every room may import them; they import each other and nothing else of the package.
LEAVES = {
    "errors", "evaluation", "files", "later", "options", "pages", "plugins", "processor", "tasks",
    "validation", "__version__",
}  # fmt: skip
COMMAND_LEVEL = 8
# The report shows what a run's files say; a model in reach would tempt it to compute.
FORBIDDEN = {("report", "models")}

MODULES = sorted([*(ROOT / "gimp_fast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])


def module_name(path: Path) -> str:
    """``gimp_fast/ops/__init__.py`` -> ``gimp_fast.ops``; ``kernels/`` is ``gimp_fast.kernels``."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts.insert(0, "gimp_fast")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The first name below the package: ``gimp_fast.ops.masked_l1`` -> ``ops``."""
    name = module.split(".")[1] if "." in module else "__init__"
    return SAME_ROOM.get(name, name)


def imported(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of every import of this package, wherever in the file it stands."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _is_import_module(node.func):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        for name in names:
            if name.split(".")[0] in ("gimp_fast", "kernels"):
                yield node.lineno, name


def _is_import_module(function: ast.expr) -> bool:
    return getattr(function, "attr", getattr(function, "id", "")) in (
        "import_module",
        "__import__",
    )


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What in this source breaks the law, as ``line: importer -> imported: why``."""
    here, found = room(module), []
    for line, target in imported(source, module, is_package):
        why = objection(here, room(target), target)
        if why:
            found.append(f"{line}: {module} -> {target}: {why}")
    return found


def objection(here: str, there: str, target: str) -> str:
    """Why the room ``here`` may not import the room ``there``; empty if it may."""
    is_command = here not in LEVELS and here not in LEAVES and here not in ("cli", "__init__")
    if target.split(".")[0] == "kernels":
        return "the folder is installed as gimp_fast.kernels"
    if there in LEAVES or there == here:
        return ""
    if there == "cli":
        return "" if is_command else "only commands import cli"
    if there not in LEVELS:
        return "unknown to the law, or a command: nothing imports those"
    if here == "__init__":
        return ""  # it names what is public for type checkers; importing it is cheap, see below
    if here in LEAVES or here == "cli":
        return "a leaf imports nothing of the package"
    if (here, there) in FORBIDDEN:
        return "forbidden by name"
    if LEVELS[there] >= LEVELS.get(here, COMMAND_LEVEL):
        return "not downwards"
    return ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    source = path.read_text(encoding="utf-8")
    assert violations(source, module_name(path), path.name == "__init__.py") == []


def test_every_room_is_known_to_the_law():
    rooms = {room(module_name(path)) for path in MODULES if path.parent.name != "gimp_fast"}
    assert rooms <= {*LEVELS, *LEAVES, *COMMANDS}
    files = {path.stem for path in MODULES if path.parent == ROOT / "gimp_fast"}
    known = {*LEVELS, *SAME_ROOM, *LEAVES, *COMMANDS, "cli", "__init__", "__main__"}
    assert files - known == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gimp_fast.ops.masked_l1", "from gimp_fast.nn import GroupMSA"),
        ("gimp_fast.ops.masked_l1", "from gimp_fast import nn"),
        ("gimp_fast.ops.masked_l1", "from ..models import build"),
        ("gimp_fast.ops.masked_l1", "from .. import training"),
        ("gimp_fast.nn.group_msa", "def f():\n    import gimp_fast.data.slides"),
        ("gimp_fast.nn.group_msa", "if True:\n    from gimp_fast.report import write_report"),
        ("gimp_fast.reference.masked_l1", "from gimp_fast.ops import masked_l1_loss"),
        ("gimp_fast.reference.masked_l1", "from gimp_fast import native"),
        ("gimp_fast.kernels.nystrom", "from gimp_fast.reference import nystrom_attention"),
        ("gimp_fast.report.html", "from gimp_fast.training import train"),
        ("gimp_fast.report.html", "from gimp_fast.models import GiMP"),
        ("gimp_fast.models.gimp", "from gimp_fast.data import open_cohort"),
        ("gimp_fast.data.cohort", "from gimp_fast.train import main"),
        ("gimp_fast.data.cohort", "from gimp_fast.cli import command"),
        ("gimp_fast.doctor", "from gimp_fast.train import main"),
        ("gimp_fast.errors", "import gimp_fast.ops"),
        ("gimp_fast.cli", "import gimp_fast.ops"),
        ("gimp_fast.ops.x", "import importlib\nimportlib.import_module('gimp_fast.nn')"),
        ("gimp_fast.ops.x", "from kernels import nystrom"),
        ("gimp_fast.losses", "from gimp_fast.models import GiMP"),
        ("gimp_fast.data.cohort", "from gimp_fast.runs import layout"),
        ("gimp_fast.runs.folder", "from gimp_fast.training import TrainConfig"),
        ("gimp_fast.heatmaps.make", "from gimp_fast.inference.model import TrainedModel"),
        ("gimp_fast.heatmaps.make", "from gimp_fast.report import write_report"),
        ("gimp_fast.files.atomic", "from gimp_fast.data import open_cohort"),
        ("gimp_fast.evaluation.rates", "from gimp_fast.models import build"),
        ("gimp_fast.inference.load", "from gimp_fast.verbs import train_model"),
        ("gimp_fast.inference.load", "from gimp_fast.external import validate_model"),
        ("gimp_fast.external.validating", "from gimp_fast.verbs import train_model"),
        ("gimp_fast.heatmaps.make", "from gimp_fast.viewer import write_pages"),
        ("gimp_fast.viewer.server", "from gimp_fast.inference import load"),
    ],
)
def test_a_planted_violation_is_caught(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gimp_fast.train", "from gimp_fast.report import write_report"),
        ("gimp_fast.train", "from gimp_fast.cli import command"),
        ("gimp_fast.models.gimp", "from gimp_fast.ops import masked_l1_loss"),
        ("gimp_fast.models.gimp", "from gimp_fast.losses import triplet_loss"),
        ("gimp_fast.ops.masked_l1", "from gimp_fast import __version__, native"),
        ("gimp_fast.ops.masked_l1", "from ..reference.masked_l1 import masked_l1_reference"),
        ("gimp_fast.nn.group_msa", "from .other import Thing\nimport torch"),
        ("gimp_fast.native", "from gimp_fast import _C"),
        ("gimp_fast.data.cohort", "from gimp_fast.errors import GimpError"),
        ("gimp_fast.data.cohort", "from gimp_fast.files.atomic import write_text"),
        ("gimp_fast.runs.records", "from gimp_fast.evaluation.rates import rates"),
        ("gimp_fast.models.base", "from gimp_fast.targets import classification"),
        ("gimp_fast.train", "from gimp_fast.verbs import train_model"),
        ("gimp_fast.files.atomic", "from gimp_fast.errors import GimpError"),
        ("gimp_fast.external.validating", "from gimp_fast.inference import load"),
        ("gimp_fast.viewer.tiles", "from gimp_fast.wsi.images import SlideImages"),
    ],
)
def test_what_the_law_allows_is_allowed(module, source):
    assert violations(source, module) == []


def _python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


HEAVY = ("torch", "triton", "pandas", "matplotlib", "sklearn", "h5py")


@pytest.mark.parametrize("module", ["gimp_fast", "gimp_fast.cli"])
def test_importing_is_cheap(module, tmp_path):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    run = _python(code, tmp_path)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_cheap_and_names_the_command(name, tmp_path):
    code = f"""
import sys
from gimp_fast.cli import main
try:
    status = main([{name!r}, "--help"])
except SystemExit as exit:
    status = exit.code
heavy = [module for module in {HEAVY} if module in sys.modules]
print("status", status, heavy)
"""
    run = _python(code, tmp_path)
    assert "usage:" in run.stdout, run.stderr
    assert name in run.stdout
    assert "--debug" in run.stdout
    assert run.stdout.splitlines()[-1] == "status 0 []"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_as_a_module_too(name, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", f"gimp_fast.{name}", "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("usage:")


def test_help_lists_every_command(capsys):
    cli = importlib.import_module("gimp_fast.cli")
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert cli.main(["no-such-command"]) == cli.EXIT_BAD_INPUT
