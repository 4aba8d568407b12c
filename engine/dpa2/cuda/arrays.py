"""Arrays of a GPU: taken from any library by DLPack, made with CuPy, or with memory of the driver without it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError

from .hooks import CupyHooks

_CUDA, _CUDA_MANAGED = 2, 13  # DLPack: kDLCUDA and kDLCUDAManaged

#: an array of the device: cupy.ndarray, or DeviceArray of the compiled core
Array = Any


def on_device(value: Any) -> bool:
    """Whether an array says through DLPack that it lies in the memory of a CUDA device."""
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and device()[0] in (_CUDA, _CUDA_MANAGED)


class Arrays(Protocol):
    """Arrays of one device, without gaps; float64 or int32. What is queued on ``stream`` is ordered."""

    @property
    def stream(self) -> int:
        """The stream that the caller is on, as a number."""

    def take(self, value: Any, dtype: str, name: str) -> Array:
        """An array of this device or of the host as one of this device."""

    def empty(self, shape: tuple[int, ...]) -> Array:
        """float64, undefined contents."""

    def repeated(self, array: Array, n: int) -> Array:
        """(n, ...): n times the same."""

    def negative(self, array: Array) -> Array | None:
        """Minus it, of float64; None where that is not known on the device."""

    def address(self, array: Array) -> int: ...

    def host(self, array: Array) -> NDArray[Any]:
        """A copy in the memory of the host, when everything before it is done."""


def _check_device(value: Any, number: int, name: str) -> None:
    kind, index = value.__dlpack_device__()
    if kind == _CUDA and index != number:
        raise InputError(
            f"{name} is on cuda:{index}, and the model on cuda:{number}: copy the array there, or load the model with "
            f'device="cuda:{index}"'
        )


def _refused(value: Any, name: str, error: Exception) -> InputError:
    """Why an array was not handed over."""
    if getattr(value, "requires_grad", False):
        return InputError(
            f"{name} is a tensor that requires a gradient, which evaluations are no part of: pass {name}.detach(), and "
            "take gradients from the forces or from Model.vjp"
        )
    return InputError(f"{name} cannot be taken from the device: {error}")


def _check_kind(dtype: Any, wanted: str, name: str) -> None:
    """Numbers that may be converted, as for arrays of the host."""
    kinds, what = ("fiu", "real numbers") if wanted == "float64" else ("iu", "integers")
    if np.dtype(dtype).kind not in kinds:
        raise InputError(f"{name} must be an array of {what}, but has elements of type {dtype}")


class CupyArrays:
    """CuPy's, on its current stream."""

    def __init__(self, hooks: CupyHooks) -> None:
        self._xp, self._number = hooks.cupy, hooks.number

    def _device(self) -> Any:
        return self._xp.cuda.Device(self._number)

    @property
    def stream(self) -> int:
        with self._device():
            return int(self._xp.cuda.get_current_stream().ptr)

    def take(self, value: Any, dtype: str, name: str) -> Array:
        xp = self._xp
        with self._device():
            if on_device(value):
                _check_device(value, self._number, name)
                if not isinstance(value, xp.ndarray):
                    try:
                        value = xp.from_dlpack(value)  # CuPy's stream waits for what the array waits for
                    except Exception as error:  # whatever a foreign __dlpack__ raises is about this one argument
                        raise _refused(value, name, error) from error
                _check_kind(value.dtype, dtype, name)
                if dtype == "int32" and value.dtype.itemsize >= 4 and value.dtype != np.int32:
                    value = xp.clip(value, -1, np.iinfo(np.int32).max)  # a type that is none stays one
            return xp.ascontiguousarray(xp.asarray(value, dtype))

    def empty(self, shape: tuple[int, ...]) -> Array:
        with self._device():
            return self._xp.empty(shape, "float64")

    def repeated(self, array: Array, n: int) -> Array:
        with self._device():
            return self._xp.ascontiguousarray(self._xp.broadcast_to(array, (n, *array.shape)))

    def negative(self, array: Array) -> Array | None:
        with self._device():
            return -array

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def host(self, array: Array) -> NDArray[Any]:
        with self._device():
            copy: NDArray[Any] = self._xp.asnumpy(array)
            return copy


class NativeArrays:
    """Memory of the driver on the legacy default stream, where CuPy is not there: arrays must have the right type."""

    def __init__(self, number: int) -> None:
        from dpa2._native import DeviceArray

        self._native, self._number = DeviceArray, number

    @property
    def stream(self) -> int:
        return 0

    def take(self, value: Any, dtype: str, name: str) -> Array:
        if not on_device(value):
            return self._native.copy_of(self._number, np.ascontiguousarray(value, dtype))
        _check_device(value, self._number, name)
        if not isinstance(value, self._native):
            try:
                value = self._native.taken(value.__dlpack__(stream=1))
            except Exception as error:
                raise _refused(value, name, error) from error
        if value.dtype != np.dtype(dtype):
            _check_kind(value.dtype, dtype, name)
            raise InputError(f"{name} is {value.dtype} on the device: without CuPy it must be {dtype}")
        return value

    def empty(self, shape: tuple[int, ...]) -> Array:
        return self._native.empty(self._number, list(shape), "float64")

    def repeated(self, array: Array, n: int) -> Array:
        return array.repeated(n)

    def negative(self, array: Array) -> Array | None:
        return None

    def address(self, array: Array) -> int:
        return int(array.ptr)

    def host(self, array: Array) -> NDArray[Any]:
        copy: NDArray[Any] = array.numpy()
        return copy


def arrays_of(hooks: CupyHooks | None, number: int) -> Arrays:
    """The arrays that results on a device are."""
    return NativeArrays(number) if hooks is None else CupyArrays(hooks)
