"""Heatmaps lie where the patches are: for every order of rows, several slides, every format."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from builders.checkpoints import facts_of

from gimp_fast import models
from gimp_fast.data import open_cohort
from gimp_fast.data.prepare.assemble import prepare
from gimp_fast.data.prepare.options import PrepareOptions
from gimp_fast.errors import GimpError
from gimp_fast.heatmaps.make import folder_name, make_heatmaps
from gimp_fast.heatmaps.options import HeatmapOptions
from gimp_fast.inference import TrainedModel, load
from gimp_fast.models.inputs import PatientInputs

C, SIDE, PATCH = 8, 12, 256
CASE, SLIDES = "CASE-0", ("CASE-0-a", "CASE-0-b")
REGION = [(8, 3), (9, 3), (8, 4), (9, 4)]  # x, y on the grid of slide b
ORDERS = [("file", None), ("row", None), ("column", None), ("hilbert", None), ("hilbert", "fp32")]


def bag(rng, grid, sign, region=()):
    """Noise, and in the region a direction of which the sign is the class.

    The rest of the bag shifts along it at random, so that no mean over patches tells the class.
    """
    features = rng.normal(size=(len(grid), C)).astype(np.float32)
    features[:, 1] += 3 * rng.normal()
    inside = np.array([tuple(place) in set(region) for place in grid], bool)
    features[inside, 0] += 6
    features[inside, 1] = 4 * sign
    return features


@pytest.fixture(scope="module")
def raw_slides(tmp_path_factory) -> Path:
    """Two slides of one patient in rows of no order; the second has the bright region."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(1)
    for slide in SLIDES:
        grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)
        grid = rng.permutation(grid)[: 100 if slide == SLIDES[0] else SIDE * SIDE]
        region = REGION if slide == SLIDES[1] else ()
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = bag(rng, grid, 1, region)
            file["coords"] = (grid * PATCH + 100).astype(np.int64)
    return folder


@pytest.fixture(scope="module")
def prepared(raw_slides, tmp_path_factory):
    """(order, store) -> the cohort of the two slides."""

    def make(order="file", pack=None):
        out = tmp_path_factory.mktemp("cohort") / "cohort"
        cases = out.parent / "cases.csv"
        rows = "".join(f"{CASE},{slide}\n" for slide in SLIDES)
        cases.write_text(f"case_id,slide_id\n{rows}", encoding="utf-8")
        prepare(
            PrepareOptions(
                labels=None,
                slides=(raw_slides,),
                cases=cases,
                out=out,
                order=order,
                pack=pack,
                allow_missing_modality=True,
            )
        )
        return open_cohort(out)

    return make


def untrained(method: str, modalities: str = "slide", genes: int = 0, **settings) -> TrainedModel:
    torch.manual_seed(0)
    fields = models.model_class(method).config_class.model_fields
    config = {"num_outputs": 2, "feature_dim": C, "num_genes": genes, "modalities": modalities}
    config |= {"dim": 16, "heads": 2, "num_landmarks": 16, **settings}
    model = models.build(method, {k: v for k, v in config.items() if k in fields})
    return as_trained(method, model, genes)


def as_trained(method: str, model, genes: int = 0) -> TrainedModel:
    facts = facts_of(method, model, "AB", [f"G{number}" for number in range(genes)])
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if genes:
        tensors |= {"scaler.mean": torch.zeros(genes), "scaler.std": torch.ones(genes)}
    return TrainedModel(tensors, facts, Path("untrained"))


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """GiMP that learnt on other bags that the sign within the region is the class."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = {
        "num_outputs": 2, "feature_dim": C, "num_genes": 0, "modalities": "slide", "dim": 16,
        "heads": 2, "num_landmarks": 16, "dropout": 0.0, "head_dropout": 0.0, "num_layers": 1,
        "conv_kernel": 3,
    }  # fmt: skip
    model = models.build("gimp", config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    grid = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2)
    bounds = torch.arange(17, dtype=torch.int32) * len(grid)
    for _ in range(250):
        labels = torch.arange(16) % 2
        corners = rng.integers(0, 8, (16, 2))
        bags = [
            bag(rng, grid, 2 * label - 1, [(x + i, y + j) for i in (0, 1) for j in (0, 1)])
            for label, (x, y) in zip(labels.tolist(), corners, strict=True)
        ]
        patches = torch.from_numpy(np.concatenate(bags))
        loss = model.loss(labels, PatientInputs.of(patches=patches, cu_seqlens=bounds)).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return as_trained("gimp", model)


def table(out: Path, slide: str) -> pd.DataFrame:
    return pd.read_csv(out / slide / "patches.csv")


@pytest.mark.parametrize(("order", "pack"), ORDERS, ids=lambda value: str(value))
def test_the_region_that_decides_the_class_is_found(prepared, trained, tmp_path, order, pack):
    summary = make_heatmaps(
        trained, prepared(order, pack), [CASE], HeatmapOptions(out=tmp_path, top=4)
    )
    assert summary["failures"] == []
    assert summary["patients"][0]["prediction"] == "B"
    found = table(tmp_path, SLIDES[1])
    places = ((found[["x", "y"]].to_numpy() - 100) // PATCH).tolist()
    inside = np.array([tuple(place) in REGION for place in places])
    assert inside.sum() == len(REGION)
    assert inside[found["rank"].argmin()]
    assert found["percentile"][inside].min() > 95
    assert found["rank"][inside].median() <= 4
    # The other slide has nothing to see, and its map says so: percentiles are the patient's.
    assert table(tmp_path, SLIDES[0])["percentile"].max() < found["percentile"].max()
    polygons = json.loads((tmp_path / SLIDES[1] / "patches.geojson").read_text())["features"]
    corners = [tuple(f["geometry"]["coordinates"][0][0]) for f in polygons]
    top = found.sort_values("rank").head(4)
    assert corners == list(zip(top["x"], top["y"], strict=True))


@pytest.mark.parametrize(("order", "pack"), ORDERS, ids=lambda value: str(value))
def test_rows_of_the_table_are_rows_of_the_file(prepared, raw_slides, tmp_path, order, pack):
    """Attention pooling of a patch depends on nothing but its features, up to one factor."""
    model = untrained("abmil")
    make_heatmaps(model, prepared(order, pack), [CASE], HeatmapOptions(out=tmp_path))
    scores, found = [], []
    for slide in SLIDES:
        rows = table(tmp_path, slide)
        with h5py.File(raw_slides / f"{slide}.h5") as file:
            np.testing.assert_array_equal(rows["row"], np.arange(len(file["coords"])))
            np.testing.assert_array_equal(rows[["x", "y"]], file["coords"][:])
            features = torch.from_numpy(file["features"][:])
        with torch.no_grad():
            scores.append(model.model.pool.scores(model.model.embed(features))[:, 0])
        found.append(rows["attention"].to_numpy())
    expected = torch.cat(scores).softmax(0)
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-4)


def test_ranks_percentiles_and_even_shares_fit_each_other(prepared, tmp_path):
    make_heatmaps(untrained("abmil"), prepared(), [CASE], HeatmapOptions(out=tmp_path))
    tables = [table(tmp_path, slide) for slide in SLIDES]
    both = pd.concat(tables)
    assert both["times_even"].mean() == pytest.approx(1, abs=1e-4)
    order = both.sort_values("attention")
    assert order["percentile"].is_monotonic_increasing
    assert both["percentile"].between(0, 100, inclusive="neither").all()
    for rows in tables:
        assert sorted(rows["rank"]) == list(range(1, len(rows) + 1))
        assert rows.sort_values("rank")["attention"].is_monotonic_decreasing
    records = json.loads((tmp_path / "heatmaps.json").read_text())["patients"][0]["slides"]
    assert sum(record["share_of_patient"] for record in records) == pytest.approx(1, abs=1e-5)


def test_flat_attention_is_said_and_nothing_is_marked(prepared, tmp_path):
    """The untrained model reads all patches alike."""
    said = []
    options = HeatmapOptions(out=tmp_path)
    summary = make_heatmaps(untrained("abmil"), prepared(), [CASE], options, log=said.append)
    attention = summary["patients"][0]["attention"]
    assert attention["flat"]
    assert attention["highest_times_even"] < 1.5
    assert attention["effective_share"] > 0.95
    assert "attention is effectively flat" in said[0]
    for slide in summary["patients"][0]["slides"]:
        assert slide["num_marked"] == 0
        assert any(note.startswith("Effectively flat") for note in slide["notes"])
        assert pd.read_csv(tmp_path / slide["folder"] / "top.csv")["marked"].tolist() == [0] * 16
        polygons = json.loads((tmp_path / slide["folder"] / "patches.geojson").read_text())
        assert polygons["features"] == []


def test_only_patches_that_stand_out_are_marked(prepared, trained, tmp_path):
    summary = make_heatmaps(trained, prepared(), [CASE], HeatmapOptions(out=tmp_path, top=30))
    assert not summary["patients"][0]["attention"]["flat"]
    for slide in summary["patients"][0]["slides"]:
        top = pd.read_csv(tmp_path / slide["folder"] / "top.csv")
        assert len(top) == 30
        assert (top["marked"] == (top["times_even"] >= 1.5)).all()
        polygons = json.loads((tmp_path / slide["folder"] / "patches.geojson").read_text())
        assert len(polygons["features"]) == top["marked"].sum() == slide["num_marked"]
    assert 4 <= sum(s["num_marked"] for s in summary["patients"][0]["slides"]) < 60


def test_symbols_of_a_table_stand_beside_ids(run_of, cohort, tmp_path):
    first = cohort.gene_ids[0]
    (tmp_path / "symbols.csv").write_text(f"gene_id,symbol\n{first},MYC\n", encoding="utf-8")
    case = cohort.case_ids[0]
    options = HeatmapOptions(out=tmp_path / "a", gene_symbols=tmp_path / "symbols.csv", top=999)
    summary = make_heatmaps(load(run_of()), cohort, [case], options)
    genes = pd.read_csv(tmp_path / "a" / "genes" / case / "genes.csv").set_index("gene_id")
    assert set(genes.loc[[first], "gene_name"]) == {"MYC"}
    shown = summary["patients"][0]["genes"]["top_genes"]
    assert all(gene.endswith(")") or gene in cohort.gene_ids for gene in shown)


def test_a_summary_that_names_files_elsewhere_is_refused_until_written_anew(prepared, tmp_path):
    cohort, model = prepared(), untrained("abmil")
    make_heatmaps(model, cohort, [CASE], HeatmapOptions(out=tmp_path))
    file = tmp_path / "heatmaps.json"
    file.write_text(file.read_text().replace(f'"folder": "{SLIDES[0]}"', '"folder": "../x"'))
    with pytest.raises(GimpError, match="outside-file"):
        make_heatmaps(model, cohort, [CASE], HeatmapOptions(out=tmp_path))
    make_heatmaps(model, cohort, [CASE], HeatmapOptions(out=tmp_path, overwrite=True))
    assert make_heatmaps(model, cohort, [CASE], HeatmapOptions(out=tmp_path))["failures"] == []


def test_slides_without_coordinates_or_in_micrometres_say_so(run_of, cohort, tmp_path):
    trained = load(run_of())
    kind_of = {c: cohort.bag(c).slides[0].path.suffix for c in cohort.case_ids}
    cases = [c for c in cohort.case_ids if kind_of[c] == ".h5"][:5]
    cases.append(next(c for c in cohort.case_ids if kind_of[c] == ".pt"))
    summary = make_heatmaps(trained, cohort, cases, HeatmapOptions(out=tmp_path, top=3))
    assert summary["failures"] == []
    slides = [slide for patient in summary["patients"] for slide in patient["slides"]]
    paths = {s.slide_id: s.path for c in cases for s in cohort.bag(c).slides}
    kinds = {"no-coords": 0, "um": 0, "px": 0}
    for slide in slides:
        files, notes = slide["files"], " ".join(slide["notes"])
        assert (tmp_path / slide["folder"] / files["patches"]).is_file()
        if paths[slide["slide_id"]].suffix == ".pt":
            kinds["no-coords"] += 1
            assert "overlay" not in files
            assert "no coordinates" in notes
        elif slide["unit"] == "um":
            kinds["um"] += 1
            assert slide["patch_size"] == 128
            assert "geojson" not in files
            assert "micrometres" in notes
        else:
            kinds["px"] += 1
            assert slide["patch_size"] == 256
            assert {"overlay", "thumbnail", "geojson"} <= set(files)
    assert min(kinds.values()) > 0


def test_genes_are_named_and_ranked(run_of, cohort, tmp_path):
    trained, case = load(run_of()), cohort.case_ids[0]
    make_heatmaps(trained, cohort, [case], HeatmapOptions(out=tmp_path))
    genes = pd.read_csv(tmp_path / "genes" / case / "genes.csv")
    assert set(genes["gene_id"]) == set(cohort.gene_ids)
    assert genes["rank"].tolist() == sorted(genes["rank"])
    assert genes["gradient_input"].abs().is_monotonic_decreasing
    fragments = genes.drop_duplicates("fragment")
    assert 0 < fragments["fragment_attention"].sum() <= 1
    assert fragments["times_even"].mean() == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "genes" / case / "genes.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_of_genes_alone_has_genes_alone(run_of, cohort, tmp_path):
    trained, case = load(run_of("gimp", "rna")), cohort.case_ids[1]
    summary = make_heatmaps(trained, cohort, [case], HeatmapOptions(out=tmp_path))
    assert summary["failures"] == []
    record = summary["patients"][0]
    assert record["slides"] == []
    assert (tmp_path / record["genes"]["folder"] / "genes.csv").is_file()


def stamps(out: Path) -> dict[str, int]:
    """When each file was written, without the summary, which always is."""
    files = [f for f in out.rglob("*") if f.is_file() and f.name != "heatmaps.json"]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_finished_slides_are_skipped_unless_asked_or_otherwise_made(prepared, tmp_path):
    cohort, model, said = prepared(), untrained("abmil"), []
    options = HeatmapOptions(out=tmp_path)
    first = make_heatmaps(model, cohort, [CASE], options)
    before = stamps(tmp_path)
    again = make_heatmaps(model, cohort, [CASE], options, log=said.append)
    assert stamps(tmp_path) == before
    assert again == first
    assert "finished before" in said[0]

    (tmp_path / SLIDES[0] / "slide.json").write_text('{"sett')
    make_heatmaps(model, cohort, [CASE], options)
    changed = {f for f, stamp in stamps(tmp_path).items() if before.get(f) != stamp}
    assert changed
    assert all(f"/{SLIDES[0]}/" in f for f in changed)
    for other in (HeatmapOptions(out=tmp_path, overwrite=True), HeatmapOptions(tmp_path, top=2)):
        before = stamps(tmp_path)
        make_heatmaps(model, cohort, [CASE], other)
        assert all(before.get(f) != stamp for f, stamp in stamps(tmp_path).items())
    assert len(pd.read_csv(tmp_path / SLIDES[0] / "top.csv")) == 2


def test_slides_of_two_calls_stand_in_one_summary(prepared, tmp_path):
    cohort, model, options = prepared(), untrained("abmil"), HeatmapOptions(out=tmp_path)
    for slide in SLIDES:
        summary = make_heatmaps(model, cohort, [CASE], options, slide_ids=[slide])
    assert [s["slide_id"] for s in summary["patients"][0]["slides"]] == list(SLIDES)
    whole = make_heatmaps(model, cohort, [CASE], HeatmapOptions(out=tmp_path / "whole"))
    pd.testing.assert_frame_equal(table(tmp_path, SLIDES[1]), table(tmp_path / "whole", SLIDES[1]))
    assert whole["failures"] == []


def test_a_patient_that_fails_leaves_the_others(run_of, cohort, tmp_path, monkeypatch):
    import gimp_fast.heatmaps.make as module

    broken, fine = cohort.case_ids[:2]
    original = module.write_slide

    def write(maps, *rest):
        if maps.case_id == broken:
            raise OSError("No space left on device")
        return original(maps, *rest)

    monkeypatch.setattr(module, "write_slide", write)
    options = HeatmapOptions(out=tmp_path)
    summary = make_heatmaps(load(run_of()), cohort, [broken, fine], options)
    assert summary["failures"] == [{"case_id": broken, "error": "No space left on device"}]
    assert [patient["case_id"] for patient in summary["patients"]] == [fine]


def test_geojson_of_all_is_limited_and_says_so(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("gimp_fast.heatmaps.patch_tables.GEOJSON_LIMIT", 30)
    options = HeatmapOptions(out=tmp_path, geojson="all")
    summary = make_heatmaps(untrained("abmil"), prepared(), [CASE], options)
    collection = json.loads((tmp_path / SLIDES[0] / "patches.geojson").read_text())
    ranks = [f["properties"]["measurements"]["Rank"] for f in collection["features"]]
    assert ranks == list(range(1, 31))
    assert {f["properties"]["objectType"] for f in collection["features"]} == {"detection"}
    assert "30 highest of 100" in " ".join(summary["patients"][0]["slides"][0]["notes"])


def test_other_features_than_the_models_are_refused(prepared, tmp_path):
    model = untrained("abmil", feature_dim=5)
    with pytest.raises(GimpError, match=r"found features of 8 channels .*; expected 5 "):
        make_heatmaps(model, prepared(), [CASE], HeatmapOptions(out=tmp_path))


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "Größe 1", "TCGA-05.uuid"])
def test_folder_names_are_safe_and_distinct(name):
    folder = folder_name(name)
    assert "/" not in folder
    assert folder.strip(". ")
    assert folder_name("TCGA-05.uuid") == "TCGA-05.uuid"
