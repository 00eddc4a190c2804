"""Exports on the hub: the same bits after push and pull, a card that says it all, clear errors.

The client is the real one; the hub is a server of this machine (``builders/hub.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders.hub import TOKEN, running_hub
from builders.runs import TINY, train_run

import gimp_fast
from gimp_fast import heatmap, predict
from gimp_fast.errors import GimpError
from gimp_fast.files.hub import HubAddress, hub_address
from gimp_fast.inference import export_ensemble, export_model, push_export
from gimp_fast.inference.predictions import predict_cohort
from gimp_fast.runs.gene_list import read_gene_reference

client = pytest.importorskip("huggingface_hub", reason="gimp-fast[hub] is not installed")
constants = pytest.importorskip("huggingface_hub.constants")

NAME, LICENCE = "lab/model", "cc-by-nc-4.0"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The server, with a client that knows it, has a token and an empty cache, and uses no Xet."""
    with running_hub() as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
    client.close_session()


@pytest.fixture(scope="module")
def run(cohort_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "run"
    train_run(folder, cohort_folder, *TINY)
    return folder


@pytest.fixture
def exported(run, tmp_path):
    export_model(gimp_fast.load(run), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("mode", ["regular", "lfs"])
def test_what_was_pushed_predicts_the_same_bits(hub, exported, cohort, mode):
    hub.mode = mode
    url = push_export(exported, NAME, LICENCE)
    assert url == f"{hub.url}/{NAME}/commit/{hub.commit(NAME)}"
    assert len(hub.large) == (mode == "lfs")
    fetched = gimp_fast.load(f"hf://{NAME}")
    for name in ("model.safetensors", "config.json", "genes.csv", "checksums.txt"):
        assert (Path(fetched.source) / name).read_bytes() == (exported / name).read_bytes()
    ours, theirs = (predict_cohort([m], cohort).table for m in (gimp_fast.load(exported), fetched))
    assert ours.equals(theirs)


def test_a_revision_is_fetched_as_it_was(hub, exported):
    push_export(exported, NAME, LICENCE)
    revision = hub.commit(NAME)
    assert gimp_fast.load(f"hf://{NAME}@{revision}").source.name == revision
    with pytest.raises(GimpError, match=r"hf://lab/model@v9: found no revision 'v9'; expected"):
        gimp_fast.load(f"hf://{NAME}@v9")


def test_an_ensemble_travels_and_a_smaller_one_replaces_it(hub, run, tmp_path, cohort):
    models = [gimp_fast.load(run)] * 3
    export_ensemble(models, tmp_path / "three")
    push_export(tmp_path / "three", NAME, LICENCE)
    hub.repositories[NAME]["notes.txt"] = b"by hand"
    export_ensemble(models[:2], tmp_path / "two")
    push_export(tmp_path / "two", NAME, LICENCE)
    folders = {name.split("/")[0] for name in hub.repositories[NAME]}
    assert folders == {"README.md", "ensemble.json", "member_0", "member_1", "notes.txt"}
    assert len(gimp_fast.load(f"hf://{NAME}").members) == 2
    assert read_gene_reference(f"hf://{NAME}").gene_ids == cohort.gene_ids
    assert "**not for\nclinical use**" in hub.repositories[NAME]["README.md"].decode()


def test_the_card_says_what_the_export_knows_and_names_nobody(hub, exported, cohort):
    push_export(exported, NAME, LICENCE)
    card = hub.repositories[NAME]["README.md"].decode()
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": LICENCE,
        "library_name": "gimp_fast",
        "tags": ["computational-pathology", "whole-slide-images", "rna-seq", "gimp"],
    }
    assert f"share the weights: `{LICENCE}`, says who published them." in text
    for words in (
        "**not for clinical use**", "**SYNTHETIC.**", "| patch encoder |", "| genes | 60,",
        "24 train, 8 val, 8 test", "- test: accuracy ", "95 % CI", f'load("hf://{NAME}")',
    ):  # fmt: skip
        assert words in text
    assert [case for case in cohort.case_ids if case in card] == []
    assert "THIS_FOLDER" not in card


def test_a_card_with_a_head_of_its_own_keeps_it(hub, exported):
    card = exported / "README.md"
    card.write_text("---\nlicense: mit\n---\n# Ours\n", encoding="utf-8")
    with pytest.raises(GimpError, match="found a head of its own; expected `license: cc-by-nc"):
        push_export(exported, NAME, LICENCE)
    push_export(exported, NAME, "mit")
    assert hub.repositories[NAME]["README.md"] == card.read_bytes()


def test_a_new_repository_is_private_unless_asked_otherwise(hub, exported, monkeypatch):
    push_export(exported, NAME, LICENCE)
    push_export(exported, "lab/open", LICENCE, public=True)
    assert hub.private == {NAME}
    monkeypatch.delenv("HF_TOKEN")
    assert gimp_fast.load("hf://lab/open").method == "gimp"
    with pytest.raises(GimpError, match=r"no such repository; expected .* `hf auth login`"):
        gimp_fast.load(f"hf://{NAME}")
    with pytest.raises(GimpError, match=r"access refused|refused, or cannot"):
        push_export(exported, "lab/other", LICENCE)


def test_damage_is_neither_pushed_nor_loaded(hub, exported):
    push_export(exported, NAME, LICENCE)
    there = hub.repositories[NAME]
    damaged = bytearray(there["genes.csv"])
    damaged[len(damaged) // 2] ^= 1
    there["genes.csv"] = bytes(damaged)
    with pytest.raises(GimpError, match=r"genes\.csv: found SHA-256 .* damaged or changed"):
        gimp_fast.load(f"hf://{NAME}")
    (exported / "genes.csv").write_bytes(there["genes.csv"])
    hub.requests.clear()
    with pytest.raises(GimpError, match=r"genes\.csv: found SHA-256 .* damaged or changed"):
        push_export(exported, NAME, LICENCE)
    assert hub.requests == []


def test_without_a_network_the_copy_in_the_cache_serves(hub, exported, monkeypatch):
    push_export(exported, NAME, LICENCE)
    fetched = gimp_fast.load(f"hf://{NAME}")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    client.close_session()
    assert gimp_fast.load(f"hf://{NAME}").source == fetched.source
    with pytest.raises(GimpError, match="no copy in the cache of this machine, and HF_HUB_OFFLINE"):
        gimp_fast.load("hf://lab/never-seen")
    with pytest.raises(GimpError, match="HF_HUB_OFFLINE"):
        push_export(exported, NAME, LICENCE)
    assert hub.requests == []


def test_a_hub_that_is_not_there_is_one_error(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(GimpError, match=r"hf://lab/model: found no copy in the cache, and no way"):
        gimp_fast.load(f"hf://{NAME}")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"licence": "My own!"}, "licence: found 'My own!'; expected the hub's short name"),
        ({"repository": "model"}, "expected hf://ORGANISATION/NAME"),
        ({"repository": "lab/model@v1"}, "expected ORGANISATION/NAME, without a revision"),
        ({"folder": "hf://lab/model"}, "expected an export on this machine"),
        ({"folder": "RUN"}, r"found no model\.safetensors; expected an export"),
    ],
    ids=["licence", "name", "revision", "address", "run"],
)
def test_what_cannot_be_pushed_is_said(hub, exported, run, given, error):
    asked = {"folder": exported, "repository": NAME, "licence": LICENCE} | given
    asked["folder"] = run if asked["folder"] == "RUN" else asked["folder"]
    with pytest.raises(GimpError, match=error):
        push_export(**asked)
    assert hub.repositories == {}


def test_addresses():
    assert hub_address("hf://lab/a.b-c_1") == HubAddress("lab/a.b-c_1")
    assert hub_address(Path("hf://lab/model@refs/pr/1")) == HubAddress("lab/model", "refs/pr/1")
    assert str(HubAddress("lab/model", "v1")) == "hf://lab/model@v1"
    assert hub_address("runs/hf") is None
    for wrong in ("hf://lab", "hf://a/b/c", "hf://lab/mo del", "hf://"):
        with pytest.raises(GimpError, match="expected hf://ORGANISATION/NAME"):
            hub_address(wrong)


def test_the_command_pushes_and_predicts_from_the_hub(
    hub, exported, cohort_folder, tmp_path, capfd
):
    argv = ["--run", str(exported), "--push", NAME, "--licence", LICENCE]
    assert predict.main(argv) == 0
    assert f"{exported} pushed: {hub.url}/{NAME}/commit/" in capfd.readouterr().out
    argv = ["--run", f"hf://{NAME}", "--data", str(cohort_folder), "--part", "test"]
    assert predict.main([*argv, "--out", str(tmp_path / "out"), "--bootstrap", "20"]) == 0
    assert (tmp_path / "out" / "predictions.csv").is_file()
    assert TOKEN not in "".join(capfd.readouterr())


def test_heatmaps_of_a_model_of_the_hub_need_a_folder(hub, exported, tmp_path, monkeypatch, capsys):
    push_export(exported, NAME, LICENCE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        heatmap.main(["--run", f"hf://{NAME}", "--data", "cohort"])
    assert "--out is required for an exported model" in capsys.readouterr().err
    assert not (tmp_path / "hf:").exists()


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--push", NAME], "--push and --licence belong together"),
        (["--licence", "mit", "--export", "x"], "--push and --licence belong together"),
        (["--public", "--export", "x"], "--public is of --push"),
        (["--run", "b", "--push", NAME, "--licence", "mit"], "several --run need --export"),
    ],
    ids=["no-licence", "no-push", "public", "several"],
)
def test_options_that_do_not_fit_are_refused(argv, error, capsys):
    assert predict.main(["--run", "a", *argv]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.slow
def test_another_process_knows_the_hub_by_its_environment(hub, exported, tmp_path):
    push_export(exported, NAME, LICENCE)
    code = f"import gimp_fast; print(gimp_fast.load('hf://{NAME}').method)"
    ask = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}

    def run(**more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | ask | more,
            capture_output=True,
            text=True,
            check=False,
        )

    offline = run(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids to fetch one" in offline.stderr
    fetched = run()
    assert fetched.stdout.split() == ["gimp"], fetched.stderr
    assert TOKEN not in fetched.stdout + fetched.stderr + offline.stderr
