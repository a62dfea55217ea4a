"""Charts as inline SVG that takes its colours from the page; here those of losses.

matplotlib draws with colours that no one would choose; they are then replaced by `currentColor` and by CSS
variables, so that one drawing serves light and dark. No name from a study enters the SVG: the legend is
HTML, and what stands in the SVG is our own words and numbers only.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

COLOURS = 8  # --series-1 to --series-8 in report.css
DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))
_TEXT = "#010203"
_SERIES = "#0a0b{:02x}"
_X_LABEL, _Y_LABEL = "label of the x axis", "label of y"
Labels = tuple[str, str]  # of the x axis and of the y axis
_STYLE: Any = {  # matplotlib types it by every key that it knows
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and can be read and searched
    "svg.hashsalt": "pronk",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _TEXT,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib; only its widths matter
    "font.size": 8.5,
}


@dataclass(frozen=True)
class Curve:
    """The losses of one run: epochs (points,) and nats per target token (points,).

    mark: the epoch at which overfitting began; the nearest point is ringed.
    """

    series: int
    epochs: NDArray[np.float64]
    losses: NDArray[np.float64]
    mark: float | None = None


def dash(series: int) -> str:
    """The dash pattern of a series as SVG writes it: colours repeat after eight runs, dashes then differ."""
    return " ".join(f"{length:g}" for length in DASHES[series // COLOURS % len(DASHES)])


def smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential moving average (points,) over about a twentieth of the curve, unbiased at its start."""
    keep = 1.0 - 1.0 / max(1.0, len(losses) / 20)
    smoothed = np.empty_like(losses)
    total = weight = 0.0
    for index, loss in enumerate(losses):
        total, weight = keep * total + loss, keep * weight + 1.0
        smoothed[index] = total / weight
    return smoothed


def loss_chart(curves: Sequence[Curve], identifier: str, points: bool, labels: Labels) -> str:
    """One chart as an <svg> element for inlining, the same bytes for the same data.

    `identifier` keeps its ids apart from those of other charts on the page; `points` marks each value, for
    curves of few. Longer curves are drawn first, so that runs that share their beginning both show.
    """

    def draw(axes: Any) -> None:
        for curve in sorted(curves, key=lambda curve: -len(curve.epochs)):
            (line,) = axes.plot(curve.epochs, curve.losses, marker="o" if points else "")
            styled(line, curve.series)
            if curve.mark is not None:
                nearest = int(np.abs(curve.epochs - curve.mark).argmin())
                ring(axes, curve.epochs[nearest], curve.losses[nearest], curve.series)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.margins(x=0.02)

    return drawn(draw, identifier, labels)


def drawn(draw: Callable[[Any], None], identifier: str, labels: Labels, size: tuple[float, float] = (4.7, 2.9)) -> str:
    """What `draw` puts on a pair of axes, as an <svg> element for inlining; size in inches.

    matplotlib's own font knows few scripts, so it lays out stand-ins, in whose place the labels come afterwards.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        draw(axes)
        axes.set_xlabel(_X_LABEL)
        axes.set_ylabel(_Y_LABEL)
        written = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(written, metadata=nothing)  # savefig draws everything twice
    svg = _for_inlining(written.getvalue(), identifier)
    for stand_in, label in zip((_X_LABEL, _Y_LABEL), labels, strict=True):
        svg = svg.replace(f">{stand_in}<", f">{escape(label)}<")
    return svg


def styled(line: Any, series: int, size: float = 4.0) -> None:
    """Give a line the colour of its series, and dashes where colours repeat."""
    line.set(color=colour(series), linewidth=1.5, markersize=size)
    pattern = DASHES[series // COLOURS % len(DASHES)]
    if pattern:
        line.set_dashes(pattern)


def colour(series: int) -> str:
    """The stand-in for a colour of the page."""
    return _SERIES.format(series % COLOURS)


def ring(axes: Any, x: float, y: float, series: int) -> None:
    """A ring around a point, one for a series."""
    axes.plot(
        x, y, marker="o", markersize=11, fillstyle="none",
        markeredgecolor=colour(series), markeredgewidth=1.5, linestyle="none", gid=f"ring-{series}",
    )  # fmt: skip


def _for_inlining(svg: str, identifier: str) -> str:
    """Without prologue, fixed size and page-wide style; ids of its own; the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg aria-hidden="true" \1>', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{identifier}-', svg)
    svg = svg.replace("url(#", f"url(#{identifier}-").replace('xlink:href="#', f'href="#{identifier}-')
    svg = svg.replace(_TEXT, "currentColor")
    for series in range(COLOURS):
        svg = svg.replace(_SERIES.format(series), f"var(--series-{series + 1})")
    return svg.strip()
