"""The picture of the README: speed against deepmd-kit, and how far the numbers are apart. Measures nothing.

All numbers are those of the tables in docs/speed.md and docs/accuracy.md.

    python bench/picture.py                 # writes docs/images/speed-and-parity.svg
    python bench/picture.py -o other.png
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
THEIRS, OURS, LINE = "#9aa5b1", "#0b6e99", "#c0392b"
BOUND = 1e-10  # of the tests; docs/accuracy.md says so


def rows(page: str, column: str) -> list[list[str]]:
    """The first table of a page that has this column, without its head."""
    for table in re.findall(r"(?:^\|.*\n)+", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        if column in cells[0]:
            return [cells[0], *cells[2:]]
    raise SystemExit(f"docs/{page} has no table with the column {column!r}")


def draw_speed(axes: Axes) -> None:
    """Milliseconds per atom of both, a pair of bars for each model."""
    _, *table = rows("speed.md", "deepmd-kit, ms per atom")
    for at, (model, atoms, precision, theirs, ours, ratio, _) in enumerate(table):
        axes.barh(at - 0.2, float(theirs), 0.38, color=THEIRS, label="deepmd-kit" if at == 0 else None)
        axes.barh(at + 0.2, float(ours), 0.38, color=OURS, label="dpa2" if at == 0 else None)
        axes.text(float(theirs) * 1.15, at, f"{ratio.replace(', ', ' and ')} times", va="center")
        table[at][0] = f"{model}, {precision}\n{atoms} atoms"
    axes.set_yticks(range(len(table)), [row[0] for row in table])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.03, 400)
    axes.set_xlabel("ms per atom: energy, forces and virial of water, two CPU cores")
    axes.legend(loc="upper right", frameon=False)


def draw_parity(axes: Axes) -> None:
    """The largest differences, below the bound of the tests."""
    names, values = rows("accuracy.md", "forces")
    names = [re.sub(r" \(.*", "", name).replace("atomic virial", "atomic\nvirial") for name in names]
    axes.scatter(range(len(names)), [float(value) for value in values], s=60, color=OURS, zorder=3)
    axes.axhline(BOUND, color=LINE, linestyle="--", linewidth=1)
    axes.text(len(names) - 0.6, BOUND * 1.3, "bound of the tests", color=LINE, ha="right", va="bottom")
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log")
    axes.set_ylim(1e-15, 1e-9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel("largest difference from deepmd-kit, relative, float64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=DOCS / "images" / "speed-and-parity.svg", metavar="FILE")
    output: Path = parser.parse_args().output
    with rc_context({"svg.hashsalt": "dpa2", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
        draw_speed(left)
        draw_parity(right)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="x" if axes is left else "y", color="#e5e8eb", zorder=0)
            axes.set_axisbelow(True)
        metadata = {"Date": None} if output.suffix == ".svg" else None
        figure.savefig(output, metadata=metadata, dpi=150, facecolor="white")


if __name__ == "__main__":
    main()
