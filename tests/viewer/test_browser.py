"""The page in a real browser: what is drawn is what the table says, by mouse, keys and touch."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from builders import maps
from builders.browser import NAMES, Browser, executable, open_browser
from PIL import Image

from gimp_fast.viewer import write_pages
from gimp_fast.wsi.images import SlideImages

pytestmark = pytest.mark.skipif(
    executable() is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed"
)
SHOWN = "document.documentElement.dataset.shown"
# Where level 0 begins on the page, and pixels of the page per pixel of level 0.
PLACE = """(() => {
  const stage = gimpView.app.stages[%d], box = stage.field.getBoundingClientRect();
  const { left, top, scale } = stage.toScreen();
  return [box.left + left, box.top + top, scale];
})()"""
# Nothing but the colours: opaque, no marks, no buttons, no animation under way.
PLAIN = """(() => {
  const style = document.createElement("style");
  style.textContent = ".tools, .scalebar, .navigator { opacity: 0 !important }";
  document.head.append(style);
  document.getElementById("fade").checked = false;
  document.getElementById("opacity").value = 100;
  gimpView.app.apply();
})()"""
CHANGE = """(() => {
  const field = document.getElementById(%s);
  field.value = %s;
  field.dispatchEvent(new Event("input"));
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Browser:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_errors(browser):
    browser.errors.clear()
    browser.requests.clear()
    yield
    assert browser.errors == []


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Of 300 patches, drawn one by one, and of 9,000, drawn as a picture."""
    few, many = maps.blob(25, 20, 300), maps.blob(120, 100, 9_000)
    return {
        "few": maps.patch_table("few", few + np.array([512, 256]), maps.hills(few)),
        "many": maps.patch_table("many", many, maps.hills(many, seed=1)),
    }


@pytest.fixture(scope="module")
def folder(tables, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "maps"
    records = {name: maps.slide_map(folder, name, table) for name, table in tables.items()}
    cases = [
        maps.case("first", [records["few"]], genes=maps.genes(folder, "first")),
        maps.case("second", [records["many"]], prediction="LUSC"),
    ]
    return maps.write_maps(folder, cases)


def place(browser: Browser, stage: int = 0) -> tuple[float, float, float]:
    """``PLACE``, once the view stands still."""
    before = None
    while before != (now := browser.run(PLACE % stage)):
        before = now
        browser.run("new Promise((done) => setTimeout(done, 300))")
    return tuple(now)


def pixels(browser: Browser) -> np.ndarray:
    """(h, w, 3) uint8 of the page."""
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(browser.picture())).convert("RGB"))


def colours_at(browser: Browser, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Colours in the middle of the patches that are in sight, (n, 3) int, and their rows."""
    left, top, scale = place(browser)
    half = table["patch_size"].to_numpy() / 2
    x = np.floor(left + (table["x"].to_numpy() + half) * scale).astype(int)
    y = np.floor(top + (table["y"].to_numpy() + half) * scale).astype(int)
    field = browser.run(
        "(({left, top, right, bottom}) => [left, top, right, bottom])"
        "(gimpView.app.stages[0].field.getBoundingClientRect())"
    )
    inside = (x > field[0]) & (x < field[2] - 1) & (y > field[1]) & (y < field[3] - 1)
    picture = pixels(browser).astype(int)
    return picture[y[inside], x[inside]], np.flatnonzero(inside)


def expected_colours(values: pd.Series, name: str = "viridis") -> np.ndarray:
    """(N, 3) of places on the bar, 0 … 100."""
    steps = np.round(values.to_numpy() * 2.55).astype(int)
    return np.round(matplotlib.colormaps[name](steps)[:, :3] * 255).astype(int)


def show(browser: Browser, url: str, name: str = "first 0", **window) -> None:
    browser.open(url, **window)
    browser.wait_for(f"{SHOWN} === {json.dumps(name)}")


def press(browser: Browser, selector: str, *, touch: bool = False) -> None:
    x, y = browser.run(
        f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
        f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
    )
    (browser.tap if touch else browser.click)(x, y)


def test_every_patch_has_the_colour_of_its_score(browser, serve, folder, tables):
    show(browser, serve(folder).url)
    browser.run(PLAIN)
    found, rows = colours_at(browser, tables["few"])
    assert len(rows) == 300
    assert np.abs(found - expected_colours(tables["few"]["percentile"])).max() <= 2
    browser.run(CHANGE % ('"colours"', '"magma"'))
    found, _ = colours_at(browser, tables["few"])
    assert np.abs(found - expected_colours(tables["few"]["percentile"], "magma")).max() <= 2


def test_many_patches_have_the_colours_of_their_scores(browser, serve, folder, tables):
    """Drawn as a picture, which may be off by a part of a patch."""
    show(browser, serve(folder).url)
    browser.key("n")
    browser.wait_for(f"{SHOWN} === 'second 1'")
    browser.run(PLAIN)
    found, rows = colours_at(browser, tables["many"])
    assert len(rows) == 9_000
    off = np.abs(found - expected_colours(tables["many"]["percentile"])).max(1)
    assert (off > 12).mean() < 0.005
    press(browser, ".tools button")  # closer, where patches are drawn one by one
    found, rows = colours_at(browser, tables["many"])
    assert 500 < len(rows) < 8_000
    expected = expected_colours(tables["many"]["percentile"])[rows]
    assert np.abs(found - expected).max(1).mean() <= 2


def test_the_threshold_hides_and_the_opacity_fades(browser, serve, folder, tables):
    show(browser, serve(folder).url)
    browser.run(PLAIN)
    table = tables["few"]
    browser.run(CHANGE % ('"threshold"', 60))
    found, _ = colours_at(browser, table)
    is_high = (table["percentile"] >= 60).to_numpy()
    assert np.abs(found - expected_colours(table["percentile"]))[is_high].max() <= 2
    grey = found[~is_high]
    assert (grey == grey[0]).all()
    shown = browser.run("document.getElementById('counted').textContent")
    assert shown == f"{is_high.sum()} of 300 patches shown"
    browser.run(CHANGE % ('"opacity"', 50))
    half, _ = colours_at(browser, table)
    mixed = (expected_colours(table["percentile"]) + grey[0]) / 2
    assert np.abs(half - mixed)[is_high].max() <= 3
    browser.key("o")
    gone, _ = colours_at(browser, table)
    assert (gone == grey[0]).all()


def test_a_click_tells_the_patch_below_it(browser, serve, folder, tables):
    show(browser, serve(folder).url)
    left, top, scale = place(browser)
    patch = tables["few"].iloc[137]
    browser.click(left + (patch["x"] + 128) * scale, top + (patch["y"] + 128) * scale)
    told = browser.wait_for("document.getElementById('patch-facts').textContent")
    assert f"{patch['rank']} of 300" in told
    assert f"{patch['x']}, {patch['y']} px" in told
    assert told.endswith("137")
    box = browser.run(
        "(({left, top}) => [left, top])(document.querySelector('.marker').getBoundingClientRect())"
    )
    assert box == pytest.approx([left + patch["x"] * scale, top + patch["y"] * scale], abs=3)


def test_a_top_patch_is_zoomed_to(browser, serve, folder, tables):
    show(browser, serve(folder).url)
    scale = place(browser)[2]
    press(browser, "#top li:nth-child(3) button")
    left, top, closer = place(browser)
    assert closer > 2 * scale
    patch = tables["few"].set_index("rank").loc[3]
    middle = browser.run(
        "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
        "(gimpView.app.stages[0].field.getBoundingClientRect())"
    )
    found = [left + (patch["x"] + 128) * closer, top + (patch["y"] + 128) * closer]
    assert found == pytest.approx(middle, abs=3)
    browser.key("j")
    assert "4 of 300" in browser.run("document.getElementById('patch-facts').textContent")
    browser.key("f")
    assert place(browser)[2] == pytest.approx(scale, rel=0.01)


def test_patients_are_sorted_found_and_chosen(browser, serve, folder):
    show(browser, serve(folder).url)
    heads = "document.querySelectorAll('#case-table tbody tr:not([hidden]) th')"
    names = f"[...{heads}].map((head) => head.textContent)"
    press(browser, "thead th button")
    press(browser, "thead th button")
    assert browser.run(names) == ["second", "first"]
    assert browser.run("document.querySelectorAll('.wrong').length") == 1
    browser.run("document.getElementById('filter').value = 'MANY'")
    browser.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert browser.run(names) == ["second"]
    press(browser, "#case-table tbody tr th button")
    browser.wait_for(f"{SHOWN} === 'second 1'")
    assert browser.run("location.hash") == "#second"


def test_genes_are_beside_the_slide(browser, serve, folder):
    show(browser, serve(folder).url)
    text = browser.wait_for("document.querySelector('#genes li') && genes.textContent")
    assert text.index("TP53 (G1)") < text.index("KRAS (G2)") < text.index("Signals: KRAS (G2), G3")


def test_folders_side_by_side_show_the_same_place(browser, serve, folder):
    show(browser, serve(folder, folder).url)
    press(browser, ".stage:last-child .tools button")
    second, first = place(browser, 1), place(browser, 0)
    width = browser.run("document.querySelector('.stage').getBoundingClientRect().width")
    assert second[2] == pytest.approx(first[2], rel=0.01)
    assert second[0] - first[0] == pytest.approx(width + 1, abs=3)
    assert second[1] == pytest.approx(first[1], abs=3)


def test_the_slide_is_where_its_patches_are(browser, serve, map_folder, image_folder):
    show(browser, serve(map_folder, images=image_folder).url, "A 0")
    browser.key("o")
    browser.wait_for("gimpView.app.stages[0].viewer.world.getItemAt(0).getFullyLoaded()")
    browser.run(PLAIN)
    left, top, scale = place(browser)
    picture = pixels(browser)
    for x, y in ((100, 100), (450, 350), (590, 590)):
        colour = picture[round(top + y * scale), round(left + x * scale)]
        np.testing.assert_allclose(colour, [x / 900 * 255, y / 700 * 255, 128], atol=6)
    loaded = "[...document.querySelectorAll('#top img')].every((i) => i.complete && i.naturalWidth)"
    browser.wait_for(loaded)


def test_a_phone_shows_all_by_touch(browser, serve, folder, tables):
    show(browser, serve(folder).url, width=390, height=844, touch=True)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.run(PLAIN)
    found, rows = colours_at(browser, tables["few"])
    assert len(rows) == 300
    assert np.abs(found - expected_colours(tables["few"]["percentile"])).max() <= 2
    left, top, scale = place(browser)
    patch = tables["few"].iloc[137]
    browser.tap(left + (patch["x"] + 128) * scale, top + (patch["y"] + 128) * scale)
    browser.wait_for("document.getElementById('patch-facts').textContent.endsWith('137')")
    for tab, seen in ((2, "#top"), (3, "#case-facts"), (4, "#genes"), (5, "#case-table")):
        press(browser, f"#tabs button:nth-child({tab})", touch=True)
        assert browser.run(f"document.querySelector('{seen}').getBoundingClientRect().height") > 50
    press(browser, "#case-table tbody tr:last-child", touch=True)
    browser.wait_for(f"{SHOWN} === 'second 1'")


def test_a_mailed_page_shows_the_same_and_asks_for_nothing(
    browser, folder, tables, tmp_path, image_folder
):
    copy = shutil.copytree(folder, tmp_path / "maps")
    pages = write_pages(copy, SlideImages(image_folder))
    show(browser, pages[0].as_uri())
    browser.run(PLAIN)
    found, rows = colours_at(browser, tables["few"])
    assert len(rows) == 300
    assert np.abs(found - expected_colours(tables["few"]["percentile"])).max() <= 2
    assert "TP53" in browser.run("genes.textContent")
    outside = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [pages[0].as_uri()]


def test_what_the_server_cannot_read_is_told_on_the_slide(browser, serve, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "maps")
    (copy / "few" / "patches.csv").write_text("x,y\n")
    show(browser, serve(copy).url)
    message = browser.run("document.querySelector('.message').textContent")
    assert "patches.csv" in message
    browser.errors.clear()  # the browser reports the answer 422 too
    browser.key("n")
    browser.wait_for(f"{SHOWN} === 'second 1'")
    assert browser.run("document.querySelector('.message').hidden")


def test_in_a_hurry_the_last_patient_is_shown(browser, serve, folder, tables):
    show(browser, serve(folder).url)
    browser.run("(() => { for (const place of [1, 0, 1, 0, 1]) gimpView.app.show(place); })()")
    browser.wait_for(f"{SHOWN} === 'second 1'")
    browser.run("new Promise((done) => setTimeout(done, 500))")
    assert browser.run("gimpView.app.stages[0].viewer.world.getItemCount()") == 1
    assert browser.run("gimpView.app.stages[0].patches.length") == 9_000
    browser.run(PLAIN)
    assert len(colours_at(browser, tables["many"])[1]) == 9_000


def test_several_slides_and_none(browser, serve, map_folder):
    show(browser, serve(map_folder).url, "A 0")
    browser.key("n")
    browser.wait_for(f"{SHOWN} === 'B 1'")
    browser.run("gimpView.app.stages[0].choose(3, true)")
    browser.run("slide.value = 2; slide.dispatchEvent(new Event('change'))")
    browser.wait_for(f"{SHOWN} === 'B 2'")
    assert browser.run("gimpView.app.stages[0].patches.length") == 20
    assert browser.run("patch.hidden")
    browser.key("n")
    browser.wait_for(f"{SHOWN} === 'C -'")
    assert browser.run("document.getElementById('slide')") is None
    message = browser.run("document.querySelector('.message').textContent")
    assert message == "Nothing was drawn of this patient's slides."
