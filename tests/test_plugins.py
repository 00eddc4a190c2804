"""Own models, targets, encoders and readers: from files, modules and packages, in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.slides import write_slide

from gimp_fast import data, models, plugins, targets, wsi
from gimp_fast.data import slides as slide_files
from gimp_fast.errors import GimpError
from gimp_fast.training import load_config
from gimp_fast.training.task import check_target
from gimp_fast.wsi import encoder as encoder_module
from gimp_fast.wsi.options import EncoderOptions

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "plugins"

needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the tests lie without the examples"
)


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Copies of the registries, and no plugin loaded; other tests do not see what a test adds."""
    for registry in (
        models._MODELS,
        targets._TARGETS,
        encoder_module._ENCODERS,
        slide_files._READERS,
    ):
        monkeypatch.setattr(registry, "things", dict(registry.things))
    monkeypatch.setattr(plugins, "_loaded", {})
    # Set and removed, so that what a test leaves there is undone.
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.delenv(plugins.VARIABLE)


def run(*argv: object, cwd: Path, path: Path | None = None, **variables: str):
    environment = {k: v for k, v in os.environ.items() if k != plugins.VARIABLE} | variables
    if path is not None:
        found = [str(path), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(found)
    return subprocess.run(
        [sys.executable, "-m", "gimp_fast", *map(str, argv)],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


QUICK = ["--set", "finetune.epochs=1", "--set", "bootstrap=20", "--set", "threads=1"]


@needs_examples
@pytest.mark.slow
def test_a_model_of_a_file_trains_and_predicts_in_fresh_processes(cohort_folder, tmp_path):
    plugin, out = EXAMPLES / "own_model.py", tmp_path / "run"
    train = ["train", "--data", cohort_folder, "--out", out, *QUICK, "--method", "linear"]
    refused = run(*train, cwd=tmp_path)
    assert refused.returncode == 2
    assert "method: found 'linear'; expected one of mean_pool" in refused.stderr
    done = run(*train, "--plugin", plugin, "--set", "model.dropout=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    environment = json.loads((out / "environment.json").read_text())
    assert environment["plugins"][str(plugin)].startswith("sha256:")
    predict = ["predict", "--run", out, "--data", cohort_folder, "--part", "test"]
    refused = run(*predict, "--out", "predicted", cwd=tmp_path)
    assert refused.returncode == 2
    assert "found 'linear'; expected one of mean_pool" in refused.stderr
    assert "your own model needs --plugin [config]" in refused.stderr
    done = run(*predict, "--out", "predicted", "--plugin", plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "predicted" / "predictions.csv").is_file()
    assert (tmp_path / "predicted" / "predictions.warnings.json").is_file()


@needs_examples
@pytest.mark.slow
def test_a_target_of_a_file_trains(cohort_folder, tmp_path):
    plugin = EXAMPLES / "own_target.py"
    losses = {}
    for name, more in (("plain", []), ("smoothed", ["--set", "target=smoothed"])):
        argv = ["--data", cohort_folder, "--out", name, *QUICK, "--method", "abmil", *more]
        done = run("train", "--plugin", plugin, *argv, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = json.loads(lines[-1])["train"]["loss"]
    assert losses["plain"] != losses["smoothed"]
    # A target is needed for training alone.
    argv = ["--run", "smoothed", "--data", cohort_folder, "--part", "test", "--out", "predicted"]
    assert run("predict", *argv, cwd=tmp_path).returncode == 0


@needs_examples
@pytest.mark.slow
def test_a_loss_of_a_file_trains(cohort_folder, tmp_path):
    losses = {}
    for penalty in (0, 0.5):
        argv = ["--data", cohort_folder, "--out", f"of-{penalty}", *QUICK]
        argv = ["train", "--plugin", EXAMPLES / "own_loss.py", "--method", "sparse_abmil", *argv]
        done = run(*argv, "--set", f"model.penalty={penalty}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / f"of-{penalty}" / "metrics.jsonl").read_text().splitlines()
        losses[penalty] = json.loads(lines[-1])["train"]["loss"]
    assert losses[0.5] > losses[0]


def npy_cohort(folder: Path, rows: np.ndarray | None = None) -> list[object]:
    """Arguments of ``prepare`` for eight patients with a slide in NumPy's format each."""
    (folder / "npy").mkdir()
    lines = ["case_id,slide_id,label"]
    for number in range(8):
        features = np.random.default_rng(number).normal(size=(3 + number, 5)).astype(np.float16)
        np.save(folder / "npy" / f"s{number}.npy", features)
        lines.append(f"c{number},s{number},{'ab'[number % 2]}")
    if rows is not None:
        np.save(folder / "npy" / "s3.npy", rows)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    splits = [
        f"c{n},{part}" for n, part in enumerate(("train",) * 4 + ("val",) * 2 + ("test",) * 2)
    ]
    (folder / "splits.csv").write_text("\n".join(["case_id,split", *splits]) + "\n")
    return [
        "prepare", "--slides", "npy", "--labels", "labels.csv", "--splits", "splits.csv",
        "--allow-missing-modality", "--out", "cohort",
    ]  # fmt: skip


@needs_examples
@pytest.mark.slow
def test_a_reader_of_a_file_prepares_and_trains(tmp_path):
    prepare, plugin = npy_cohort(tmp_path), ["--plugin", EXAMPLES / "own_reader.py"]
    refused = run(*prepare, cwd=tmp_path)
    assert refused.returncode == 2
    assert "no feature file directly inside" in refused.stderr
    done = run(*prepare, *plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    train = ["train", "--data", "cohort", "--out", "run", *QUICK, "--method", "abmil"]
    refused = run(*train, cwd=tmp_path)
    assert refused.returncode == 2
    assert "or name the code of your own format as --plugin" in refused.stderr
    done = run(*train, *plugin, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@needs_examples
def test_what_a_reader_raises_about_a_file_is_a_fault(tmp_path):
    prepare = npy_cohort(tmp_path, np.full((4, 5), None))  # would be read by running a pickle
    done = run(*prepare, "--plugin", EXAMPLES / "own_reader.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "s3.npy: found ValueError: Array can't be memory-mapped" in done.stderr


def test_endings_of_readers_are_checked():
    for ending in ("npy", ".", ".NPY", "", 3):
        with pytest.raises(ValueError, match="expected an ending in lower case"):
            data.register_reader(ending, slide_files.open_slide)
    with pytest.raises(ValueError, match=r"'\.h5' is taken"):
        data.register_reader(".h5", slide_files.open_slide)
    with pytest.raises(TypeError, match="expected a function of a path"):
        data.register_reader(".npy", "npy")


def test_the_longest_ending_decides(tmp_path):
    opened = []
    data.register_reader(".mine.h5", opened.append)
    file = tmp_path / "a.mine.h5"
    file.touch()
    slide_files.open_slide(file)
    assert opened == [file]
    assert slide_files.slide_id_of(file) == "a"


@needs_examples
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_fits_a_screen(name):
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 30


@needs_examples
@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["--plugin", EXAMPLES / "own_encoder.py", "--encoder", "colours"],
        ["--encoder", f"{EXAMPLES / 'own_encoder.py'}:make"],
    ],
    ids=["registered", "function"],
)
def test_an_encoder_of_a_file_extracts(how, tmp_path):
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    write_slide(tmp_path / "slides", "a.tif", size=(1400, 1300), tissue=[(256, 256, 1024, 1024)])
    argv = ["extract", "--slides", "slides", "--out", "out", "--no-overlay", *how]
    done = run(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with h5py.File(tmp_path / "out" / "h5_files" / "a.h5") as file:
        assert file["features"].shape == (9, 6)
        assert file.attrs["encoder"].startswith(("colours-", "make-"))


MODULE = "from gimp_fast import targets\ntargets.register('mine', targets.Classification())\n"
ASK = ["train", "--dry-run", "--set", "target=other"]  # the answer lists the targets


def test_a_module_in_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE, encoding="utf-8")
    asked = run(*ASK, "--plugin", "mine", cwd=tmp_path)
    assert "expected one of classification, mine" in asked.stderr
    # A process that the command starts finds it by the variable.
    asked = run(*ASK, cwd=tmp_path, **{plugins.VARIABLE: "mine"})
    assert "expected one of classification, mine" in asked.stderr


def installed(folder: Path, code: str) -> Path:
    """A package with an entry point, as pip leaves it."""
    info = folder / "mine_pkg-1.2.dist-info"
    info.mkdir(parents=True)
    (folder / "mine_pkg.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-pkg\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nmine = mine_pkg\n")
    return folder


def test_an_installed_package_is_found_without_an_option(tmp_path):
    asked = run(*ASK, cwd=tmp_path, path=installed(tmp_path / "site", MODULE))
    assert "expected one of classification, mine" in asked.stderr


def test_a_broken_package_is_named_and_stops_nothing(tmp_path):
    asked = run(*ASK, cwd=tmp_path, path=installed(tmp_path / "site", "import no_such_module\n"))
    assert asked.returncode == 2
    assert "plugin 'mine' of mine-pkg is left out: ModuleNotFoundError" in asked.stderr
    assert "target: found 'other'; expected classification" in asked.stderr


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("none.py", None, r"none\.py: found no such file; expected a Python file or a module"),
        ("no_such_module_here", None, "found no such module; expected a module or a .py file"),
        ("bad.py", "def f(:\n", r"bad\.py: found code that fails: SyntaxError"),
        ("bad.py", "x = unknown\n", "found code that fails: NameError"),
        ("bad.py", "1 / 0\n", "found code that fails: ZeroDivisionError"),
        (
            "bad.py",
            "from gimp_fast import models\nmodels.register('gimp', models.GiMP)\n",
            "ValueError: model 'gimp' is taken by GiMP",
        ),
    ],
    ids=["file", "module", "syntax", "name", "runs", "taken"],
)
def test_a_plugin_that_fails_is_one_error(name, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if code is not None:
        Path(name).write_text(code, encoding="utf-8")
    with pytest.raises(GimpError, match=message):
        plugins.use_plugins([name])
    assert plugins.VARIABLE not in os.environ
    assert plugins.load_plugins() == {}


def test_a_plugin_is_imported_once_and_may_look_names_up(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from gimp_fast import models\nassert models.available()\n" + MODULE)
    plugins.use_plugins([str(file), str(file)])
    plugins.use_plugins([str(file)])
    assert list(plugins.load_plugins()) == [str(file)]
    assert targets.available() == ("classification", "mine")
    assert load_config(overrides=["target=mine"]).target == "mine"


def test_targets_are_checked():
    with pytest.raises(TypeError, match="expected an instance of a subclass of Classification"):
        targets.register("mine", targets.Classification)
    with pytest.raises(ValueError, match="'classification' is taken by Classification"):
        targets.register("classification", targets.Classification())
    with pytest.raises(ValueError, match="expected a name"):
        targets.register(" ", targets.Classification())
    with pytest.raises(GimpError, match=r"target: found 'clasification'; .*did you mean"):
        check_target("clasification", ())


class Flat(torch.nn.Module):
    def forward(self, pixels):
        return pixels.mean((2, 3))


def load(name: str):
    return wsi.load_encoder(EncoderOptions(encoder=name, device="cpu"), 32)


def test_a_registered_encoder_has_its_channels_and_a_name_of_its_weights():
    wsi.register_encoder("flat", lambda weights: Flat(), mean=(0, 0, 0), std=(1, 1, 1))
    assert wsi.available_encoders()[:3] == ("resnet50", "flat", "uni")
    made = load("flat")
    assert (made.dim, made.name[:5]) == (3, "flat-")
    white = made(torch.full((2, 32, 32, 3), 255, dtype=torch.uint8).numpy())
    assert white.tolist() == [[1.0] * 3] * 2


ENCODERS = {
    "unknown": ("flut", "found 'flut'; expected one of resnet50, flat, .*did you mean 'flat'"),
    "no-network": ("text", "--encoder text: .*found a str; expected a torch.nn.Module"),
    "fails": ("fails", "--encoder fails: .*no weights here"),
    "shape": ("pixels", r"found an output of shape \(2, 3, 32, 32\) for 2 patches; expected"),
    "module": ("no_such_module_here:make", "found no such module"),
    "no-function": ("json:lods", "json has no function 'lods'; .*did you mean 'loads'"),
    "no-name": ("json:", "expected module:function"),
}


def fails(weights):
    raise RuntimeError("no weights here")


@pytest.mark.parametrize(("name", "message"), ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_that_does_not_fit_is_one_error(name, message):
    wsi.register_encoder("flat", lambda weights: Flat())
    wsi.register_encoder("text", lambda weights: "network")
    wsi.register_encoder("fails", fails)
    wsi.register_encoder("pixels", lambda weights: torch.nn.Identity())
    with pytest.raises(GimpError, match=message):
        load(name)


def test_names_of_encoders_are_checked():
    with pytest.raises(ValueError, match="'resnet50' is taken"):
        wsi.register_encoder("resnet50", Flat)
    with pytest.raises(TypeError, match="expected a function of the weights"):
        wsi.register_encoder("flat", 3)
