"""Facts with one owner: circles, file names of runs, atomic writing, rates, public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gimp_fast"


def module_name(path: Path) -> str:
    parts = ["gimp_fast", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def in_room(module: str, *rooms: str) -> bool:
    return any(module == f"gimp_fast.{room}" or module.startswith(f"gimp_fast.{room}.")
               for room in rooms)  # fmt: skip


def imported_files(module: str) -> set[str]:
    """Files of the package that a file imports anywhere, also in functions and for type checks."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in FILES else node.module)
    return found & FILES.keys() - {module}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Files that reach themselves, by the first file of each circle (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_no_circle_of_files():
    # A package's __init__ that lists its files is imported with each of them, not by them.
    graph = {
        name: {target for target in imported_files(name) if not name.startswith(f"{target}.")}
        for name in FILES
    }
    assert circles(graph) == []


def test_a_planted_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == [["b", "c"]]


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is not a docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def names_of_runs() -> set[str]:
    """Every file name that runs/layout.py gives to something in a run, an export or maps."""
    values = vars(importlib.import_module("gimp_fast.runs.layout")).values()
    return {v for v in values if isinstance(v, str) and re.fullmatch(r"[\w-]+\.\w+", v)}


# The same words with another meaning: a cohort folder has a table of genes too, and the hub names
# published weights as an export does.
ELSEWHERE = {"genes.csv": ("data",), "model.safetensors": ("wsi.encoders",)}


def test_only_runs_spells_the_file_names_of_a_run():
    names = names_of_runs()
    assert {"metrics.json", "predictions.csv", "run.json", "model.safetensors"} <= names
    spelled = [
        f"{module}:{line}: {text}"
        for module, tree in TREES.items()
        if not in_room(module, "runs")
        for line, text in strings(tree)
        if text in names and not in_room(module, *ELSEWHERE.get(text, ()))
    ]
    assert spelled == []


def test_only_one_file_asks_for_the_processor():
    asking = [
        module
        for module, tree in TREES.items()
        if any("cpuinfo" in text for _, text in strings(tree))
        or any(name == "platform.processor" for _, name in calls(tree))
    ]
    assert asking == ["gimp_fast.processor"]


def test_only_one_file_knows_the_private_operator_and_its_variable():
    variable, operator = "GIMP_FAST_PRODUCTS", "_linear_pointwise"
    spelled = [m for m, tree in TREES.items() if variable in {text for _, text in strings(tree)}]
    calling = [m for m, t in TREES.items() if any(operator in name for _, name in calls(t))]
    assert spelled == calling == ["gimp_fast.ops.product_library"]


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is called, e.g. ``os.replace``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def callers(is_meant: Callable[[str], bool], *but: str) -> list[str]:
    return [
        f"{module}:{line}: {name}"
        for module, tree in TREES.items()
        if not in_room(module, *but)
        for line, name in calls(tree)
        if is_meant(name)
    ]


def test_only_files_writes_atomically():
    def is_meant(name: str) -> bool:
        return name.split(".")[-1] == "fsync" or name in ("os.replace", "os.rename")

    assert callers(is_meant, "files") == []


def test_only_files_reads_json():
    # Elsewhere deep nesting would be a RecursionError, and the error would not name the file.
    assert callers(lambda name: name in ("json.load", "json.loads"), "files") == []


RATES = (
    "roc_auc_score", "auc", "accuracy_score", "balanced_accuracy_score", "f1_score",
    "confusion_matrix", "brier_score_loss", "log_loss", "binomtest", "bootstrap",
    "permutation_test",
)  # fmt: skip


def test_only_evaluation_computes_rates():
    def is_meant(name: str) -> bool:
        return name.split(".")[-1] in RATES and not name.startswith(
            ("self.", "rates.", "statistics.")
        )

    computed = callers(is_meant, "evaluation")
    own = [
        f"{module}:{node.lineno}: def {node.name}"
        for module, tree in TREES.items()
        if not in_room(module, "evaluation")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and re.search(r"brier|auc\b|accuracy$|holm|mcnemar|calibration_error|wilson", node.name)
    ]
    assert computed + own == []


def test_the_owners_do_compute_them():
    """Else the tests above could not fail."""
    atomic = [name for _, name in calls(TREES["gimp_fast.files.atomic"])]
    assert {"os.replace", "os.fsync"} <= set(atomic)
    evaluation = " ".join(
        ast.unparse(tree) for name, tree in TREES.items() if in_room(name, "evaluation")
    )
    assert all(word in evaluation for word in ("brier", "holm", "mcnemar", "wilson"))


SIGNATURES = {
    "gimp_fast.ops:nystrom_attention": (
        "q k v num_landmarks pinv_iterations scale cu_seqlens backend"
    ),
    "gimp_fast.ops:nystrom_attention_row": (
        "q k row num_landmarks pinv_iterations scale cu_seqlens"
    ),
    "gimp_fast.ops:masked_l1_loss": "prediction target mask reduction backend",
    "gimp_fast.ops:available_backends": "",
    "gimp_fast.nn:NystromAttention": (
        "dim dim_head heads num_landmarks pinv_iterations residual residual_conv_kernel dropout "
        "eps backend"
    ),
    "gimp_fast.losses:triplet_loss": "features labels margin mining normalize",
    "gimp_fast.models:build": "name config backend",
    "gimp_fast.models:available": "",
}
NAMES = {
    "gimp_fast": "open_cohort prepare_cohort train_model load",
    "gimp_fast.nn": "GroupMSA PatchAggregator PatchDecoder",
    "gimp_fast.models": "GiMP GiMPConfig register",
}
METHODS = (
    "abmil dsmil clam_sb clam_mb transmil snn porpoise pathomic_fusion mcat survpath mgca biovil "
    "refers gimp"
)


@pytest.mark.parametrize("path", SIGNATURES)
def test_public_functions_keep_their_arguments(path):
    module, name = path.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert list(parameters) == SIGNATURES[path].split()


@pytest.mark.parametrize("module", NAMES)
def test_public_names_are_there(module):
    imported = importlib.import_module(module)
    assert all(getattr(imported, name) is not None for name in NAMES[module].split())


def test_every_method_of_the_paper_is_there():
    assert set(METHODS.split()) <= set(importlib.import_module("gimp_fast.models").available())


# What opens a file for writing, and which of its arguments is the file: a position, or "self" for
# the object before the dot. ``files`` gives out temporary names and new streams to write to.
FILE_OF_WRITER = {
    "open": 0, "os.open": 0, "io.open": 0, "gzip.open": 0, "os.fdopen": 0, "h5py.File": 0,
    "ZipFile": 0, "zipfile.ZipFile": 0, "np.memmap": 0,
    "np.save": 0, "np.savez": 0, "np.savez_compressed": 0, "np.savetxt": 0,
    "torch.save": 1, "save_file": 1, "json.dump": 1, "pickle.dump": 1, "os.link": 1,
    "os.symlink": 1,
    "shutil.copy": 1, "shutil.copy2": 1, "shutil.copyfile": 1, "shutil.copytree": 1,
    "shutil.move": 1, "tempfile.mkstemp": 0, "tempfile.NamedTemporaryFile": 0,
}  # fmt: skip
FILE_OF_METHOD = {
    "open": "self", "write_text": "self", "write_bytes": "self", "touch": "self",
    "symlink_to": "self", "hardlink_to": "self", "rename": "self", "replace": "no",
    "to_csv": 0, "to_parquet": 0, "to_hdf": 0, "savefig": 0, "imsave": 0, "save": 0, "tofile": 0,
}  # fmt: skip
# With a mode that does not write, these only read.
WITH_MODE = {"open", "os.open", "io.open", "gzip.open", "h5py.File", "ZipFile", "zipfile.ZipFile"}
GIVES_FILES = {"atomic_file", "open_new", "open_to_append"}
# Streams of this process and its child, the last words of a broken pipe, a picture in memory, and
# methods of our own classes that write through ``files``.
ALLOWED = {
    ("gimp_fast.cli", "os.open"),
    ("gimp_fast.experiments.worker", "os.fdopen"),
    ("gimp_fast.training.stage_run", "self.recent.save"),
    ("gimp_fast.heatmaps.faithfulness.page", "style.save"),
    ("gimp_fast.report.html", "style.save"),
    ("gimp_fast.viewer.tiles", "Image.fromarray(pixels).save"),
    ("gimp_fast.experiments.document", "style.save"),
}


def given_names(tree: ast.AST) -> set[str]:
    """Names bound by ``with atomic_file(…) as name``, and by ``name.open()`` of such a name."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and isinstance(node.context_expr, ast.Call):
            call = ast.unparse(node.context_expr.func)
            base = call.rsplit(".", 1)[0]
            opens_given = base in names and call.endswith(".open")
            if node.optional_vars is not None and (call in GIVES_FILES or opens_given):
                names.add(ast.unparse(node.optional_vars))
    return names


def written_file(call: ast.Call) -> str | None:
    """What a call opens for writing, as it is spelled; None if it does not."""
    name = ast.unparse(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else None
    if name in FILE_OF_WRITER:
        place = FILE_OF_WRITER[name]
    elif method in FILE_OF_METHOD:
        place = FILE_OF_METHOD[method]
    else:
        return None
    if name in WITH_MODE or method == "open":
        mode = call.args[1:2] if name in WITH_MODE else call.args[:1]
        mode += [word.value for word in call.keywords if word.arg == "mode"]
        text = ast.unparse(mode[0]) if mode else "'r'"
        if not re.search(r"O_WRONLY|O_RDWR|O_CREAT" if name == "os.open" else r"[wax+]", text):
            return None
    if place == "self":
        return ast.unparse(call.func.value)
    if place == "no" or len(call.args) <= place:
        return None
    return ast.unparse(call.args[place])


def writes_elsewhere(module: str, tree: ast.AST) -> list[str]:
    given = given_names(tree)
    return [
        f"{module}:{node.lineno}: {ast.unparse(node.func)}({file})"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (file := written_file(node)) is not None
        and file not in given
        and (module, ast.unparse(node.func)) not in ALLOWED
    ]


def test_only_files_opens_a_file_for_writing():
    found = [
        line
        for module, tree in TREES.items()
        if not in_room(module, "files")
        for line in writes_elsewhere(module, tree)
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "path.write_text(text)",
        "path.open('w')",
        "open(path, mode='ab')",
        "np.save(folder / 'a.npy', values)",
        "figure.savefig(file, dpi=3)",
        "with h5py.File(file, 'w') as h5: pass",
        "with atomic_file(a) as partial: np.save(b, values)",
        "table.to_csv(file, index=False)",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
    ],
)
def test_a_planted_write_is_found(source):
    assert len(writes_elsewhere("gimp_fast.planted", ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "path.open('rb')",
        "h5py.File(file, 'r')",
        "table.to_csv(index=False)",
        "with atomic_file(a) as partial: np.save(partial, values)",
        "with atomic_file(a) as partial, partial.open('wb') as f: np.savez(f, values)",
    ],
)
def test_reading_and_files_of_the_owner_are_allowed(source):
    assert writes_elsewhere("gimp_fast.planted", ast.parse(source)) == []
