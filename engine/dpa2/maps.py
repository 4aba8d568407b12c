"""Two-dimensional maps of descriptors: principal components, as a picture or as a page to explore.

Pages hold chemiscope's viewer, the structures and the map in one file that needs no network: the extra ``map``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import Error, InputError
from .inputs import Float
from .plots import draw_map, require_matplotlib
from .streams import evaluate_frames

if TYPE_CHECKING:
    from .data import Frame, Structures
    from .model import Model

BLOCK = 65536  # rows that are taken into memory at a time

# Nothing in the page may reach the network; scripts are those in it.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; font-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; \
connect-src blob: data:">
<title>{title}</title>
<style>body {{ margin: 1em; font-family: sans-serif; }}
h1 {{ margin: 0 0 0.5em; font-size: 1.1em; font-weight: normal; overflow-wrap: anywhere; }}
#viewer .chemiscope-viewer-two-col {{ height: calc(100vh - 5em); grid-template-rows: 100%; }}
#viewer .chemiscope-map {{ height: 90%; }}</style>
</head>
<body>
<h1>{title}</h1>
<div id="viewer"></div>
<script type="application/json" id="dataset">{dataset}</script>
<script type="text/plain" id="source">{source}</script>
<script type="module">
const text = (id) => document.getElementById(id).textContent;
const dataset = JSON.parse(text("dataset"));
const values = {{
  mode: "default", value: JSON.stringify(dataset), has_metadata: false, settings: dataset.settings,
  warning_timeout: 10000, selected_ids: {{}}, active_viewer: 0,
}};
const model = {{
  get: (key) => values[key], set: (key, value) => {{ values[key] = value; }},
  on() {{}}, off() {{}}, save_changes() {{}}, send() {{}},
}};
const source = text("source").replaceAll("<\\\\/script", "</script");
const viewer = await import(URL.createObjectURL(new Blob([source], {{ type: "text/javascript" }})));
viewer.default.render({{ model, el: document.getElementById("viewer") }});
</script>
</body>
</html>
"""


def check_map(path: str) -> None:
    """Refuse a map that could not be drawn, before the work.

    Raises:
        InputError: a library is missing; the message names the extra.
    """
    if path.endswith(".html"):
        _viewer()
    else:
        require_matplotlib()


def _viewer() -> str:
    """The source of chemiscope's viewer, a module of JavaScript."""
    try:
        found = resources.files("chemiscope").joinpath("static").joinpath("chemiscope-widget.mjs")
        return found.read_text(encoding="utf-8")
    except (ImportError, FileNotFoundError):
        raise InputError("maps to explore need chemiscope; install it with: pip install 'dpa2[map]'") from None


def principal_components(rows: NDArray[Any], chosen: NDArray[np.bool_] | None = None) -> tuple[Float, Float, Float]:
    """The two directions of largest variance.

    Args:
        rows: (n, dim), perhaps mapped into memory; they are read twice, in blocks.
        chosen: (n,) which rows count; all by default.

    Returns:
        the mean (dim,), the directions (dim, 2) of unit length, whose largest components are positive, and the shares
        of the variance (2,).

    Raises:
        InputError: no rows, or only one dimension.
    """
    count, dim = len(rows) if chosen is None else int(chosen.sum()), rows.shape[1]
    if count == 0 or dim < 2:
        raise InputError(f"a map needs points of two dimensions at least, and there are {count} of {dim}")

    def blocks() -> Any:
        for start in range(0, len(rows), BLOCK):
            part = np.asarray(rows[start : start + BLOCK], dtype=np.float64)
            yield part if chosen is None else part[chosen[start : start + BLOCK]]

    mean = sum(block.sum(axis=0) for block in blocks()) / count
    covariance = sum((block - mean).T @ (block - mean) for block in blocks()) / count
    variances, vectors = np.linalg.eigh(covariance)
    directions = vectors[:, [-1, -2]]
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])
    total = float(variances.sum())
    shares = np.maximum(variances[[-1, -2]], 0.0) / total if total > 0 else np.zeros(2)
    return mean, directions, shares


def write_map(
    path: str,
    descriptors: NDArray[Any],
    natoms: NDArray[Any],
    types: NDArray[Any],
    sources: Sequence[Structures],
    model: Model,
    *,
    pooled: bool,
    most: int,
    only: Sequence[str] | None,
    title: str,
    suffix: str,
) -> None:
    """Write a map.

    Args:
        path: where to. suffix: "html", "png", "pdf" or "svg", whatever the name of the file ends in.
        descriptors: (atoms of all frames, dim), or (nframes, dim) if ``pooled``.
        natoms: (nframes,). types: (atoms of all frames,).
        sources: the structures, read again for a page.
        model: that made the descriptors.
        most: points at most; of more frames, evenly spaced ones are shown.
        only: the types of the atoms that are shown and whose principal components they are; all by default.
        title: what stands on top.
    """
    chosen = [t for t, name in enumerate(model.type_map) if only is None or name in only]
    real = None if pooled else np.isin(types, chosen)
    mean, directions, shares = principal_components(descriptors, real)
    starts = np.concatenate([[0], np.cumsum(natoms)])
    step = max(1, -(-(len(natoms) if pooled else int(natoms.sum())) // most))
    shown = range(0, len(natoms), step)

    def place(f: int) -> Float:
        rows = descriptors[f : f + 1] if pooled else descriptors[starts[f] : starts[f + 1]]
        found: Float = (np.asarray(rows, dtype=np.float64) - mean) @ directions
        return found

    if suffix != "html":
        points, kinds = [], []
        for f in shown:
            of_frame = types[starts[f] : starts[f + 1]]
            points.append(place(f) if pooled else place(f)[np.isin(of_frame, chosen)])
            kinds += [_composition(of_frame, model)] if pooled else [model.type_map[t] for t in of_frame if t in chosen]
        draw_map(path, np.concatenate(points), kinds, shares.tolist(), title, suffix)
        return
    frames = {f: frame for f, frame in enumerate(_frames(sources)) if f % step == 0}
    wanted = [frames[f] for f in shown]
    energies = _energies(wanted, model, pooled)
    dataset = _dataset(wanted, [place(f) for f in shown], energies, shares, model, pooled, chosen, title)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(
            _PAGE.format(
                title=escape(title),
                dataset=json.dumps(dataset, separators=(",", ":")).replace("</", "<\\/"),
                source=_viewer().replace("</script", "<\\/script"),
            )
        )


def _frames(sources: Sequence[Structures]) -> Any:
    for source in sources:
        yield from source


def _energies(frames: list[Frame], model: Model, pooled: bool) -> list[Float] | None:
    """The model's energies, eV, to colour points by; None where it has none, or the frames lack what it takes.

    Per atom of each frame, (1,), if ``pooled``; else of its atoms, (natoms,), less the mean of their type, which would
    hide all other differences.
    """
    if model.kind not in ("energy", "spin"):
        return None
    try:
        found = [result for _, result in evaluate_frames(model, frames, forces=False)]
    except Error:
        return None
    types = [frame.types_in(model.type_map) for frame in frames]
    if pooled:
        return [
            np.array([float(result.energy) / max(1, int((of_frame >= 0).sum()))])
            for result, of_frame in zip(found, types, strict=True)
        ]
    kinds, energies = np.concatenate(types), np.concatenate([result.atom_energy for result in found])
    for kind in np.unique(kinds):
        energies[kinds == kind] -= energies[kinds == kind].mean()
    return np.split(energies, np.cumsum([len(of_frame) for of_frame in types])[:-1])


def _composition(types: NDArray[Any], model: Model) -> str:
    from .data.deepmd_writer import formula

    return formula(types[types >= 0], model.type_map)


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    found: list[float] = np.round(values, digits).ravel().tolist()
    return found


def _dataset(
    frames: list[Frame],
    places: list[Float],
    energies: list[Float] | None,
    shares: Float,
    model: Model,
    pooled: bool,
    chosen: list[int],
    title: str,
) -> dict[str, Any]:
    """The dataset in chemiscope's format. Virtual atoms are left out."""
    structures, environments, points = [], [], []
    elements: list[str] = []
    numbers: list[int] = []
    values: list[float] = []
    for s, (frame, place) in enumerate(zip(frames, places, strict=True)):
        types = frame.types_in(model.type_map)
        real = types >= 0
        names = [model.type_map[t] for t in types[real]]
        shown = np.flatnonzero(np.isin(types[real], chosen)).tolist()
        coords = frame.coords[real]
        structure: dict[str, Any] = {"size": len(names), "names": names}
        structure |= {axis: _rounded(coords[:, k], 4) for k, axis in enumerate("xyz")}
        if frame.box is not None and all(frame.pbc):
            structure["cell"] = _rounded(frame.box, 5)
        structures.append(structure)
        points.append(place if pooled else place[real][shown])
        elements += [_composition(types, model)] if pooled else [names[k] for k in shown]
        numbers += [s] * len(points[-1])
        if energies is not None:
            values += _rounded(energies[s] if pooled else energies[s][real][shown], 6)
        environments += [{"structure": s, "center": k, "cutoff": round(model.rcut, 3)} for k in shown]
    xy = np.concatenate(points)
    target = "structure" if pooled else "atom"
    kind = "composition" if pooled else "element"
    labels = [f"PCA {k + 1} ({share:.1%})" for k, share in enumerate(shares)]
    properties: dict[str, Any] = {
        label: {"target": target, "values": _rounded(xy[:, k], 6)} for k, label in enumerate(labels)
    }
    properties[kind] = {"target": target, "values": elements}
    properties["frame"] = {"target": target, "values": numbers}
    colour = "frame"
    if energies is not None:
        colour = "energy per atom" if pooled else "energy of the atom, less the mean of its type"
        properties[colour] = {"target": target, "values": values, "units": "eV"}
    properties["origin"] = {"target": "structure", "values": [frame.where for frame in frames]}
    settings: dict[str, Any] = {
        "target": target,
        "map": {
            "x": {"property": labels[0]},
            "y": {"property": labels[1]},
            "color": {"property": colour},
            "palette": "viridis",
            "size": {"factor": 35},
            "symbol": kind if len(set(elements)) <= 12 else "",
        },
        "structure": [{"unitCell": True, "bonds": True, "environments": {"activated": not pooled, "cutoff": 3.0}}],
    }
    dataset = {
        "meta": {"name": title, "description": f"descriptors of {len(xy)} {'structures' if pooled else 'atoms'}"},
        "structures": structures,
        "properties": properties,
        "settings": settings,
    }
    if not pooled:
        dataset["environments"] = environments
    return dataset
