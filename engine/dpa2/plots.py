"""Pictures: predictions over labels, and two-dimensional maps. Needs matplotlib: ``pip install 'dpa2[plot]'``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .comparisons import Comparison, EnergyComparison
from .errors import InputError
from .outputs import replacing

if TYPE_CHECKING:
    from .data import Frame
    from .inputs import Float
    from .results import Result

# Points that are drawn one by one; of more, every second one is left out until they are fewer.
MOST_POINTS = 200_000
# What the columns of a learning curve are of, where a loss has one unit for it.
_CURVE_WORDS = {
    "e": "energy per atom, eV",
    "f": "force, eV/Å",
    "v": "virial per atom, eV",
    "ae": "energy of atoms, eV",
}
# From so many on the points of a panel are coloured by how many lie beside them, and from so many it shows cells.
CROWDED, DENSE = 1_000, 20_000
# Of a panel, along either side: what lies beside a point is what is in its cell.
_CELLS = 60


def require_matplotlib() -> None:
    """Raises InputError if matplotlib is missing."""
    new_figure(1, 1)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib, in inches. Raises InputError if matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; install it with: pip install 'dpa2[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Thinned:
    """Rows of a stream that keeps at most :data:`MOST_POINTS` of them, evenly spaced; the same ones every time."""

    def __init__(self, width: int) -> None:
        self._stride = 1
        self._seen = 0
        self._rows: list[NDArray[np.float64]] = []
        self._count = 0
        self.width = width

    def add(self, rows: NDArray[Any]) -> None:
        """Take in (k, width) rows."""
        first = -self._seen % self._stride
        kept = np.array(rows[first :: self._stride], dtype=np.float64)
        self._seen += len(rows)
        self._rows.append(kept)
        self._count += len(kept)
        while self._count > MOST_POINTS:
            joined = self.rows()[::2]
            self._rows, self._count = [joined], len(joined)
            self._stride *= 2

    def rows(self) -> NDArray[np.float64]:
        """(n, width): what was kept."""
        return np.concatenate([np.empty((0, self.width)), *self._rows])


class Agreement:
    """How well predictions agree with labels: over all that were added, of which a panel may show a part."""

    def __init__(self) -> None:
        self.count = 0
        self._absolute = self._squared = self._mean = self._spread = 0.0

    def add(self, labels: Float, predictions: Float) -> None:
        """Take in equally many of both."""
        if not labels.size:
            return
        away = predictions - labels
        self._absolute += float(np.abs(away).sum())
        self._squared += float((away * away).sum())
        # the spread of the labels about their mean, from those of two parts: sums of squares would cancel
        mean, before = float(labels.mean()), self.count
        self.count += labels.size
        step = mean - self._mean
        self._spread += float(((labels - mean) ** 2).sum()) + step * step * before * labels.size / self.count
        self._mean += step * labels.size / self.count

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return self._absolute / max(1, self.count)

    @property
    def rmse(self) -> float:
        """Root mean square error."""
        return math.sqrt(self._squared / max(1, self.count))

    @property
    def r2(self) -> float:
        """1 minus the squared errors over the spread of the labels; NaN where labels are all the same."""
        return 1.0 - self._squared / self._spread if self._spread > 0.0 else math.nan

    def lines(self, unit: str) -> str:
        """For people."""
        errors = [f"{name} {value:.4g} {unit}".rstrip() for name, value in (("MAE", self.mae), ("RMSE", self.rmse))]
        fit = [] if math.isnan(self.r2) else [f"R² {self.r2:.6g}"]
        return "\n".join([f"N {self.count:,}", *errors, *fit])


class Parity:
    """Gathers predictions and labels, and draws them over each other.

    Raises:
        InputError: matplotlib is missing.
    """

    def __init__(self, comparison: Comparison | None = None) -> None:
        require_matplotlib()
        self.comparison = comparison or EnergyComparison()
        self._points = {name: Thinned(2) for name, _ in self.comparison.panels}
        self._agreement = {name: Agreement() for name, _ in self.comparison.panels}

    def add(self, frame: Frame, result: Result) -> None:
        """Take in a frame with its labels, and what a model makes of it."""
        for panel, label, prediction in self.comparison.points(frame, result):
            pairs = np.stack([np.ravel(label), np.ravel(prediction)], axis=1).astype(np.float64)
            self._points[panel].add(pairs)
            self._agreement[panel].add(*pairs.T)

    def draw(self, path: str, title: str) -> None:
        """Write the picture.

        Raises:
            InputError: no frame had a label.
        """
        panels = [
            (words, self._points[name].rows(), self._agreement[name])
            for name, words in self.comparison.panels
            if self._agreement[name].count
        ]
        if not panels:
            raise InputError(f"there is nothing to draw: {self.comparison.labels}")
        figure = new_figure(4.2 * len(panels), 4.4)
        most = 52 * len(panels)  # characters that fit
        figure.suptitle(title if len(title) <= most else f"...{title[-most:]}", fontsize=10)
        for axes, (words, points, agreement) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            low, high = float(points.min()), float(points.max())
            margin = 0.03 * (high - low) or 0.5
            limits = (low - margin, high + margin)
            axes.plot(limits, limits, color="0.6", linewidth=0.8, zorder=1)
            if len(points) >= DENSE:
                hexagons = axes.hexbin(
                    *points.T, gridsize=120, bins="log", mincnt=1, extent=(*limits, *limits), linewidths=0.1, zorder=2
                )
                figure.colorbar(hexagons, ax=axes, shrink=0.7, label="points")
            elif len(points) >= CROWDED:
                crowd = crowding(points, limits)
                order = np.argsort(crowd, kind="stable")  # the densest on top
                dots = axes.scatter(
                    *points[order].T, c=crowd[order], norm="log", s=6, linewidths=0, zorder=2, rasterized=True
                )
                figure.colorbar(dots, ax=axes, shrink=0.7, label=f"points in a cell of {_CELLS} x {_CELLS}")
            else:
                axes.scatter(*points.T, s=8, alpha=0.6, linewidths=0, zorder=2)
            text = agreement.lines(words.partition(", ")[2])
            axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9)
            axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"label: {words}", ylabel=f"model: {words}")
            axes.ticklabel_format(useOffset=False)
            axes.tick_params(labelsize=8)
            axes.tick_params(axis="x", rotation=30)
        save(figure, path)


def save(figure: Any, path: str) -> None:
    """Write a figure to .png, .pdf or .svg."""
    with replacing(path) as part:
        figure.savefig(part, dpi=150, format=path.rpartition(".")[2])


def crowding(points: Float, limits: tuple[float, float]) -> Float:
    """(n,) of every point of a square panel, how many lie in its cell, itself among them."""
    low, high = limits
    place = np.clip(((points - low) / (high - low) * _CELLS).astype(np.int64), 0, _CELLS - 1)
    cell = place[:, 0] * _CELLS + place[:, 1]
    crowd: Float = np.bincount(cell, minlength=_CELLS * _CELLS)[cell].astype(np.float64)
    return crowd


def draw_curve(path: str, columns: Mapping[str, Float]) -> None:
    """Draw a learning curve: a panel for every quantity, and one for the learning rate.

    Args:
        path: of the picture: .png, .pdf or .svg.
        columns: by name, as :func:`dpa2.train.display.read_curve` finds them.
    """
    lines: dict[str, list[tuple[str, Float]]] = {}  # of a quantity: of what, and the values
    for name, values in columns.items():
        found = re.fullmatch(r"(.+)_(trn|val)(_.*)?", name)
        if found and np.isfinite(values).any():
            task = f", {found[3][1:]}" if found[3] else ""
            lines.setdefault(found[1], []).append(({"trn": "training", "val": "validation"}[found[2]] + task, values))
    # training first, which is of few frames and jumps: validation is drawn above it
    lines = {name: sorted(entries, key=lambda entry: entry[0]) for name, entries in sorted(lines.items())}
    lines["learning rate"] = [("", columns["lr"])]
    labels = sorted({label for entries in lines.values() for label, _ in entries} - {""})
    colours = {"": "0.3", **dict(zip(labels, figure_colours(len(labels)), strict=True))}
    across = math.ceil(math.sqrt(len(lines)))
    down = -(-len(lines) // across)
    figure = new_figure(4.2 * across, 3.0 * down)
    axes, handles = None, {}
    for k, (name, entries) in enumerate(lines.items()):
        axes = figure.add_subplot(down, across, k + 1, sharex=axes)
        shown = []
        for label, values in entries:
            above = np.where(np.isfinite(values) & (values > 0), values, np.nan)  # the axis is logarithmic
            style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(values) < 30 else {}
            if label.startswith("training"):
                style["alpha"] = 0.6
            handles[label] = axes.plot(columns["step"], above, color=colours[label], linewidth=1, **style)[0]
            shown.append(above[np.isfinite(above)])
        _logarithmic(axes, np.concatenate(shown))
        kind, _, quantity = name.partition("_")
        words = _CURVE_WORDS.get(quantity) if kind in ("rmse", "mae") else None
        axes.set_title(f"{name}: {words}" if words else name, fontsize=10)
        axes.set_xlabel("step")
        axes.tick_params(labelsize=8)
    handles.pop("", None)
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=min(4, len(handles)), fontsize=9)
    save(figure, path)


def _logarithmic(axes: Any, values: Float) -> None:
    """A logarithmic axis with plain numbers beside it, several whatever the range is."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    spread = float(values.max() / values.min()) if len(values) else 1.0
    locator = MaxNLocator(5) if spread < 5.0 else LogLocator(subs=(1.0,) if spread > 1e3 else (1.0, 2.0, 5.0))
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.4, linewidth=0.5)


def draw_map(
    path: str, points: Float, kinds: Sequence[str], explained: Sequence[float], title: str, suffix: str
) -> None:
    """Write a map of points in colours.

    Args:
        path: where to. suffix: "png", "pdf" or "svg".
        points: (n, 2).
        kinds: (n,) what the colour of a point stands for, such as an element.
        explained: the shares of the variance along both axes.
        title: goes on top.
    """
    figure = new_figure(6.4, 5.4)
    axes = figure.subplots()
    names = sorted(set(kinds))
    of = np.array(kinds)
    colours = figure_colours(len(names))
    size = float(np.clip(4.0e4 / max(1, len(points)), 1.0, 16.0))
    for name, colour in zip(names, colours, strict=True):
        mask = of == name
        axes.scatter(*points[mask].T, s=size, alpha=0.5, linewidths=0, color=colour, label=f"{name} ({mask.sum()})")
    axes.set(xlabel=f"PCA 1 ({explained[0]:.1%})", ylabel=f"PCA 2 ({explained[1]:.1%})")
    axes.set_title(title, fontsize=10)
    if len(names) <= 20:
        for handle in axes.legend(fontsize=8, frameon=False).legend_handles:
            handle.set_sizes([24])
            handle.set_alpha(1)
    figure.savefig(path, dpi=150, format=suffix)


def figure_colours(count: int) -> list[Any]:
    """So many colours that can be told apart, as far as there are."""
    from matplotlib import colormaps

    if count <= 10:
        return [colormaps["tab10"](k) for k in range(count)]
    return [colormaps["turbo"](k / (count - 1)) for k in range(count)]
