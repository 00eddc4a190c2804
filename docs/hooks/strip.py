"""Draws the strip of pictures at the head of README.md: an overlay, a report, a comparison.

gimp-fast extract --slides CMU-1-Small-Region.svs --patches-only --out features
gimp-fast train --data TCGA-NSCLC --preset small --split site_0 --out runs/site_0
python docs/hooks/strip.py --overlay features/overlays/CMU-1-Small-Region.png --run runs/site_0

The slide is of OpenSlide's test data, the cohort that of docs/results.md. The comparison needs
nothing but ``benchmarks/results/tcga-nsclc/table1.json``. Chromium photographs the report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from gimp_fast.pages import style

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "strip.png"
RESULTS = ROOT / "benchmarks" / "results" / "tcga-nsclc" / "table1.json"
# Rows of the table, from the best of each kind of input; the others are in docs/results.md.
ROWS = {
    "logistic_regression_rna": "Logistic regression, RNA",
    "gimp_rna": "GiMP, RNA",
    "gimp": "GiMP, slides and RNA",
    "pathomic_fusion": "Pathomic Fusion",
    "mcat": "MCAT",
    "porpoise": "PORPOISE",
    "clam_sb": "CLAM-SB, slides",
    "abmil": "ABMIL, slides",
    "gimp_slide_scratch": "GiMP, slides",
}
LOOKS = {"random": ("known hospitals", "#8c8c8c", "o"), "site": ("other hospitals", style.VAL, "D")}
WIDTH, HEIGHT, DPI = 11.0, 3.9, 150  # inches; GitHub shows it at half the size
RATIO = 0.74  # of width to height, of the two pictures
REPORT_SIZE = (760, round(760 / RATIO))  # pixels of the page


def accuracies(results: dict) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Row -> kind of split -> accuracy, and the ends of its interval."""
    rows = {row["key"]: row["groups"] for row in results["rows"]}
    return {
        key: {
            name: tuple(group["test"]["accuracy"][end] for end in ("value", "low", "high"))
            for name, group in rows[key].items()
        }
        for key in ROWS
    }


def draw_accuracies(axes: Axes, found: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    """A line for each row, the best at other hospitals first."""
    order = sorted(found, key=lambda key: found[key]["site"][0])
    for name, (label, colour, marker) in LOOKS.items():
        values = np.array([found[key][name] for key in order])
        places = np.arange(len(order)) + (0.14 if name == "random" else -0.14)
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(
            values[:, 0], places, xerr=reach, color=colour, marker=marker, ms=4, ls="",
            elinewidth=1.2, label=label,
        )  # fmt: skip
    axes.set_yticks(range(len(order)), [ROWS[key] for key in order])
    axes.set(xlim=(0.65, 1.0), xlabel="Accuracy (95 % CI), 701 patients, lung subtypes")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)


def photograph(page: Path) -> Image.Image:
    """The top of a page, as Chromium shows it."""
    width, height = REPORT_SIZE
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.png"
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--window-size={width},{height}", f"--screenshot={file}", page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        with Image.open(file) as image:
            return image.convert("RGB")


def cropped(image: Image.Image, ratio: float) -> Image.Image:
    """The upper middle of a picture, at a ratio of width to height."""
    width, height = image.size
    if width / height < ratio:
        return image.crop((0, 0, width, round(width / ratio)))
    left = (width - round(height * ratio)) // 2
    return image.crop((left, 0, width - left, height))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overlay", type=Path, required=True, help="that `extract` wrote")
    parser.add_argument("--run", type=Path, required=True, help="finished run of a real cohort")
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    with Image.open(args.overlay) as overlay:
        pictures = [overlay.convert("RGB"), photograph(args.run / "report.html")]
    with style.rc():
        figure = style.new_figure(WIDTH, HEIGHT)
        panels = figure.subplots(1, 3, width_ratios=[0.8, 0.8, 1.3])
        for axes, picture in zip(panels, pictures, strict=False):
            axes.imshow(cropped(picture, RATIO))
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(True)
            axes.spines[:].set_color(style.GRID)
        draw_accuracies(panels[2], accuracies(json.loads(RESULTS.read_text(encoding="utf-8"))))
        figure.savefig(args.out, dpi=DPI)
    # A palette is a third of the size, and shows the same at this size.
    Image.open(args.out).convert("RGB").quantize(256).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
