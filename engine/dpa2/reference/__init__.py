"""The DPA-2 model in NumPy: docs/theory.md as code.

One file per operation, under the names of the native kernels, with the formula in the docstring. Written to be read and
to be compared against, not to be fast: a few tens of atoms for forces, a few hundred for energies and descriptors.
"""

from .evaluate import ReferenceModel
from .spin import SpinReference

__all__ = ["ReferenceModel", "SpinReference"]
