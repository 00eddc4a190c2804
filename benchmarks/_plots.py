"""Figures of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from gimp_fast.pages.style import DPI, INK, colours, new_figure, rc

# On a processor where torch's library is slow, a layer can be below it.
ARITHMETIC = "the arithmetic at the rate of torch's matmul"
MARKERS = "osD^vPX"
# field -> title, unit, larger unit, and their ratio
QUANTITIES = {
    "median_ms": ("median time", "ms", "s", 1000),
    "peak_mib": ("peak memory above the inputs", "MiB", "GiB", 1024),
}


def plot_scaling(
    rows: list[dict[str, Any]], path: Path, title: str, along: str = "N (patches of a slide)"
) -> None:
    """Plot time and peak memory against N: one line per peer, one row of panels per mode.

    Args:
        rows: records with ``n``, ``mode``, ``peer``, ``median_ms``, ``floor_ms``, ``peak_mib``.
        path: of the PNG file.
        title: above the panels.
        along: what N is.
    """
    modes, peers = _distinct(row["mode"] for row in rows), _distinct(row["peer"] for row in rows)
    with rc():
        figure = new_figure(8.4, 1.1 + 2.7 * len(modes))
        panels = figure.subplots(len(modes), 2, squeeze=False, sharex=True)
        for pair, mode in zip(panels, modes, strict=True):
            in_mode = [row for row in rows if row["mode"] == mode]
            floor = {row["n"]: row["floor_ms"] for row in in_mode}
            pair[0].plot(*_line(floor), color=INK, ls=":", label=ARITHMETIC)
            for panel, field in zip(pair, QUANTITIES, strict=True):
                for i, peer in enumerate(peers):
                    points = {row["n"]: row[field] for row in in_mode if row["peer"] == peer}
                    look = {"color": colours(len(peers))[i], "marker": MARKERS[i], "ms": 4}
                    # The first peer is drawn above the others.
                    panel.plot(*_line(points), label=peer, zorder=len(peers) - i + 2, **look)
                _label(panel, field, mode)
        lengths = sorted(_distinct(row["n"] for row in rows))
        for panel in panels[-1]:
            panel.set_xticks(lengths, [f"{n:,}" for n in lengths])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xlabel(along)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, dpi=DPI)


def _label(panel: Axes, field: str, mode: str) -> None:
    title, unit, larger, step = QUANTITIES[field]

    def with_unit(value: float, _: int) -> str:
        return f"{value / step:g} {larger}" if value >= step else f"{value:g} {unit}"

    panel.set_xscale("log")
    # Powers of two are round numbers of bytes.
    panel.set_yscale("log", base=4 if step == 1024 else 10)
    panel.set_title(f"{mode}: {title}", loc="left", fontsize=9)
    panel.yaxis.set_major_formatter(FuncFormatter(with_unit))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _line(points: dict[int, float | None]) -> tuple[list[int], list[float]]:
    """Points by rising N, without zeros and unknown values: the axes are logarithmic."""
    drawn = sorted((n, value) for n, value in points.items() if value)
    return [n for n, _ in drawn], [value for _, value in drawn]
