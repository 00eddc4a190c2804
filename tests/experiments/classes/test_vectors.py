"""The linear probe of vectors before and after pre-training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from gimp_fast.experiments.classes.vectors import linear_probe
from gimp_fast.runs.records import Embeddings

DIM = 4


def folder(tmp_path, **stages):
    """A run of 40 patients with these vectors: 20 of training, 10 of validation, 10 of test."""
    cases = np.array([f"P{n:02d}" for n in range(40)])
    parts = np.array([("test", "train", "val", "train")[n % 4] for n in range(40)])
    label = np.array(["AB"[n // 4 % 2] for n in range(40)])
    arrays = Embeddings(cases, parts, label, stages).arrays()
    tmp_path.mkdir(exist_ok=True)
    np.savez(tmp_path / "embeddings.npz", **arrays)
    (tmp_path / "config.yaml").write_text("method: gimp\n", encoding="utf-8")
    return tmp_path


def vectors(informative, genes=0.0):
    """(40, 8), CLS_img and CLS_ge; the class is in the first channel, or in the genes."""
    rng, label = np.random.default_rng(0), np.arange(40) // 4 % 2
    found = rng.normal(size=(40, 2 * DIM))
    found[:, 0] += 10 * informative * label
    found[:, DIM] += 10 * genes * label
    return found


RUN = SimpleNamespace(settings=SimpleNamespace(model=SimpleNamespace(dim=DIM)))


def test_it_reads_the_slide_encoder_alone(tmp_path):
    drawn, trained = vectors(0.0, genes=1.0), vectors(1.0)
    probe = linear_probe([(RUN, folder(tmp_path / "run", start=drawn, pretrain=trained))])
    assert probe.runs == 1
    for fitted in (probe.train, probe.val):
        assert (fitted.drawn.n, fitted.pretrained.n) == (10, 10)
        assert fitted.pretrained.k == 10
        assert fitted.drawn.k < 9  # the genes, which know the class, are not read


def test_classes_learned_by_heart_do_not_deceive_both_probes(tmp_path):
    """What says the class of training patients says the opposite of all others."""
    heart = vectors(0.0)
    label, training = np.arange(40) // 4 % 2, np.arange(40) % 2 == 1
    heart[training, 0] += 10 * label[training]
    heart[~training, 0] -= 10 * label[~training]
    probe = linear_probe([(RUN, folder(tmp_path / "run", start=vectors(0.0), pretrain=heart))])
    assert probe.train.pretrained.k < probe.val.pretrained.k == 10


def test_runs_without_pretraining_have_none(tmp_path):
    plain = folder(tmp_path / "plain", finetune=vectors(1.0))
    assert linear_probe([(RUN, plain)]) is None
    both = [(RUN, plain), (RUN, folder(tmp_path / "b", start=vectors(0), pretrain=vectors(1)))]
    assert linear_probe(both).runs == 1
    assert linear_probe([]) is None
