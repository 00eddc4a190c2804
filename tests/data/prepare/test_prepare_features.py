"""`prepare` beyond joining: packing, order, verification, reports, alignment, kills, full disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.rna import RNA_COLUMNS, TRANSFORMS
from gimp_fast.data.slides.order import PATCH_ORDERS, patch_order
from gimp_fast.data.store import STORE_DTYPES
from gimp_fast.errors import GimpError
from gimp_fast.runs.checkpoint import load_checkpoint
from gimp_fast.training import load_config, train

CASES = [f"TCGA-{site}-{n:04d}" for n, site in enumerate(["AA", "BB", "CC", "DD", "EE", "FF"] * 5)]
GENES = ("ENSG00000000001.5", "ENSG00000000002.1_PAR_Y", "ENSG00000000003.2", "ENSG00000000004.9")


class Inputs:
    """A small cohort with coordinates, in TCGA's names: five patients of each of six hospitals."""

    def __init__(self, folder: Path):
        self.folder, self.slides = folder, folder / "slides"
        self.rna, self.labels, self.out = folder / "rna.tsv", folder / "labels.csv", folder / "out"
        self.slides.mkdir(parents=True)
        rng, labels = np.random.default_rng(0), ["case_id,slide_id,label,hospital"]
        for n, case in enumerate(CASES):
            with h5py.File(self.slides / f"{case}-01Z.h5", "w") as h5:
                rows = 5 + n
                h5["features"] = rng.standard_normal((rows, 4)).astype(np.float32)
                h5["coords"] = rng.permutation(rows * 2).reshape(rows, 2) * 256
            labels.append(f"{case},{case}-01Z,{'XY'[n % 2]},{case[5:7]}")
        self.labels.write_text("\n".join(labels) + "\n", encoding="utf-8")
        self.matrix = rng.standard_normal((len(GENES), len(CASES))).round(3)
        self.write_rna(self.rna, CASES, GENES, self.matrix)

    @staticmethod
    def write_rna(file: Path, cases: list[str], genes: tuple[str, ...], values) -> None:
        lines = ["\t".join(["Ensembl_ID", *(f"{case}-01A" for case in cases)])]
        lines += ["\t".join([g, *map(str, row)]) for g, row in zip(genes, values, strict=True)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def argv(self, *extra: str | Path, out: Path | None = None) -> list[str]:
        argv = ["--slides", self.slides, "--rna", self.rna, "--labels", self.labels]
        return list(map(str, [*argv, "--out", out or self.out, *extra]))


@pytest.fixture
def inputs(tmp_path) -> Inputs:
    return Inputs(tmp_path / "in")


def test_choices_of_the_command_are_those_of_the_code():
    assert set(prepare.RNA_COLUMNS) == set(RNA_COLUMNS)
    assert set(prepare.TRANSFORMS.values()) == set(TRANSFORMS)
    assert prepare.PATCH_ORDERS == PATCH_ORDERS
    assert set(prepare.STORE_DTYPES) == set(STORE_DTYPES)


@pytest.mark.parametrize(
    "pack", [[], ["--pack"], ["--pack", "fp32"]], ids=["files", "fp16", "fp32"]
)
@pytest.mark.parametrize("order", PATCH_ORDERS)
def test_order_and_packing(inputs, pack, order):
    assert prepare.main(inputs.argv("--order", order, *pack)) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.patch_order == order
    half = pack == ["--pack"]
    for case in CASES[::7]:
        with h5py.File(inputs.slides / f"{case}-01Z.h5") as h5:
            features, coords = h5["features"][:], h5["coords"][:]
        places = patch_order(coords, order)
        expected = features[places].astype(np.float16 if half else np.float32)
        bag = cohort.bag(case)
        np.testing.assert_array_equal(bag.read(), expected.astype(np.float32))
        np.testing.assert_array_equal(bag.read(2, 5), expected[2:5].astype(np.float32))
        np.testing.assert_array_equal(bag.coords()[0], coords[places])
        assert bag.tensor(1, 3).dtype == (torch.float16 if half else torch.float32)


def test_a_packed_cohort_needs_its_files_no_more(inputs):
    assert prepare.main(inputs.argv("--pack")) == 0
    before = open_cohort(inputs.out).bag(CASES[3]).read()
    shutil.rmtree(inputs.slides)
    moved = inputs.out.with_name("moved")
    shutil.move(inputs.out, moved)
    np.testing.assert_array_equal(open_cohort(moved).bag(CASES[3]).read(), before)


def test_packing_changes_the_fingerprint_and_moving_does_not(inputs):
    prints = set()
    for number, options in enumerate([[], ["--pack", "fp32"], ["--pack"], ["--order", "row"]]):
        out = inputs.folder / f"out{number}"
        assert prepare.main(inputs.argv(*options, out=out)) == 0
        prints.add(open_cohort(out).fingerprint)
    assert len(prints) == 4


def test_a_cohort_refuses_the_store_of_another(inputs):
    for name in ("one", "two"):
        order = "row" if name == "one" else "column"
        out = inputs.folder / name
        assert prepare.main(inputs.argv("--pack", "--order", order, out=out)) == 0
    shutil.copy(inputs.folder / "one" / "store.safetensors", inputs.folder / "two")
    with pytest.raises(GimpError, match="another cohort"):
        open_cohort(inputs.folder / "two")


def test_order_without_coordinates(inputs, capsys):
    file = next(inputs.slides.iterdir())
    with h5py.File(file, "a") as h5:
        del h5["coords"]
    assert prepare.main(inputs.argv("--order", "hilbert")) == 2
    assert "[no-coords]" in capsys.readouterr().err
    assert prepare.main(inputs.argv()) == 0


def test_fp16_that_overflows_is_found_before_anything_is_written(inputs, capsys):
    with h5py.File(next(inputs.slides.iterdir()), "a") as h5:
        h5["features"][2, 1] = 70000
    assert prepare.main(inputs.argv("--pack")) == 2
    error = capsys.readouterr().err
    assert "70000 in row 2" in error
    assert "[out-of-range]" in error
    assert not inputs.out.exists()
    assert prepare.main(inputs.argv("--pack", "bf16")) == 0


def test_mixed_resolutions_are_a_fault(inputs, capsys):
    for number, file in enumerate(sorted(inputs.slides.iterdir())):
        with h5py.File(file, "a") as h5:
            h5["coords"].attrs["target_magnification"] = 40 if number == 4 else 20
    assert prepare.main(inputs.argv()) == 2
    assert "0.25 µm a pixel; expected 0.5 as in most slides [mixed-mpp]" in capsys.readouterr().err


def test_provenance_is_carried_along(inputs, capsys):
    for file in inputs.slides.iterdir():
        with h5py.File(file, "a") as h5:
            h5["features"].attrs["encoder"] = "uni_v1"
            h5["coords"].attrs.update(
                target_magnification=20, patch_size=256, patch_size_level0=512
            )
    assert prepare.main(inputs.argv()) == 0
    assert "encoder uni_v1, 0.5 µm a pixel, 256 pixels" in capsys.readouterr().out
    cohort = open_cohort(inputs.out)
    assert (cohort.encoder, cohort.mpp, cohort.patch_size) == ("uni_v1", 0.5, 256)
    assert ",512," in (inputs.out / "slides.csv").read_text(encoding="utf-8")


def break_two(inputs: Inputs) -> list[Path]:
    files = sorted(inputs.slides.iterdir())[:2]
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with h5py.File(files[1], "a") as h5:
        h5["features"][0, 0] = np.nan
    return files


def test_check_writes_nothing_and_reports_everything(inputs, capsys):
    report = inputs.folder / "report.json"
    argv = inputs.argv("--check", "--report", report)
    assert prepare.main(argv) == 0
    assert "no fault found" in capsys.readouterr().out
    assert not inputs.out.exists()
    assert json.loads(report.read_text("utf-8"))["faults"] == []
    files = break_two(inputs)
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert "2 faults in the cohort" in error
    assert "by kind: 1 truncated-file, 1 features-not-finite" in error
    found = json.loads(report.read_text("utf-8"))
    assert found["faults_by_kind"] == {"truncated-file": 1, "features-not-finite": 1}
    assert {fault["where"].split("[")[0] for fault in found["faults"]} == set(map(str, files))
    assert set(found["faults"][0]) == {"kind", "where", "found", "expected"}


def test_the_report_says_what_is_left_out(inputs):
    shutil.copy(inputs.slides / f"{CASES[0]}-01Z.h5", inputs.slides / "stranger.h5")
    report = inputs.folder / "report.json"
    assert prepare.main(inputs.argv("--report", report)) == 0
    found = json.loads(report.read_text("utf-8"))
    assert [row["id"] for row in found["dropped"]] == ["stranger"]
    assert found["dropped_by_reason"] == {"slide: not labelled": 1}
    assert "30 (30 with RNA)" in found["summary"]


@pytest.mark.parametrize("pack", [[], ["--pack"]], ids=["files", "packed"])
def test_verify(inputs, capsys, pack):
    assert prepare.main(inputs.argv(*pack)) == 0
    assert prepare.main(["--verify", str(inputs.out)]) == 0
    assert "30 patients, 30 slides, 4 genes intact" in capsys.readouterr().out
    if pack:
        content = bytearray((inputs.out / "store.safetensors").read_bytes())
        content[8 + int.from_bytes(content[:8], "little") + 50] ^= 1
        (inputs.out / "store.safetensors").write_bytes(content)
    else:
        with h5py.File(inputs.slides / f"{CASES[9]}-01Z.h5", "a") as h5:
            h5["features"][3, 1] += 1
    assert prepare.main(["--verify", str(inputs.out)]) == 2
    assert ("[checksum]" if pack else "[changed-file]") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["expression.npy", "patch_order.npy"])
def test_changed_arrays_are_noticed(inputs, name):
    assert prepare.main(inputs.argv("--order", "hilbert")) == 0
    content = bytearray((inputs.out / name).read_bytes())
    content[-3] ^= 1
    (inputs.out / name).write_bytes(content)
    with pytest.raises(GimpError, match="checksum"):
        open_cohort(inputs.out).expression(CASES[:1])


def test_a_cohort_without_rna_and_one_without_slides(inputs, capsys):
    labels = ["--labels", str(inputs.labels), "--allow-missing-modality"]
    slides = ["--slides", str(inputs.slides), "--out", str(inputs.folder / "slides-only")]
    assert prepare.main([*labels, *slides]) == 0
    rna = ["--rna", str(inputs.rna), "--out", str(inputs.folder / "rna-only")]
    assert prepare.main([*labels, *rna]) == 0
    capsys.readouterr()
    slides_only, rna_only = (open_cohort(inputs.folder / f"{x}-only") for x in ("slides", "rna"))
    assert (slides_only.has_slides(CASES[0]), slides_only.has_expression(CASES[0])) == (True, False)
    assert (rna_only.has_slides(CASES[0]), rna_only.has_expression(CASES[0])) == (False, True)
    assert prepare.main(["--labels", str(inputs.labels), "--out", "x"]) == 2
    assert "give --slides, --rna" in capsys.readouterr().err


def test_patients_of_whom_there_is_nothing(inputs, capsys):
    text = inputs.labels.read_text(encoding="utf-8")
    inputs.labels.write_text(f"{text}TCGA-AA-9999,,X,AA\n", encoding="utf-8")
    for given in (["--slides", inputs.slides], ["--rna", inputs.rna]):
        argv = ["--labels", inputs.labels, "--allow-missing-modality", "--check", *given]
        assert prepare.main(list(map(str, argv))) == 2
        assert "'TCGA-AA-9999' with neither slide nor RNA" in capsys.readouterr().err


def test_rna_of_other_patients_is_one_fault(inputs, capsys):
    others = [f"TCGA-ZZ-{n:04d}" for n in range(len(CASES))]
    inputs.write_rna(inputs.rna, others, GENES, inputs.matrix)
    for extra in ([], ["--allow-missing-modality"]):
        assert prepare.main(inputs.argv(*extra)) == 2
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        assert "none of 30 labelled patients, such as 'TCGA-" in error
        assert error.rstrip().endswith("'TCGA-ZZ-0000' [no-samples]")


def test_a_report_that_cannot_be_written(inputs, capsys):
    assert prepare.main(inputs.argv("--report", inputs.folder / "no" / "report.json")) == 2
    assert "report.json: cannot be written" in capsys.readouterr().err
    assert not inputs.out.exists()


def test_folds_that_keep_hospitals_together(inputs, capsys):
    assert prepare.main(inputs.argv("--folds", "3", "--site-splits")) == 0
    printed = capsys.readouterr().out
    assert "fold_0: new, site-preserving, fold of 3, seed 0" in printed
    cohort = open_cohort(inputs.out)
    assert cohort.split_names == ("fold_0", "fold_1", "fold_2")
    tested = []
    for name in cohort.split_names:
        sites = {part: {c[5:7] for c in cases} for part, cases in cohort.split(name).items()}
        assert not sites["train"] & sites["val"]
        assert not (sites["train"] | sites["val"]) & sites["test"]
        tested += cohort.split(name)["test"]
    assert sorted(tested) == sorted(CASES)
    assert cohort.split_notes["fold_1"].startswith("new, site-preserving")


def test_sites_of_a_column_give_the_same_split(inputs):
    outs = [inputs.folder / name for name in ("code", "column")]
    assert prepare.main(inputs.argv("--site-splits", out=outs[0])) == 0
    argv = inputs.argv("--site-splits", "--site-column", "hospital", out=outs[1])
    assert prepare.main(argv) == 0
    code, column = (open_cohort(out).split("split_0") for out in outs)
    assert code == column


def test_a_random_split_says_how_many_sites_it_shares(inputs, capsys):
    assert prepare.main(inputs.argv()) == 0
    parts = open_cohort(inputs.out).split("split_0")
    shared = {case[5:7] for case in parts["train"]} & {case[5:7] for case in parts["test"]}
    assert f"in train and in test: {len(shared)}\n" in capsys.readouterr().out
    assert shared


def test_splits_of_two_parts_say_what_became_of_them(inputs, capsys):
    lines = [",train,val", *(f"{n},{a},{b}" for n, (a, b) in enumerate(
        zip(CASES[:15], CASES[15:], strict=True)))]  # fmt: skip
    (inputs.folder / "splits_0.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--splits", inputs.folder / "splits_0.csv")) == 0
    assert "test: the file's validation part" in capsys.readouterr().out
    assert sorted(open_cohort(inputs.out).split("splits_0")["test"]) == sorted(CASES[15:])


def test_new_splits_beside_given_ones_are_refused(inputs, capsys):
    assert prepare.main(inputs.argv("--splits", inputs.labels, "--folds", "5")) == 2
    assert "leave out --folds" in capsys.readouterr().err


def test_chosen_genes(inputs):
    genes = inputs.folder / "genes.txt"
    genes.write_text("ENSG00000000004\nENSG00000000001.5\nENSG00000009999\n", encoding="utf-8")
    assert prepare.main(inputs.argv("--genes", genes)) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == (GENES[3], GENES[0])
    case = CASES.index(CASES[7])
    expected = inputs.matrix[[3, 0], case].astype(np.float32)
    np.testing.assert_array_equal(cohort.expression([CASES[7]])[0], expected)
    dropped = (inputs.out / "dropped_genes.csv").read_text(encoding="utf-8")
    assert all(gene in dropped for gene in (*GENES[1:3], "ENSG00000009999"))


TINY = ["model.dim=8", "model.heads=2", "model.num_landmarks=4", "model.head_hidden=8"]
TINY += ["genes.epochs=1", "pretrain.epochs=1", "pretrain.window=8", "finetune.epochs=1"]
TINY += ["bootstrap=20", "threads=1", "device=cpu"]


def signatures(inputs: Inputs) -> Path:
    file = inputs.folder / "sets.gmt"
    ids = [gene.split(".")[0] for gene in GENES]
    file.write_text(f"ONE\tx\t{ids[0]}\t{ids[3]}\nTWO\tx\t{ids[3]}\t{ids[2]}\n", encoding="utf-8")
    return file


def test_signatures_become_groups_of_the_model_and_of_its_checkpoint(inputs):
    assert prepare.main(inputs.argv("--gene-sets", signatures(inputs))) == 0
    cohort = open_cohort(inputs.out)
    assert cohort.gene_ids == (GENES[0], GENES[3], GENES[2])
    assert cohort.gene_sets == {"ONE": (0, 1), "TWO": (1, 2)}
    train(load_config(overrides=TINY), cohort, inputs.folder / "run")
    _, state = load_checkpoint(inputs.folder / "run" / "checkpoints" / "finetune.safetensors")
    assert state["model"]["gene_sets"] == [[0, 1], [1, 2]]
    assert state["cohort"]["gene_sets"] == {"ONE": [0, 1], "TWO": [1, 2]}


def test_new_patients_are_aligned_to_the_genes_of_a_run(inputs, capsys):
    assert prepare.main(inputs.argv("--transform", "as-given")) == 0
    train(load_config(overrides=TINY), inputs.out, inputs.folder / "run")
    genes = ("ENSG00000000004.11", "ENSG00000007777.1", "ENSG00000000001.6", "ENSG00000000003.3")
    inputs.write_rna(inputs.rna, CASES, genes, inputs.matrix)
    capsys.readouterr()
    for reference in (inputs.out, inputs.folder / "run"):
        out = inputs.folder / f"new-{reference.name}"
        assert prepare.main(inputs.argv("--genes-of", reference, out=out)) == 0
        printed = capsys.readouterr().out
        assert "1 genes not measured: ENSG00000000002.1_PAR_Y" in printed
        cohort = open_cohort(out)
        assert cohort.gene_ids == GENES
        assert cohort.missing_genes == (GENES[1],)
        values = cohort.expression(CASES[:1])[0]
        expected = inputs.matrix[[2, 0, 3, 0], 0].astype(np.float32)
        assert np.isnan(values[1])
        np.testing.assert_array_equal(values[[0, 2, 3]], expected[[0, 2, 3]])
        with pytest.raises(GimpError, match="for prediction"):
            train(load_config(overrides=TINY), cohort, inputs.folder / f"not-{reference.name}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--gene-types", "protein_coding"], "[gene-options]"),
        (["--transform", "log1p"], "[gene-options]"),
        (["--genes-of", "nowhere"], "[gene-reference]"),
    ],
)
def test_impossible_alignments(inputs, capsys, option, message):
    assert prepare.main(inputs.argv()) == 0
    argv = inputs.argv("--genes-of", inputs.out, *option, out=inputs.folder / "new")
    assert prepare.main(argv) == 2
    assert message in capsys.readouterr().err


def test_training_from_the_store_with_reading_processes_is_the_same(inputs):
    assert prepare.main(inputs.argv("--pack", "fp32")) == 0
    weights = []
    for workers in (0, 2):
        run = inputs.folder / f"run{workers}"
        metrics = train(load_config(overrides=[*TINY, f"workers={workers}"]), inputs.out, run)
        weights.append(load_checkpoint(run / "checkpoints" / "finetune.safetensors")[0])
    assert metrics["test"]["n"] > 0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_most_variable_genes_are_chosen_on_training_patients(inputs):
    assert prepare.main(inputs.argv()) == 0
    cohort = open_cohort(inputs.out)
    overrides = [*TINY, "most_variable_genes=2", "gene_scaling=none"]
    train(load_config(overrides=overrides), cohort, inputs.folder / "run")
    tensors, state = load_checkpoint(inputs.folder / "run" / "checkpoints" / "finetune.safetensors")
    variance = cohort.expression(cohort.split("split_0")["train"]).var(0)
    chosen = sorted(np.argsort(-variance)[:2])
    assert state["cohort"]["gene_ids"] == [GENES[i] for i in chosen]
    assert tensors["scaler.mean"].tolist() == [0, 0]


FULL_DISK = """
import resource, sys
from gimp_fast import prepare
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(prepare.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 3000, 6000])
def test_a_full_disk_leaves_nothing(inputs, limit):
    """No file may grow beyond the limit: a write fails in the middle, as on a full disk."""
    argv = [sys.executable, "-c", FULL_DISK, str(limit), *inputs.argv("--pack", "fp32")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in inputs.folder.iterdir()) == ["labels.csv", "rna.tsv", "slides"]


KILLED = """
import os, signal, sys
import gimp_fast.data.prepare.cohort_writer as writer
import gimp_fast.files.atomic as atomic
from gimp_fast import prepare

steps = iter(range(10**6))
last = int(sys.argv[1])

def counted(function):
    def call(*args, **options):
        if next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

for name in ("write_table", "write_store", "_write_expression"):
    setattr(writer, name, counted(getattr(writer, name)))
atomic._flush_path = counted(atomic._flush_path)
os.replace = counted(os.replace)
prepare.main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_kill_at_any_step_of_writing_leaves_no_cohort_that_opens_by_half(inputs):
    """Killed before the rename there is no cohort, after it there is a whole one."""
    opened = []
    for last in (0, 1, 4, 7, 8, 12, 19, 20, 25, 40):
        out = inputs.folder / f"out{last}"
        argv = [sys.executable, "-c", KILLED, str(last), *inputs.argv("--pack", out=out)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            assert open_cohort(out).bag(CASES[0]).read().shape == (5, 4)
            continue
        assert done.returncode == -signal.SIGKILL
        opened.append(out.exists())
        if out.exists():
            assert prepare.main(["--verify", str(out)]) == 0
    assert opened[0] is False
    assert opened.count(False) >= 5


def test_what_a_killed_process_left_is_removed_by_the_next(inputs):
    left = inputs.folder / ".out.partial-abc"
    left.mkdir()
    (left / ".lock").touch()
    (left / "store.safetensors").write_bytes(b"half")
    assert prepare.main(inputs.argv()) == 0
    assert not left.exists()


BUSY = """
import sys, time
from pathlib import Path
from gimp_fast.files.atomic import new_folder
with new_folder(Path(sys.argv[1])):
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_another_process_is_writing_is_left_alone(inputs):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(inputs.out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "writing\n"
        assert prepare.main(inputs.argv()) == 0
        assert len(list(inputs.folder.glob(".out.partial-*"))) == 1
    finally:
        process.kill()
        process.wait()


def test_too_little_space_is_said_before_packing(inputs, capsys, monkeypatch):
    usage = shutil.disk_usage(inputs.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert prepare.main(inputs.argv("--pack")) == 2
    assert "[disk-space]" in capsys.readouterr().err
    assert not inputs.out.exists()


def test_a_hint_where_the_features_lie_one_folder_deeper(inputs, capsys):
    argv = inputs.argv()
    argv[1] = str(inputs.folder)
    assert prepare.main(argv) == 2
    assert "there are some in 'slides'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_cohort_of_2000_slides_opens_in_little_memory(tmp_path):
    """The figure is a benchmark's; this holds that nothing reads the features."""
    from gimp_fast.data.store import FeatureStore, PackedSlide, write_store

    with h5py.File(tmp_path / "one.h5", "w") as h5:
        h5["features"] = np.zeros((64, 1024), np.float32)
    slides = [PackedSlide(f"slide-{n}", tmp_path / "one.h5", 64, "") for n in range(2000)]
    write_store(tmp_path / "store", slides, dtype="fp16", feature_dim=1024)
    status = Path("/proc/self/statm")
    before = int(status.read_text().split()[1])
    store = FeatureStore(tmp_path / "store")
    assert len(store.slide_ids) == 2000
    assert (int(status.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE") < 50e6
    (tmp_path / "store").unlink()


def test_real_coordinates_of_clam_and_a_real_gdc_file(tmp_path, real_data):
    """Real coordinates under synthetic features; GDC's own file as the RNA of every patient."""
    (tmp_path / "slides").mkdir()
    sheet, labels = ["File ID\tFile Name\tCase ID\tSample ID\tSample Type"], []
    source = real_data / "gdc" / "ncigdc_test_set_1.final.tsv.gz"
    patched = sorted((real_data / "clam_coords").glob("*.h5"))
    for number in range(8):
        with h5py.File(patched[number % len(patched)]) as h5:
            coords = h5["coords"][:]
        case = f"TCGA-00-{number:04d}"
        features = np.repeat(coords[:, :1], 4, 1).astype(np.float32)
        with h5py.File(tmp_path / "slides" / f"{case}.h5", "w") as h5:
            h5["features"], h5["coords"] = features, coords
        name = f"{number}.rna_seq.augmented_star_gene_counts.tsv.gz"
        (tmp_path / "rna" / f"u{number}").mkdir(parents=True)
        shutil.copy(source, tmp_path / "rna" / f"u{number}" / name)
        sheet.append(f"u{number}\t{name}\t{case}\t{case}-01A\tPrimary Tumor")
        labels.append(f"{case},{case},{'AB'[number % 2]}")
    (tmp_path / "rna" / "gdc_sample_sheet.tsv").write_text("\n".join(sheet) + "\n", "utf-8")
    (tmp_path / "l.csv").write_text("\n".join(["case_id,slide_id,label", *labels]), "utf-8")
    argv = [
        "--slides",
        tmp_path / "slides",
        "--rna",
        tmp_path / "rna",
        "--labels",
        tmp_path / "l.csv",
    ]
    argv += ["--out", tmp_path / "out", "--order", "hilbert", "--pack", "fp32"]
    assert prepare.main(list(map(str, argv))) == 0
    cohort = open_cohort(tmp_path / "out")
    assert (len(cohort.gene_ids), cohort.gene_names[0]) == (96, "TSPAN6")
    assert cohort.expression_facts["gene_model"] == "GENCODE v36"
    bag = cohort.bag(cohort.case_ids[0])
    (coords,) = bag.coords()
    np.testing.assert_array_equal(bag.read()[:, 0], coords[:, 0].astype(np.float32))
    steps = np.abs(np.diff(coords, axis=0)).sum(1)
    with h5py.File(patched[0]) as h5:
        shuffled = np.random.default_rng(0).permutation(h5["coords"][:])
    assert steps.mean() < 0.2 * np.abs(np.diff(shuffled, axis=0)).sum(1).mean()
