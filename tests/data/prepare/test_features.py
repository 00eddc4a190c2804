"""Features packed or left in their files, in any order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders.prepare_inputs import CASES

from gimp_fast import prepare
from gimp_fast.data import open_cohort
from gimp_fast.data.slides.order import PATCH_ORDERS, patch_order
from gimp_fast.errors import GimpError


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


@pytest.mark.slow
def test_a_cohort_of_2000_slides_opens_in_little_memory(tmp_path):
    """The figure is a benchmark's; this holds that nothing reads the features."""
    from gimp_fast.data.store.reader import FeatureStore
    from gimp_fast.data.store.writer import PackedSlide, write_store

    torch.save(torch.zeros(64, 1024), tmp_path / "one.pt")
    slides = [PackedSlide(f"slide-{n}", tmp_path / "one.pt", 64, "") for n in range(2000)]
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


def test_hidden_files_are_no_slides(inputs, capsys):
    """macOS writes them beside the files of an archive."""
    for file in list(inputs.slides.iterdir())[:3]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    assert prepare.main(inputs.argv()) == 0
    assert "._" not in (inputs.out / "dropped.csv").read_text(encoding="utf-8")
    with_them = open_cohort(inputs.out).fingerprint
    for file in inputs.slides.glob("._*"):
        file.unlink()
    assert prepare.main(inputs.argv(out=inputs.folder / "without")) == 0
    assert open_cohort(inputs.folder / "without").fingerprint == with_them


def test_coordinates_that_lost_digits_are_listed(inputs, capsys):
    case = CASES[2]
    (inputs.slides / f"{case}-01Z.h5").unlink()
    places = torch.arange(7)[:, None] * torch.tensor([224, 448]) + 13_107
    content = {"features": torch.ones(7, 4).bfloat16(), "coords": places.bfloat16()}
    torch.save(content, inputs.slides / f"{case}-01Z.pt")
    assert prepare.main(inputs.argv()) == 0
    assert "left out  1 coordinates: bfloat16 coordinates" in capsys.readouterr().out
    bag = open_cohort(inputs.out).bag(case)
    assert bag.read().shape == (7, 4)
    assert bag.coords() == [None]
    assert prepare.main(inputs.argv("--order", "hilbert", out=inputs.folder / "b")) == 2
    assert "found bfloat16 coordinates, which are exact up to 256" in capsys.readouterr().err
