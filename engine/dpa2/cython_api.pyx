# cython: language_level=3
"""The C interface of dpa2 for Cython: see cython_api.pxd for what is cimported.

From Python, :class:`ModelHandle` evaluates structures to check an installation; :class:`dpa2.Model` is the interface for
more than that.
"""

import os

import numpy as np

from .errors import Error, InputError, ModelFileError, OutOfMemoryError, UnsupportedModelError
from .inputs import to_array, to_floats
from .threads import checked_threads

__all__ = ["DomainHandle", "ModelHandle"]

cdef extern from "dpa2.h" nogil:
    ctypedef enum dpa2_status:
        DPA2_OK
        DPA2_INVALID_INPUT
        DPA2_MODEL_FILE
        DPA2_UNSUPPORTED
        DPA2_OUT_OF_MEMORY

    const char *dpa2_last_error()
    const char *dpa2_last_warning()
    dpa2_status dpa2_model_load_device(
        const char *path, const char *precision, double skin, const char *device, dpa2_model **model
    )
    dpa2_status dpa2_model_load_buffer(
        const void *data, size_t size, const char *name, const char *precision, double skin, dpa2_model **model
    )
    void dpa2_model_free(dpa2_model *model)
    int dpa2_model_ntypes(const dpa2_model *model)
    const char *dpa2_model_type_name(const dpa2_model *model, int type)
    double dpa2_model_rcut(const dpa2_model *model)
    double dpa2_model_virtual_scale(const dpa2_model *model, int type)
    int dpa2_model_descriptor_dim(const dpa2_model *model)
    int dpa2_model_g2_dim(const dpa2_model *model)
    int dpa2_model_fparam_dim(const dpa2_model *model)
    int dpa2_model_aparam_dim(const dpa2_model *model)
    int dpa2_model_exchange_width(const dpa2_model *model)
    const char *dpa2_model_precision(const dpa2_model *model)
    const char *dpa2_model_device(const dpa2_model *model)
    const char *dpa2_model_kind(const dpa2_model *model)
    int dpa2_model_noutputs(const dpa2_model *model)
    const dpa2_output *dpa2_model_output(const dpa2_model *model, int index)
    dpa2_status dpa2_evaluate(
        const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
        const double *fparam, const double *aparam, int threads,
        double *energy, double *forces, double *virial, double *atom_energy, double *atom_virial,
    )
    dpa2_status dpa2_descriptor(
        const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
        int threads, double *descriptor, double *rot_mat,
    )
    dpa2_status dpa2_domain_create(dpa2_domain **domain)
    void dpa2_domain_free(dpa2_domain *domain)
    dpa2_status dpa2_domain_set_atoms(
        dpa2_domain *domain, int nlocal, int nall, const double *coords, const int *ids, const int *numneigh,
        const int *const *firstneigh, int index_mask,
    )
    dpa2_status dpa2_domain_set_spins(dpa2_domain *domain, const double *spins, double reach)
    dpa2_status dpa2_domain_set_halo(dpa2_domain *domain, const dpa2_halo *halo)
    dpa2_status dpa2_domain_evaluate(
        dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
        const double *aparam, const dpa2_exchange *exchange, int threads,
        double *energy, double *forces, double *virial, double *atom_energy, double *atom_virial,
    )
    dpa2_status dpa2_domain_descriptor(
        dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const dpa2_exchange *exchange,
        int threads, double *descriptor, double *rot_mat,
    )
    dpa2_status dpa2_compute(
        const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
        const double *fparam, const double *aparam, int threads,
        int noutputs, const char *const *names, double *const *arrays,
    )
    dpa2_status dpa2_compute_spin(
        const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
        const double *fparam, const double *aparam, const double *spins, int threads,
        int noutputs, const char *const *names, double *const *arrays,
    )
    dpa2_status dpa2_vjp(
        const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
        const double *fparam, const double *aparam, int threads,
        int nweights, const char *const *names, const double *const *weights, double *gradient, double *strain,
    )
    dpa2_status dpa2_domain_compute(
        dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
        const double *aparam, const dpa2_exchange *exchange, int threads,
        int noutputs, const char *const *names, double *const *arrays,
    )
    dpa2_status dpa2_domain_vjp(
        dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
        const double *aparam, const dpa2_exchange *exchange, int threads,
        int nweights, const char *const *names, const double *const *weights, double *gradient, double *strain,
    )


cdef int fail(dpa2_status status) except -1 with gil:
    """The exception of a status, with the message of this thread."""
    message = dpa2_last_error().decode("utf-8", "replace")
    if status == DPA2_INVALID_INPUT:
        raise InputError(message)
    if status == DPA2_MODEL_FILE:
        raise ModelFileError(message)
    if status == DPA2_UNSUPPORTED:
        raise UnsupportedModelError(message)
    if status == DPA2_OUT_OF_MEMORY:
        raise OutOfMemoryError(message)
    raise Error(message)


cdef inline int check(dpa2_status status) except -1 nogil:
    return 0 if status == DPA2_OK else fail(status)


cdef int evaluate(
    const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
    const double *fparam, const double *aparam, int threads,
    double *energy, double *forces, double *virial, double *atom_energy, double *atom_virial,
) except -1 nogil:
    return check(dpa2_evaluate(
        model, natoms, coords, types, box, pbc, fparam, aparam, threads, energy, forces, virial, atom_energy, atom_virial
    ))


cdef int descriptor(
    const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
    int threads, double *descriptor, double *rot_mat,
) except -1 nogil:
    return check(dpa2_descriptor(model, natoms, coords, types, box, pbc, threads, descriptor, rot_mat))


cdef int domain_set_atoms(
    dpa2_domain *domain, int nlocal, int nall, const double *coords, const int *ids, const int *numneigh,
    const int *const *firstneigh, int index_mask,
) except -1 nogil:
    return check(dpa2_domain_set_atoms(domain, nlocal, nall, coords, ids, numneigh, firstneigh, index_mask))


cdef int domain_set_spins(dpa2_domain *domain, const double *spins, double reach) except -1 nogil:
    return check(dpa2_domain_set_spins(domain, spins, reach))


cdef int domain_set_halo(dpa2_domain *domain, const dpa2_halo *halo) except -1 nogil:
    return check(dpa2_domain_set_halo(domain, halo))


cdef int domain_evaluate(
    dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
    const double *aparam, const dpa2_exchange *exchange, int threads,
    double *energy, double *forces, double *virial, double *atom_energy, double *atom_virial,
) except -1 nogil:
    return check(dpa2_domain_evaluate(
        domain, model, types, pad_type, fparam, aparam, exchange, threads,
        energy, forces, virial, atom_energy, atom_virial,
    ))


cdef int domain_descriptor(
    dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const dpa2_exchange *exchange,
    int threads, double *descriptor, double *rot_mat,
) except -1 nogil:
    return check(dpa2_domain_descriptor(domain, model, types, pad_type, exchange, threads, descriptor, rot_mat))


cdef int compute(
    const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
    const double *fparam, const double *aparam, int threads,
    int noutputs, const char *const *names, double *const *arrays,
) except -1 nogil:
    return check(dpa2_compute(
        model, natoms, coords, types, box, pbc, fparam, aparam, threads, noutputs, names, arrays
    ))


cdef int compute_spin(
    const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
    const double *fparam, const double *aparam, const double *spins, int threads,
    int noutputs, const char *const *names, double *const *arrays,
) except -1 nogil:
    return check(dpa2_compute_spin(
        model, natoms, coords, types, box, pbc, fparam, aparam, spins, threads, noutputs, names, arrays
    ))


cdef int vjp(
    const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box, const int *pbc,
    const double *fparam, const double *aparam, int threads,
    int nweights, const char *const *names, const double *const *weights, double *gradient, double *strain,
) except -1 nogil:
    return check(dpa2_vjp(
        model, natoms, coords, types, box, pbc, fparam, aparam, threads, nweights, names, weights, gradient, strain
    ))


cdef int domain_compute(
    dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
    const double *aparam, const dpa2_exchange *exchange, int threads,
    int noutputs, const char *const *names, double *const *arrays,
) except -1 nogil:
    return check(dpa2_domain_compute(
        domain, model, types, pad_type, fparam, aparam, exchange, threads, noutputs, names, arrays
    ))


cdef int domain_vjp(
    dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type, const double *fparam,
    const double *aparam, const dpa2_exchange *exchange, int threads,
    int nweights, const char *const *names, const double *const *weights, double *gradient, double *strain,
) except -1 nogil:
    return check(dpa2_domain_vjp(
        domain, model, types, pad_type, fparam, aparam, exchange, threads, nweights, names, weights, gradient, strain
    ))


cdef const char *last_warning() noexcept nogil:
    return dpa2_last_warning()


cdef int load(ModelHandle handle, path, data, precision, double skin, device) except -1:
    """Reads the file at ``path``, or the bytes ``data`` that are called so, into a handle without a model."""
    cdef dpa2_model *model = NULL
    name = os.fsencode(path)
    kind = None if precision is None else str(precision).encode()
    if b"\0" in name:
        raise InputError(f"the path has a NUL character: {path!r}")
    if handle.ptr is not NULL:
        raise InputError("the handle has a model already")
    where = str(device).encode()
    if b"\0" in where:
        raise InputError(f"device has a NUL character: {device!r}")
    cdef const char *c_name = name
    cdef const char *c_device = where
    cdef const char *c_precision = NULL
    cdef const char *c_data = NULL
    cdef size_t size = 0
    cdef dpa2_status status
    if kind is not None:
        c_precision = kind
    if data is not None:
        c_data = data
        size = len(data)
    with nogil:
        if c_data is NULL:
            status = dpa2_model_load_device(c_name, c_precision, skin, c_device, &model)
        else:
            status = dpa2_model_load_buffer(c_data, size, c_name, c_precision, skin, &model)
    check(status)
    handle.ptr = model
    return 0


cdef class ModelHandle:
    """A model in the native format (``.safetensors``), for extensions that cimport this module.

    ``path`` names the file; ``precision`` is "float64", "float32" or None for the file's own; ``skin``, in angstrom, is
    that of :func:`dpa2.load`, and so is ``device``, "cpu", "cuda" or "cuda:N". Raises :class:`dpa2.ModelFileError` for a
    file that is missing or corrupt, and :class:`dpa2.InputError` for a precision, skin or device that there is not.
    """

    def __init__(self, path, precision=None, double skin=0.0, device="cpu"):
        load(self, path, None, precision, skin, device)

    @staticmethod
    def from_bytes(data, name="model", precision=None, double skin=0.0):
        """A model from the bytes of such a file; ``name`` stands for it in messages."""
        cdef ModelHandle handle = ModelHandle.__new__(ModelHandle)
        load(handle, name, bytes(data), precision, skin, "cpu")
        return handle

    def __dealloc__(self):
        dpa2_model_free(self.ptr)

    @property
    def type_map(self):
        """The names of the atom types, in the order of their indices."""
        return tuple(dpa2_model_type_name(self.ptr, k).decode() for k in range(dpa2_model_ntypes(self.ptr)))

    @property
    def precision(self):
        """"float64" or "float32"."""
        cdef const char *name = dpa2_model_precision(self.ptr)
        return "" if name is NULL else name.decode()

    @property
    def device(self):
        """"cpu", or "cuda:N"."""
        cdef const char *name = dpa2_model_device(self.ptr)
        return "" if name is NULL else name.decode()

    @property
    def kind(self):
        """What the outputs are: "energy", "spin", "dipole", "polar", "dos", "property" or "population"."""
        cdef const char *name = dpa2_model_kind(self.ptr)
        return "" if name is NULL else name.decode()

    @property
    def outputs(self):
        """The names of the outputs that ``compute`` can be asked for, and the shapes of their values."""
        cdef const dpa2_output *output
        found = {}
        for k in range(dpa2_model_noutputs(self.ptr)):
            output = dpa2_model_output(self.ptr, k)
            found[output.name.decode()] = tuple(output.shape[axis] for axis in range(output.ndim))
        return found

    @property
    def virtual_scale(self):
        """Of a spin model: per type, how far a virtual atom is from its own, angstrom per unit of spin; else zeros."""
        return tuple(dpa2_model_virtual_scale(self.ptr, k) for k in range(dpa2_model_ntypes(self.ptr)))

    @property
    def rcut(self):
        """The largest cutoff, angstrom."""
        return dpa2_model_rcut(self.ptr)

    @property
    def descriptor_dim(self):
        """Width of the descriptor of an atom."""
        return dpa2_model_descriptor_dim(self.ptr)

    @property
    def g2_dim(self):
        """Width of the rotation matrices."""
        return dpa2_model_g2_dim(self.ptr)

    @property
    def fparam_dim(self):
        """Number of frame parameters."""
        return dpa2_model_fparam_dim(self.ptr)

    @property
    def aparam_dim(self):
        """Number of parameters per atom."""
        return dpa2_model_aparam_dim(self.ptr)

    @property
    def exchange_width(self):
        """The widest row that an exchange is asked to send, in numbers of the model's precision."""
        return dpa2_model_exchange_width(self.ptr)

    def evaluate(self, coords, types, box=None, threads=1):
        """Energy (eV), forces (natoms, 3) in eV/angstrom and virial (3, 3) in eV of one structure; of energy models.

        ``coords`` is (natoms, 3) in angstrom, ``types`` (natoms,) indices into ``type_map``, ``box`` None or (3, 3) cell
        vectors as rows. Raises :class:`dpa2.InputError`. For a quick check: extensions call ``evaluate`` of the ``.pxd``.
        """
        x, t, b = structure(coords, types, box, self.type_map)
        cdef int nthreads = checked_threads(threads)
        forces, virial = np.empty_like(x), np.empty((3, 3))
        cdef double energy = 0.0
        cdef int natoms = len(t)
        # addresses of arrays that live until the end of the call
        cdef size_t x_data = address(x), t_data = address(t), b_data = address(b)
        cdef size_t f_data = address(forces), v_data = address(virial)
        with nogil:
            evaluate(
                self.ptr, natoms, <const double *>x_data, <const int *>t_data, <const double *>b_data, NULL, NULL, NULL,
                nthreads, &energy, <double *>f_data, <double *>v_data, NULL, NULL,
            )
        return energy, forces, virial

    def compute(self, coords, types, box=None, names=None, fparam=None, aparam=None, threads=1, spin=None):
        """Outputs of one structure by name, in the shapes that ``outputs`` has, of atoms with an axis in front.

        ``names`` are some of ``outputs``; None: all that the model has but the descriptor and its rotation matrices.
        ``fparam`` is (fparam_dim,), ``aparam`` (natoms, aparam_dim), and ``spin`` (natoms, 3), of spin models; the other
        arguments are as for ``evaluate``.
        Raises :class:`dpa2.InputError`. For a quick check: extensions call ``compute`` of the ``.pxd``.
        """
        x, t, b = structure(coords, types, box, self.type_map)
        cdef int nthreads = checked_threads(threads)
        cdef int natoms = len(t)
        frame = parameters(fparam, "fparam", (self.fparam_dim,))
        atoms = parameters(aparam, "aparam", (natoms, self.aparam_dim))
        spins = parameters(spin, "spin", (natoms, 3))
        known = {}
        cdef const dpa2_output *output
        for k in range(dpa2_model_noutputs(self.ptr)):
            output = dpa2_model_output(self.ptr, k)
            value = tuple(output.shape[axis] for axis in range(output.ndim))
            known[output.name.decode()] = (natoms, *value) if output.per_atom else value
        if names is None:
            names = [name for name in known if name not in ("descriptor", "rot_mat")]
        elif isinstance(names, str) or any(str(name) not in known for name in names):
            raise InputError(f"names must be a list of outputs; there are {', '.join(known)}, got {names!r}")
        found = {name: np.empty(known[name]) for name in names}
        words = [name.encode() for name in found]
        # addresses of arrays, and of words, that live until the end of the call
        places = np.array([address(array) for array in found.values()], dtype=np.uintp)
        letters = np.array([begin(word) for word in words], dtype=np.uintp)
        cdef size_t places_data = address(places), letters_data = address(letters)
        cdef int count = len(words)
        cdef size_t x_data = address(x), t_data = address(t), b_data = address(b)
        cdef size_t frame_data = address(frame), atoms_data = address(atoms), spins_data = address(spins)
        with nogil:
            compute_spin(
                self.ptr, natoms, <const double *>x_data, <const int *>t_data, <const double *>b_data, NULL,
                <const double *>frame_data, <const double *>atoms_data, <const double *>spins_data, nthreads,
                count, <const char *const *>letters_data, <double *const *>places_data,
            )
        return found


def structure(coords, types, box, type_map):
    """Arrays of one structure without gaps, of the types that the interface takes."""
    x, b = to_floats(coords, "coords"), None if box is None else to_floats(box, "box")
    kinds = to_array(types, "types")
    if x.ndim != 2 or x.shape[1] != 3 or kinds.shape != x.shape[:1] or (b is not None and b.shape != (3, 3)):
        raise InputError("coords must be (natoms, 3), types (natoms,), and box (3, 3) or None")
    limits = np.iinfo(np.intc)
    if kinds.size and (kinds.dtype.kind not in "iu" or kinds.max() > limits.max or kinds.min() < limits.min):
        raise InputError(f"types must be indices into {type_map}")
    return x, np.ascontiguousarray(kinds, dtype=np.intc), b


def parameters(value, name, shape):
    """Frame or atomic parameters in this shape; None where there are none."""
    if value is None:
        return None
    array = to_floats(value, name)
    if array.shape != shape:
        raise InputError(f"{name} must have shape {shape}, got {array.shape}")
    return array


cdef size_t begin(bytes word) except 0:
    """Where the letters of a word are."""
    cdef const char *letters = word
    return <size_t>letters


cdef size_t address(array) except? 0:
    """Where the numbers of an array are; 0, for NULL, without one."""
    return 0 if array is None else array.ctypes.data


cdef class DomainHandle:
    """A part of a system (``dpa2_domain``), for extensions that cimport this module."""

    def __cinit__(self):
        check(dpa2_domain_create(&self.ptr))

    def __dealloc__(self):
        dpa2_domain_free(self.ptr)
