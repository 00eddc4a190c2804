"""Folders of maps with made-up numbers, in the shape that `gimp-fast heatmap` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZE = 256  # pixels of a patch


def blob(columns: int, rows: int, count: int, size: int = SIZE) -> np.ndarray:
    """(count, 2) corners of the patches of a grid that are nearest to its middle, row by row."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    places = np.stack([x.ravel(), y.ravel()], 1)
    distance = (((places + 0.5) / (columns, rows) - 0.5) ** 2).sum(1)
    kept = np.sort(np.argsort(distance, kind="stable")[:count])
    return places[kept] * size


def patch_table(slide_id: str, coords: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """``patches.csv`` of a patient with one slide."""
    series = pd.Series(weights)
    return pd.DataFrame(
        {
            "slide_id": slide_id, "row": range(len(coords)), "x": coords[:, 0], "y": coords[:, 1],
            "patch_size": SIZE, "unit": "px", "attention": weights,
            "times_even": weights / weights.mean(),
            "percentile": 100 * (series.rank() - 0.5) / len(series),
            "rank": series.rank(ascending=False, method="first").astype(int),
        }
    )  # fmt: skip


def hills(coords: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N,) weights with a few hills and some noise."""
    rng = np.random.default_rng(seed)
    place = (coords - coords.min(0)) / np.ptp(coords, 0).max()
    weights = 0.3 * rng.random(len(coords)) + 0.05
    for middle in rng.uniform(0.25, 0.75, (4, 2)):
        weights += np.exp(-((place - middle) ** 2).sum(1) / (2 * 0.06**2))
    return weights


def slide_map(folder: Path, slide_id: str, table: pd.DataFrame, **facts: Any) -> dict[str, Any]:
    """The record of a slide, whose table is written."""
    (folder / slide_id).mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / slide_id / "patches.csv", index=False, float_format="%.6g")
    record = {
        "folder": slide_id, "slide_id": slide_id, "num_patches": len(table),
        "share_of_patient": 1.0, "patch_size": float(SIZE), "unit": "px",
        "highest_times_even": float(table["times_even"].max()), "num_marked": 4,
        "geojson_origin": None, "files": {"patches": "patches.csv"}, "notes": [],
    }  # fmt: skip
    return record | facts


def case(case_id: str, slides: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """The record of a patient."""
    record = {
        "case_id": case_id, "label": "LUAD", "truth": "LUAD", "prediction": "LUAD",
        "probabilities": {"LUAD": 0.8, "LUSC": 0.2},
        "attention": {"highest_times_even": 3.2, "effective_share": 0.6, "flat": False},
        "slides": slides, "genes": None,
    }  # fmt: skip
    return record | facts


def genes(folder: Path, case_id: str) -> dict[str, Any]:
    """The record of a patient's genes, whose table is written."""
    place = folder / "genes" / case_id
    place.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "gene_id": ["G1", "G2", "G3", "G4"], "gene_name": ["TP53", "KRAS", "", "EGFR"],
            "group": ["DNA repair", "Signals", "Signals", ""], "fragment": [1, 2, 2, np.nan],
            "fragment_attention": [0.1, 0.4, 0.4, np.nan], "times_even": [0.4, 1.6, 1.6, np.nan],
            "expression_z": [0.5, -1.0, 2.0, 0.0], "gradient_input": [-0.9, 0.7, 0.3, 0.0],
            "rank": [1, 2, 3, 4],
        }
    )  # fmt: skip
    table.to_csv(place / "genes.csv", index=False)
    return {"folder": f"genes/{case_id}", "files": {"genes": "genes.csv"}}


def write_maps(folder: Path, cases: list[dict[str, Any]], **facts: Any) -> Path:
    """A folder of maps of these patients."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = {
        "model": {"method": "abmil", "source": "run", "trained_on": "synthetic", "synthetic": True,
                  "classes": ["LUAD", "LUSC"]},
        "cohort": "synthetic", "attribution": "attention of ABMIL",
        "colours": "percentiles", "settings": {"scale": "percentile"},
        "patients": cases, "failures": [],
    }  # fmt: skip
    (folder / "heatmaps.json").write_text(json.dumps(summary | facts), encoding="utf-8")
    return folder
