"""The errors and warnings that dpa2 raises; every one of them is a :class:`Error` or a warning class of this file."""


class Error(Exception):
    """Base class of every error raised by dpa2."""


class InputError(Error, ValueError):
    """Structures, types, boxes or parameters that cannot be evaluated; the message says which and why."""


class EvaluationError(InputError):
    """A frame of a data set that was read, but cannot be evaluated; the message names the file and the frame."""


class WorkFailedError(EvaluationError):
    """An evaluation of sound input that failed all the same, as where a worker was killed."""


class ModelFileError(Error, ValueError):
    """A model file that is corrupt, truncated, hostile or inconsistent."""


class UnsupportedModelError(ModelFileError):
    """A sound model file of something that this engine does not evaluate; the message says what is supported."""


class OutOfMemoryError(Error, MemoryError):
    """An evaluation that needs more memory than there is; the message says how much, and what to do."""


class SecondDerivativeError(Error, NotImplementedError):
    """A gradient that PyTorch or JAX were asked to differentiate again; the message says what there is instead."""


class ClosePairWarning(UserWarning):
    """Two atoms are so close that no training data knows them: coordinates in another unit, or atoms that overlap."""


class NeighborOverflowWarning(UserWarning):
    """An atom has more neighbours within the cutoff than the model's ``sel``: only the nearest ones were kept."""


class ReadingWarning(UserWarning):
    """A structure file was read with something taken for granted or left aside; the message says what."""


class TableEnergyWarning(UserWarning):
    """An atom so far from all others that deepmd-kit's formula gives it the energy of a pair table."""
