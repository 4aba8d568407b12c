"""The model on a CUDA device: launch code in Python, kernels in CUDA C++ (the folder src/cuda of the source tree).

:mod:`.device` is all that the rest knows of a device; :mod:`.engine` evaluates models. CuPy is imported when a
:class:`~dpa2.cuda.device.CupyDevice` is made and not before.
"""
