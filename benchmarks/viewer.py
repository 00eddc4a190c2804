"""How soon and how smoothly a browser shows the map of a synthetic slide of 150,000 patches.

python benchmarks/viewer.py

A headless Chromium without a GPU opens the page of `gimp-fast view`, and the page in one file, anew
for each repeat: milliseconds until the overlay is drawn, and between frames while the threshold is
dragged and while the slide is moved. Writes results/<device>-viewer.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from _common import add_shared_options, write_results

from gimp_fast.viewer import ViewServer, open_maps, write_pages

# The synthetic maps and the browser are those of the tests.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from builders import maps
from builders.browser import Browser, executable, open_browser

FRAMES = """(async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const { app } = gimpView, { viewport } = app.stages[0].viewer, threshold = document.getElementById("threshold");
  await frame();
  const begin = performance.now();
  for (let step = 1; step <= %d; step++) {
    %s;
    await frame();
  }
  return (performance.now() - begin) / %d;
})()"""  # noqa: E501
THRESHOLD = "threshold.value = step; app.apply()"
MOVE = "viewport.panBy(new OpenSeadragon.Point(0.001, 0), true)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="+", default=[15_000, 150_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--smoke", action="store_true", help="sizes at which nothing is measured")
    add_shared_options(parser)
    args = parser.parse_args()
    if executable() is None:
        print("not measured: no Chromium is installed")
        return 0
    if args.smoke:
        args.patches, args.repeats, args.frames = [200], 1, 3
    rows = []
    for patches in args.patches:
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(Path(folder), patches, args)
        for row in rows[-2:]:
            print(_line(row), flush=True)
    if not args.no_write:
        print(f"wrote {write_results('viewer', args.device, {'results': rows}, args.results)}")
    return 0


def _rows(folder: Path, patches: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of the served page, and of the page in one file."""
    side = int((1.4 * patches) ** 0.5) + 1
    coords = maps.blob(side, side, patches)
    table = maps.patch_table("synthetic", coords, maps.hills(coords))
    record = maps.slide_map(folder / "maps", "synthetic", table)
    maps.write_maps(folder / "maps", [maps.case("synthetic", [record])])
    (page,) = write_pages(folder / "maps")
    rows = []
    for name in ("served", "one file"):
        with open_browser(folder / name) as browser:
            measured = []
            for _ in range(args.repeats):
                # A new server, which has not read the table yet.
                with ViewServer([open_maps(folder / "maps")]) as server:
                    threading.Thread(target=server.serve_forever, daemon=True).start()
                    url = server.url if name == "served" else page.as_uri()
                    measured.append(_measured(browser, url, args.frames))
                    server.shutdown()
        medians = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
        rows.append({"patches": patches, "page": name, "repeats": len(measured), **medians})
    rows[1]["mib"] = page.stat().st_size / 2**20
    return rows


def _measured(browser: Browser, url: str, frames: int) -> dict[str, float]:
    browser.open(url, 1440, 900)
    browser.wait_for("document.documentElement.dataset.shown")
    return {
        "overlay_ms": browser.run("gimpView.milliseconds"),
        "threshold_ms": browser.run(FRAMES % (frames, THRESHOLD, frames)),
        "move_ms": browser.run(FRAMES % (frames, MOVE, frames)),
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['patches']:>7} patches, {row['page']:<8}: overlay in {row['overlay_ms']:6.0f} ms, "
        f"frames of {row['threshold_ms']:5.1f} ms (threshold), {row['move_ms']:5.1f} ms (moving)"
    )


if __name__ == "__main__":
    raise SystemExit(main())
