"""The panel of precision and recall, which say more than a ROC curve where a class is rare."""

from __future__ import annotations

from matplotlib.figure import Figure

from gimp_fast.evaluation.precision_recall import precision_recall
from gimp_fast.pages import style
from gimp_fast.report.panels import Panel
from gimp_fast.runs.records import Run


def precision_panel(run: Run) -> Panel:
    """Of the second of two classes, or of each of several against the rest."""
    name, title = "precision_recall", "Precision and recall"
    test, classes = run.predictions.of("test"), run.metrics.cohort.classes
    is_binary, found = len(classes) == 2, {}
    for place, positive in list(enumerate(classes))[is_binary:]:
        curve = precision_recall(test.probabilities[:, place], test.label == place)
        if curve is not None:
            found[positive] = curve
    if not found:
        reason = "the curve needs test cases of at least two classes"
        return Panel(name, title, f"Left out: {reason}.")
    shares = {one: float((test.label == classes.index(one)).mean()) for one in found}
    caption = f"{len(test)} test cases; each class against the rest."
    if is_binary:
        caption = f"{len(test)} test cases; “{classes[1]}” is positive, and chance is its share."
    caption += " AP: average precision."
    alt = f"{title} of {len(test)} test cases; average precision: " + ", ".join(
        f"{one} {area:.3f} (share of cases {shares[one]:.3f})"
        for one, (_, _, area) in found.items()
    )
    colours = dict(zip(classes, style.colours(len(classes)), strict=True))
    figure = style.new_figure(height=3.9 + 0.19 * (len(found) + is_binary))
    _draw(figure, found, colours, shares if is_binary else {})
    return Panel(name, title, caption, alt, figure)


def _draw(
    figure: Figure, found: dict[str, tuple], colours: dict[str, str], chance: dict[str, float]
) -> None:
    axes = figure.add_subplot()
    for positive, (recall, precision, area) in found.items():
        text = f"AP {area:.3f}" if chance else f"{positive}: AP {area:.3f}"
        axes.step(
            recall, precision, where="pre", color=colours[positive], label=style.plain(text),
            clip_on=False, zorder=3,
        )  # fmt: skip
    for share in chance.values():
        label = f"chance (AP {share:.2f})"
        axes.axhline(share, color=style.INK, lw=0.9, ls=(0, (2, 3)), label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("Recall (sensitivity)")
    axes.set_ylabel("Precision (positive predictive value)")
    figure.legend(loc="outside lower center", ncols=1)
