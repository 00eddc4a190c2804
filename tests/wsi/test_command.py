"""``gimp-fast extract``: from folders of slides to files, tables and exit codes."""

from __future__ import annotations

import csv
import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders.slides import write_slide

from gimp_fast import extract
from gimp_fast.extract import build_parser, main
from gimp_fast.files.locks import lock_file
from gimp_fast.wsi.options import GridOptions, TissueOptions

SMALL = {"size": (1400, 1300), "tissue": [(256, 256, 1024, 1024)]}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three slides that are fine, and one each of blank, without resolution, and damaged."""
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    slides = tmp_path / "slides"
    for name in ("a", "b", "c"):
        write_slide(slides, f"{name}.tif", **SMALL)
    write_slide(slides, "blank.tif", **SMALL | {"tissue": []})
    write_slide(slides, "no-mpp.tif", **SMALL, mpp=None)
    (slides / "damaged.svs").write_bytes((slides / "a.tif").read_bytes()[:5000])
    return slides


def run(folder: Path, *options: object) -> int:
    out = folder.parent / "out"
    try:
        return main(["--slides", str(folder), "--out", str(out), *map(str, options)])
    except SystemExit as refused:  # by argparse
        return refused.code


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_failures_are_listed_and_do_not_stop_the_others(folder, capsys):
    assert run(folder, "--random-weights", "--workers", 2) == 2
    out, printed = folder.parent / "out", capsys.readouterr().out
    assert sorted(path.stem for path in (out / "h5_files").iterdir()) == ["a", "b", "c"]
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == ["a", "b", "blank", "c"]
    assert "6 slides: 3 done, 0 made earlier, 3 failed; 27 patches" in printed
    failures = rows(out / "failures.csv")
    assert [(row["slide_id"], row["kind"]) for row in failures] == [
        ("blank", "no-tissue"), ("damaged", "unreadable-slide"), ("no-mpp", "resolution-unknown"),
    ]  # fmt: skip
    for row in failures:
        assert row["found"] in printed
        assert row["expected"] in printed
    done = rows(out / "slides.csv")
    assert [row["status"] for row in done].count("done") == 3
    assert done[0] | {"file": "", "seconds": "", "tissue_fraction": ""} == {
        "slide_id": "a", "file": "", "status": "done", "patches": "9", "mpp": "0.5",
        "patch_size_level0": "256", "level": "0", "level0_mpp": "0.5",
        "mpp_source": "mpp of the slide", "tissue_fraction": "", "saturation_threshold": "30",
        "pen_fraction": "0.0000", "reader": "openslide generic-tiff", "seconds": "", "kind": "",
        "cautions": "",
    }  # fmt: skip


def test_random_weights_are_marked_everywhere(folder, capsys):
    run(folder, "--pattern", "a.tif", "--random-weights", "--seed", 4)
    printed = capsys.readouterr().out
    assert "encoder RANDOM-WEIGHTS-resnet50_trunc-seed4" in printed
    assert "WARNING: random weights" in printed
    import h5py

    with h5py.File(folder.parent / "out" / "h5_files" / "a.h5") as file:
        assert file["features"].attrs["encoder"].startswith("RANDOM-WEIGHTS")
        assert "mean nothing" in file.attrs["weights"]


def test_prepare_reads_what_extract_wrote(folder, tmp_path, capsys):
    from gimp_fast.prepare import main as prepare

    assert run(folder, "--pattern", "[abc].tif", "--random-weights") == 0
    cohort = tmp_path / "cohort"
    features = str(folder.parent / "out" / "h5_files")
    capsys.readouterr()
    assert prepare(["--slides", features, "--no-labels", "--allow-missing-modality",
                    "--out", str(cohort), "--order", "hilbert"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "3, 1024 channels, encoder RANDOM-WEIGHTS" in printed
    assert "0.5 µm a pixel, 256 pixels" in printed


def test_resume_skips_and_overwrite_does_not(folder, capsys):
    options = ("--pattern", "a.tif", "--patches-only", "--no-overlay")
    assert run(folder, *options) == 0
    file = folder.parent / "out" / "patches" / "a.h5"
    first = file.stat().st_mtime_ns
    assert run(folder, *options, "--resume") == 0
    assert "0 done, 1 made earlier, 0 failed; 9 patches" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == first
    assert run(folder, *options, "--overwrite") == 0
    assert file.stat().st_mtime_ns > first
    assert not (folder.parent / "out" / "overlays").exists()


def test_the_parts_cover_all_slides_once(folder):
    for index in (1, 2):
        run(folder, "--pattern", "[abc].tif", "--patches-only", "--shard", f"{index}/2")
    out = folder.parent / "out"
    done = [[row["slide_id"] for row in rows(out / f"slides-{n}of2.csv")] for n in (1, 2)]
    assert done == [["a", "c"], ["b"]]
    assert len(list((out / "patches").iterdir())) == 3


def test_a_resolution_for_slides_that_record_none(folder):
    assert run(folder, "--pattern", "no-mpp.tif", "--patches-only", "--mpp-override", 0.5) == 0
    assert run(folder, "--pattern", "no-mpp.tif", "--patches-only", "--overwrite",
               "--magnification-override", 20) == 0  # fmt: skip
    table = folder.parent / "mpp.csv"
    table.write_text("slide_id,mpp\na,0.4\n", encoding="utf-8")
    assert run(folder, "--pattern", "a.tif", "--patches-only", "--mpp-override", table) == 0
    done = rows(folder.parent / "out" / "slides.csv")
    assert (done[0]["patch_size_level0"], done[0]["mpp_source"]) == ("320", "mpp.csv:2 0.4")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--random-weights", "--weights", "w.pth"), "either --weights or --random-weights"),
        (("--patches-only", "--coords", "x"), "leave out --patches-only"),
        (
            ("--random-weights", "--batch-size", 0),
            "--batch-size: found '0'; expected a",
        ),
        (
            ("--random-weights", "--min-tissue", 2),
            "--min-tissue: found '2'; expected a",
        ),
        (("--random-weights", "--saturation", "high"), "--saturation: found 'high'"),
        (("--random-weights", "--shard", "9/8"), "--shard: found '9/8'"),
        (("--weights", "absent.pth"), "absent.pth: found no such file"),
        (("--random-weights", "--pattern", "*.svsx"), "found no slide"),
        (("--random-weights", "--mpp-override", "absent.csv"), "--mpp-override"),
        (("--random-weights", "--device", "cuda:99"), "device 'cuda:99' cannot be used"),
    ],
)
def test_requests_that_cannot_be_met(folder, capsys, options, expected):
    assert run(folder, *options) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "Traceback" not in error


def test_an_output_that_cannot_be_written(folder, capsys):
    (folder.parent / "out").write_bytes(b"")
    assert run(folder, "--patches-only") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--slides", str(tmp_path), "--out", str(tmp_path), "--patches-only"]) == 2
    assert "gimp-fast[wsi]" in capsys.readouterr().err


def test_defaults_in_the_help_are_those_of_the_options():
    grid, tissue = GridOptions(), TissueOptions()
    help_text = " ".join(build_parser().format_help().split())
    for text in (
        f"10 / mpp (default: {10 / grid.target_mpp:g})",
        f"side in pixels (default: {grid.patch_size})",
        f"without resampling (default: {grid.tolerance:g})",
        f"tissue in a patch (default: {grid.min_tissue:g})",
        f"searched for tissue (default: {tissue.mpp:g})",
        f"kept within {tissue.lowest} and {tissue.highest}",
        f"1 for none (default: {tissue.median})",
        f"1 for none (default: {tissue.close})",
        f"pieces of tissue (default: {tissue.min_part_um2 / 1e6:.2g})",
        f"smaller holes (default: {tissue.min_hole_um2 / 1e6:.2g})",
    ):
        assert text in help_text
    assert extract.__doc__.startswith("``python -m gimp_fast.extract``")


def test_every_option_reaches_its_place(tmp_path):
    argv = ["--slides", "x", "--out", "y", "--mpp", "1", "--patch-size", "128",
            "--level-tolerance", "0.2", "--min-tissue", "0.6", "--saturation", "12",
            "--segmentation-mpp", "8", "--median", "5", "--close", "2", "--min-part", "0.3",
            "--min-hole", "0.1", "--batch-size", "9", "--workers", "3", "--no-overlay",
            "--overwrite", "--coords", "z"]  # fmt: skip
    made = extract.options_of(build_parser().parse_args(argv))
    assert vars(made.grid) == {
        "target_mpp": 1, "patch_size": 128, "tolerance": 0.2, "min_tissue": 0.6,
    }  # fmt: skip
    tissue = vars(made.tissue)
    assert {name: tissue[name] for name in ("saturation", "mpp", "median", "close")} == {
        "saturation": 12, "mpp": 8, "median": 5, "close": 2,
    }  # fmt: skip
    assert (tissue["min_part_um2"], tissue["min_hole_um2"]) == (0.3e6, 0.1e6)
    assert (made.batch_size, made.workers, made.overlay, made.overwrite) == (9, 3, False, True)
    assert (made.out, made.coords) == (Path("y"), Path("z"))
    argv = ["--slides", "x", "--out", "y", "--magnification", "40"]
    assert extract.options_of(build_parser().parse_args(argv)).grid.target_mpp == 10 / 40


def test_a_resolution_is_given_in_one_unit(capsys):
    argv = ["--slides", "x", "--out", "y", "--magnification", "40", "--mpp", "0.25"]
    with pytest.raises(SystemExit) as refused:
        build_parser().parse_args(argv)
    assert refused.value.code == 2
    assert "not allowed with argument --magnification" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_resumes(folder):
    """SIGKILL in the middle of a slide: every file is complete, and the same command resumes."""
    write_slide(folder, "z.tif", size=(4000, 2000), tissue=[(0, 0, 4000, 2000)])
    out = folder.parent / "out"
    command = [
        sys.executable, "-m", "gimp_fast.extract", "--slides", str(folder), "--pattern", "a.tif",
        "z.tif", "--out", str(out), "--random-weights", "--patch-size", "64", "--batch-size", "8",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob("h5_files/.z.h5.*.partial")):
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert [path.name for path in out.glob("h5_files/*.h5")] == ["a.h5"]
    short = [*command, "--pattern", "a.tif"]
    done = subprocess.run(short, capture_output=True, encoding="utf-8", check=True)
    assert "0 done, 1 made earlier, 0 failed" in done.stdout


def test_the_command_is_thin():
    assert len(inspect.getsource(main).splitlines()) < 20


def test_many_failures_are_shown_by_five_and_all_are_in_the_table(folder, capsys):
    for number in range(30):
        (folder / f"bad_{number}.svs").write_bytes(b"not a slide")
    assert run(folder, "--patches-only", "--pattern", "bad_*") == 2
    said = capsys.readouterr().out
    assert said.count("expected") == 5
    assert re.search(r"^  … and 25 more of [a-z-]+$", said, re.MULTILINE)
    assert len(rows(folder.parent / "out" / "failures.csv")) == 30


def test_a_folder_that_another_command_fills_is_refused_and_a_shard_is_not(folder, capsys):
    (folder.parent / "out").mkdir()
    with lock_file(folder.parent / "out" / ".lock"):
        assert run(folder, "--patches-only") == 2
        assert "another command is at work there" in capsys.readouterr().err
        assert run(folder, "--patches-only", "--shard", "1/1") in (0, 2)
        assert "another command" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "size", "mpp"),
    [
        ([], 256, 0.5),
        (["--encoder", "conch"], 512, 0.5),
        (["--encoder", "ctranspath"], 256, 1.0),
        (["--encoder", "virchow", "--patch-size", "256"], 256, 0.5),
        (["--encoder", "uni", "--magnification", "40"], 256, 0.25),
        (["--encoder", "timm:test_vit", "--mpp", "1"], 256, 1.0),
    ],
)
def test_a_named_encoder_sets_the_patches(argv, size, mpp, capsys):
    grid = extract.grid_of(build_parser().parse_args(["--slides", "a", "--out", "b", *argv]))
    assert (grid.patch_size, grid.target_mpp) == (size, mpp)
    said = capsys.readouterr().out
    assert said.startswith("CAUTION: UNI is recommended for 0.5") == ("--magnification" in argv)
