"""Models on a CUDA device: what Python adds to the host in C++ (src/gpu of the source tree).

:mod:`.hooks` has CuPy compile kernels and give memory, :mod:`.arrays` takes and makes arrays of the device, and
:mod:`.gpu` evaluates frames. CuPy is imported when a model is loaded and not before.
"""
