"""What ``dpa2 eval`` prints: a summary of one frame, or a table of several."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..units import EV_PER_ANGSTROM3_IN_BAR, EV_PER_ANGSTROM3_IN_GPA
from . import common
from .document import Document

if TYPE_CHECKING:
    from ..data import Frame
    from ..inputs import Float
    from ..model import Model
    from .eval_values import Values

MOST_NUMBERS = 8  # of a property or a density of states that are printed for one frame; 3 in a table


class Report(ABC):
    """What goes to stdout, in a ``with`` statement."""

    def __init__(self, args: argparse.Namespace, model: Model, walk: common.Walk) -> None:
        self.walk = walk
        self.args = args
        self.model = model
        self.frames = 0

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: B027 -- most have nothing left to be printed
        """Print what is left after an error."""

    @abstractmethod
    def add(self, frame: Frame, values: Values, descriptor: Float | None) -> None:
        """Print what there is to say about a frame."""

    @abstractmethod
    def finish(self) -> None:
        """Say what was written."""

    def written(self) -> list[str]:
        """The outputs."""
        return [name for name in (self.args.output, self.args.save_deepmd) if name is not None]


class TextReport(Report):
    """A summary or a table for people. Subclasses know the words for a kind of model."""

    header = ""

    def __init__(self, args: argparse.Namespace, model: Model, walk: common.Walk) -> None:
        super().__init__(args, model, walk)
        self.single = walk.total == 1
        self.source = ""

    @abstractmethod
    def row(self, frame: Frame, values: Values) -> str:
        """The numbers of a frame in a table, under :attr:`header`."""

    @abstractmethod
    def summary(self, frame: Frame, values: Values) -> list[str]:
        """The lines on a single frame."""

    def add(self, frame: Frame, values: Values, descriptor: Float | None) -> None:
        import numpy as np

        if self.frames == 0:
            self.walk.print(f"model       {common.model_name(self.args)}: {self._how()}")
        self.frames += 1
        where, index = common.place_of(frame)
        if not self.single:
            if where != self.source:
                head = f"{'frame':>6} {'atoms':>7} {self.header}"
                self.walk.print(f"\n{where}\n{head}" + ("    descriptor norm" if descriptor is not None else ""))
                self.source = where
            line = f"{index:6d} {len(frame):7d} {self.row(frame, values)}"
            self.walk.print(line + (f" {np.linalg.norm(descriptor):18.6f}" if descriptor is not None else ""))
            return
        volume = frame.volume
        box = "open" if volume is None else f"volume {volume:.3f} angstrom^3"
        lines = [f"structure   {where}: {len(frame)} atoms, {box}", *self.summary(frame, values)]
        if descriptor is not None:
            lines.append(f"descriptor  shape {descriptor.shape}, norm {np.linalg.norm(descriptor):.8f}")
        for line in lines:
            self.walk.print(line)

    def finish(self) -> None:
        for name in self.written():
            common.tell(f"written     {name} ({self.frames} frame{'' if self.frames == 1 else 's'})")

    def _how(self) -> str:
        model = self.model
        types = " ".join(model.type_map[:8]) + (" ..." if len(model.type_map) > 8 else "")
        threads = f"{model.threads} thread{'' if model.threads == 1 else 's'}"
        kind = "" if model.kind == "energy" else f"{model.kind}, "
        return f"{types}, {kind}{model.precision}, {model.device}, {threads}"


class EnergyReport(TextReport):
    """Energy, forces, virial, pressure."""

    header = f"{'energy/eV':>18} {'eV/atom':>13} {'max force':>10} {'rms force':>10} {'GPa':>9}"

    def _numbers(self, frame: Frame, values: Values) -> tuple[float, float, float, float, float | None, str]:
        import numpy as np

        norms = np.linalg.norm(values["forces"], axis=1)
        rms = float(np.sqrt(np.mean(values["forces"] ** 2))) if len(frame) else 0.0
        volume = frame.volume
        pressure = None if volume is None else float(np.trace(values["virial"])) / (3.0 * volume)
        energy = float(values["energy"])
        atom = f" (atom {int(norms.argmax())})" if len(frame) else ""
        return energy, energy / max(1, len(frame)), float(norms.max(initial=0.0)), rms, pressure, atom

    def row(self, frame: Frame, values: Values) -> str:
        energy, per_atom, largest, rms, pressure, _ = self._numbers(frame, values)
        gpa = "-" if pressure is None else f"{pressure * EV_PER_ANGSTROM3_IN_GPA:.4f}"
        return f"{energy:18.8f} {per_atom:13.8f} {largest:10.5f} {rms:10.5f} {gpa:>9}"

    def summary(self, frame: Frame, values: Values) -> list[str]:
        energy, per_atom, largest, rms, pressure, atom = self._numbers(frame, values)
        lines = [
            f"energy      {energy:.8f} eV",
            f"per atom    {per_atom:.8f} eV",
            f"forces      max {largest:.6f}{atom}, rms {rms:.6f} eV/angstrom",
        ]
        if pressure is not None:
            gpa_bar = (pressure * EV_PER_ANGSTROM3_IN_GPA, pressure * EV_PER_ANGSTROM3_IN_BAR)
            lines.append(f"pressure    {gpa_bar[0]:.6f} GPa = {gpa_bar[1]:.2f} bar (of the virial, no kinetic part)")
        return [*lines, *_rows("virial/eV", values["virial"], "14.6f")]


class SpinReport(EnergyReport):
    """The same, and the magnetic forces."""

    header = f"{EnergyReport.header} {'max magnetic':>13}"

    def row(self, frame: Frame, values: Values) -> str:
        return f"{super().row(frame, values)} {self._largest(values)[0]:13.5f}"

    def summary(self, frame: Frame, values: Values) -> list[str]:
        import numpy as np

        largest, atom = self._largest(values)
        rms = float(np.sqrt(np.mean(values["magnetic_forces"] ** 2))) if len(frame) else 0.0
        energy, per_atom, forces, *others = super().summary(frame, values)
        return [
            energy,
            per_atom,
            forces,
            f"magnetic    max {largest:.6f}{atom}, rms {rms:.6f} eV per unit of spin",
            *others,
        ]

    @staticmethod
    def _largest(values: Values) -> tuple[float, str]:
        import numpy as np

        norms = np.linalg.norm(values["magnetic_forces"], axis=1)
        return float(norms.max(initial=0.0)), f" (atom {int(norms.argmax())})" if norms.size else ""


class DipoleReport(TextReport):
    """The dipole, its norm, and how far it moves with the atoms."""

    header = f"{'x':>14} {'y':>14} {'z':>14} {'norm':>14} {'max derivative':>15}"

    def row(self, frame: Frame, values: Values) -> str:
        import numpy as np

        dipole = values["global_dipole"]
        numbers = [*dipole, np.linalg.norm(dipole)]
        return " ".join(f"{x:14.8f}" for x in numbers) + f" {np.abs(values['force']).max(initial=0.0):15.6f}"

    def summary(self, frame: Frame, values: Values) -> list[str]:
        import numpy as np

        dipole, largest = values["global_dipole"], np.abs(values["force"]).max(axis=(1, 2), initial=0.0)
        atom = f" (atom {int(largest.argmax())})" if len(frame) else ""
        rms = float(np.sqrt(np.mean(values["force"] ** 2))) if len(frame) else 0.0
        return [
            f"dipole      {' '.join(f'{x:.8f}' for x in dipole)}, norm {np.linalg.norm(dipole):.8f}",
            f"derivative  max {largest.max(initial=0.0):.6f}{atom}, rms {rms:.6f} per angstrom",
        ]


class PolarReport(TextReport):
    """The polarizability, its mean, and its anisotropy."""

    header = f"{'xx':>14} {'yy':>14} {'zz':>14} {'mean':>14} {'anisotropy':>14}"

    @staticmethod
    def _invariants(tensor: Float) -> tuple[float, float]:
        """A third of the trace, and the anisotropy that Raman intensities are made of."""
        import numpy as np

        mean = float(np.trace(tensor)) / 3.0
        part = (tensor + tensor.T) / 2.0 - mean * np.eye(3)
        return mean, float(np.sqrt(1.5 * np.sum(part * part)))

    def row(self, frame: Frame, values: Values) -> str:
        tensor = values["global_polar"]
        numbers = [tensor[0, 0], tensor[1, 1], tensor[2, 2], *self._invariants(tensor)]
        return " ".join(f"{x:14.8f}" for x in numbers)

    def summary(self, frame: Frame, values: Values) -> list[str]:
        mean, anisotropy = self._invariants(values["global_polar"])
        return [
            *_rows("polar", values["global_polar"], "14.8f"),
            f"mean        {mean:.8f}, anisotropy {anisotropy:.8f}",
        ]


class DosReport(TextReport):
    """The sum of a density of states, and where it is largest."""

    header = f"{'numbers':>8} {'sum':>16} {'largest':>16} {'at':>6}"

    def row(self, frame: Frame, values: Values) -> str:
        dos = values["dos"]
        return f"{len(dos):8d} {dos.sum():16.8f} {dos.max():16.8f} {int(dos.argmax()):6d}"

    def summary(self, frame: Frame, values: Values) -> list[str]:
        dos = values["dos"]
        facts = f"{len(dos)} numbers, sum {dos.sum():.8f}, largest {dos.max():.8f} (number {int(dos.argmax())})"
        return [f"dos         {facts}", *([f"numbers     {_numbers(dos)}"] if len(dos) <= MOST_NUMBERS else [])]


class PropertyReport(TextReport):
    """The numbers of a property, the first ones if there are many."""

    def __init__(self, args: argparse.Namespace, model: Model, walk: common.Walk) -> None:
        super().__init__(args, model, walk)
        fitting = model.config["fitting_net"]
        self.name, self.width = str(fitting["property_name"]), int(fitting["task_dim"])
        names = [self.name] if self.width == 1 else [f"{self.name} {k}" for k in range(min(self.width, 3))]
        self.header = " ".join(f"{name:>16}" for name in names)

    def row(self, frame: Frame, values: Values) -> str:
        return " ".join(f"{x:16.8f}" for x in values[self.name][:3])

    def summary(self, frame: Frame, values: Values) -> list[str]:
        numbers = values[self.name]
        more = f" ... ({len(numbers)} numbers)" if len(numbers) > MOST_NUMBERS else ""
        return [f"{self.name:<11} {_numbers(numbers[:MOST_NUMBERS])}{more}"]


class PopulationReport(TextReport):
    """Electrons of both spins."""

    header = f"{'alpha':>14} {'beta':>14} {'alpha - beta':>14}"

    def row(self, frame: Frame, values: Values) -> str:
        alpha, beta = values["population"].sum(axis=0)
        return f"{alpha:14.8f} {beta:14.8f} {alpha - beta:14.8f}"

    def summary(self, frame: Frame, values: Values) -> list[str]:
        alpha, beta = values["population"].sum(axis=0)
        return [f"population  alpha {alpha:.8f}, beta {beta:.8f}, difference {alpha - beta:.8f} (sums over atoms)"]


def _numbers(values: Float) -> str:
    return " ".join(f"{x:.8f}" for x in values)


def _rows(name: str, matrix: Float, form: str) -> list[str]:
    """The rows of a matrix, the name in front of the first."""
    rows = [" ".join(f"{x:{form}}" for x in row) for row in matrix]
    return [f"{word:<11} {row}" for word, row in zip([name, "", ""], rows, strict=True)]


class JsonReport(Report):
    """Everything of every frame, for programs."""

    def __init__(self, args: argparse.Namespace, model: Model, walk: common.Walk) -> None:
        super().__init__(args, model, walk)
        facts = {"kind": model.kind, "type_map": model.type_map, "precision": model.precision, "device": model.device}
        self.document = Document({"model": {"name": common.model_name(args), **facts}}, "frames")

    def __exit__(self, *error: Any) -> None:
        self.document.__exit__(*error)

    def add(self, frame: Frame, values: Values, descriptor: Float | None) -> None:
        where, index = common.place_of(frame)
        entry = {"structure": where, "frame": index, "natoms": len(frame), "volume": frame.volume, **values}
        self.document.add(entry if descriptor is None else {**entry, "descriptor": descriptor})
        self.frames += 1

    def finish(self) -> None:
        self.document.tail["written"] = self.written()


_REPORTS: dict[str, type[TextReport]] = {
    "energy": EnergyReport,
    "spin": SpinReport,
    "dipole": DipoleReport,
    "polar": PolarReport,
    "dos": DosReport,
    "property": PropertyReport,
    "population": PopulationReport,
}


def report_for(args: argparse.Namespace, model: Model, walk: common.Walk) -> Report:
    """The report of a kind of model, or that for programs."""
    return (JsonReport if args.json else _REPORTS[model.kind])(args, model, walk)
