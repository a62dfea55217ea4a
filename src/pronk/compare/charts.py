"""Loss curves as inline SVG that takes its colours from the page.

matplotlib draws with colours that no one would choose; they are then replaced by `currentColor` and by CSS
variables, so that one drawing serves light and dark. No name from a study enters the SVG: the legend is
HTML, and what matplotlib writes is our own words and numbers only.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

COLOURS = 8  # --series-1 to --series-8 in report.css
DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))
_TEXT = "#010203"
_SERIES = "#0a0b{:02x}"
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


def loss_chart(curves: Sequence[Curve], identifier: str, points: bool) -> str:
    """One chart as an <svg> element for inlining, the same bytes for the same data.

    `identifier` keeps its ids apart from those of other charts on the page; `points` marks each value, for
    curves of few. Longer curves are drawn first, so that runs that share their beginning both show.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.7, 2.9), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        for curve in sorted(curves, key=lambda curve: -len(curve.epochs)):
            pattern = DASHES[curve.series // COLOURS % len(DASHES)]
            (line,) = axes.plot(curve.epochs, curve.losses, linewidth=1.5, marker="o" if points else "")
            line.set_color(_SERIES.format(curve.series % COLOURS))
            line.set_markersize(4.0)
            if pattern:
                line.set_dashes(pattern)
            if curve.mark is not None:
                _ring(axes, curve, curve.mark)
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats per target token")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.margins(x=0.02)
        written = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", metadata=nothing)
    return _for_inlining(written.getvalue(), identifier)


def _ring(axes: Any, curve: Curve, mark: float) -> None:
    """A ring around the point where overfitting began."""
    nearest = int(np.abs(curve.epochs - mark).argmin())
    colour = _SERIES.format(curve.series % COLOURS)
    axes.plot(
        curve.epochs[nearest], curve.losses[nearest], marker="o", markersize=10, fillstyle="none",
        markeredgecolor=colour, markeredgewidth=1.5, linestyle="none",
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
