"""Structures from files: deepmd-kit's systems and (extended) XYZ by dpa2 itself, every other format through ASE.

>>> from dpa2.data import read_structures
>>> for frame in itertools.chain(*read_structures("water.xyz")):     # doctest: +SKIP
...     model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box, frame.pbc)
"""

from .deepmd_writer import DeepmdWriter
from .frames import Frame, Structures
from .reader import read_list, read_structures
from .xyz_writer import write_frame

__all__ = ["DeepmdWriter", "Frame", "Structures", "read_list", "read_structures", "write_frame"]
