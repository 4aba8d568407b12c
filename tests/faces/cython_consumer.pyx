# cython: language_level=3
"""An extension outside of dpa2 that uses every function of dpa2.cython_api; test_cython.py builds and runs it."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from dpa2.cython_api cimport (
    DomainHandle,
    ModelHandle,
    compute,
    compute_spin,
    descriptor,
    domain_compute,
    domain_descriptor,
    domain_evaluate,
    domain_set_atoms,
    domain_set_halo,
    domain_set_spins,
    domain_vjp,
    dpa2_exchange,
    dpa2_halo,
    evaluate,
    last_warning,
    vjp,
)


cdef struct Context:
    int nlocal
    int nall
    const int *owner
    int failure
    int calls


cdef int forward(void *context, void *rows, int width, int size) noexcept nogil:
    cdef Context *c = <Context *>context
    cdef double *x = <double *>rows
    cdef int g, k
    c.calls += 1
    for g in range(c.nlocal, c.nall):
        for k in range(width):
            x[g * width + k] = x[c.owner[g] * width + k]
    return c.failure if size == 8 else -1


cdef int reverse(void *context, void *rows, int width, int size) noexcept nogil:
    cdef Context *c = <Context *>context
    cdef double *x = <double *>rows
    cdef int g, k
    c.calls += 1
    for g in range(c.nlocal, c.nall):
        for k in range(width):
            x[c.owner[g] * width + k] += x[g * width + k]
    return 0 if size == 8 else -1


def whole(
    ModelHandle model, const double[:, ::1] coords, const int[::1] types, const double[:, ::1] box,
    double[:, ::1] forces, double[:, ::1] virial, double[:, ::1] rows,
):
    """Energy; forces (natoms, 3), virial (3, 3) and descriptors are filled."""
    cdef int natoms = types.shape[0]
    cdef double energy = 0.0
    with nogil:
        evaluate(
            model.ptr, natoms, &coords[0, 0], &types[0], &box[0, 0], NULL, NULL, NULL, 1,
            &energy, &forces[0, 0], &virial[0, 0], NULL, NULL,
        )
        descriptor(model.ptr, natoms, &coords[0, 0], &types[0], &box[0, 0], NULL, 1, &rows[0, 0], NULL)
    return energy, last_warning().decode()


def named(
    ModelHandle model, const double[:, ::1] coords, const int[::1] types, const double[:, ::1] box,
    const double[::1] weights, double[:, ::1] forces, double[:, ::1] gradient, double[:, ::1] strain,
):
    """The energy, with forces by name; and the gradient of the energies with weights."""
    cdef int natoms = types.shape[0]
    cdef double energy = 0.0
    cdef const char **names = [b"energy", b"force"]
    cdef double **arrays = [&energy, &forces[0, 0]]
    cdef const char **weighted = [b"atom_energy"]
    cdef const double **rows = [&weights[0]]
    with nogil:
        compute(model.ptr, natoms, &coords[0, 0], &types[0], &box[0, 0], NULL, NULL, NULL, 1, 2, names, arrays)
        vjp(
            model.ptr, natoms, &coords[0, 0], &types[0], &box[0, 0], NULL, NULL, NULL, 1, 1, weighted, rows,
            &gradient[0, 0], &strain[0, 0],
        )
    return energy


def named_parts(
    ModelHandle model, DomainHandle domain, const double[:, ::1] coords, const int[::1] types, const int[:, ::1] lists,
    double[::1] energies, double[:, ::1] gradient,
):
    """The same for atoms without ghosts, in a domain: energies of atoms, and the gradient with these as weights."""
    cdef int natoms = types.shape[0]
    cdef int i
    cdef int *numneigh = <int *>malloc(natoms * sizeof(int))
    cdef const int **firstneigh = <const int **>malloc(natoms * sizeof(int *))
    cdef const char **names = [b"atom_energy"]
    cdef double **arrays = [&energies[0]]
    cdef const double **weights = [&energies[0]]
    try:
        for i in range(natoms):
            numneigh[i] = lists.shape[1]
            firstneigh[i] = &lists[i, 0]
        with nogil:
            domain_set_atoms(domain.ptr, natoms, natoms, &coords[0, 0], NULL, numneigh, firstneigh, -1)
            domain_compute(domain.ptr, model.ptr, &types[0], types[0], NULL, NULL, NULL, 1, 1, names, arrays)
            domain_vjp(
                domain.ptr, model.ptr, &types[0], types[0], NULL, NULL, NULL, 1, 1, names, weights,
                &gradient[0, 0], NULL,
            )
    finally:
        free(numneigh)
        free(firstneigh)


def spins(
    ModelHandle model, DomainHandle domain, const double[:, ::1] coords, const int[::1] types, const double[:, ::1] spins,
    const int[:, ::1] lists, double reach, double[:, ::1] forces, double[:, ::1] magnetic, double[:, ::1] of_part,
):
    """Energy of a spin model, forces and magnetic forces of atoms in open space; the latter again in a domain."""
    cdef int natoms = types.shape[0]
    cdef int i
    cdef int *numneigh = <int *>malloc(natoms * sizeof(int))
    cdef const int **firstneigh = <const int **>malloc(natoms * sizeof(int *))
    cdef double energy = 0.0
    cdef const char **names = [b"energy", b"force", b"force_mag"]
    cdef double **arrays = [&energy, &forces[0, 0], &magnetic[0, 0]]
    cdef const char **alone = [b"force_mag"]
    cdef double **rows = [&of_part[0, 0]]
    try:
        for i in range(natoms):
            numneigh[i] = lists.shape[1]
            firstneigh[i] = &lists[i, 0]
        with nogil:
            compute_spin(
                model.ptr, natoms, &coords[0, 0], &types[0], NULL, NULL, NULL, NULL, &spins[0, 0], 1, 3, names, arrays
            )
            domain_set_atoms(domain.ptr, natoms, natoms, &coords[0, 0], NULL, numneigh, firstneigh, -1)
            domain_set_spins(domain.ptr, &spins[0, 0], reach)
            domain_compute(domain.ptr, model.ptr, &types[0], types[0], NULL, NULL, NULL, 1, 1, alone, rows)
    finally:
        free(numneigh)
        free(firstneigh)
    return energy


def parts(
    ModelHandle model, DomainHandle domain, const double[:, ::1] coords, const int[::1] types, const int[::1] owner,
    lists, int nlocal, double[:, ::1] forces, double[:, ::1] virial, double[:, ::1] rows, int failure=0,
):
    """The same for atoms with ghosts: forces (nall, 3) are filled, and the number of exchanges is returned."""
    cdef int nall = types.shape[0]
    cdef int i
    cdef const int[::1] one
    cdef int *numneigh = <int *>malloc((nlocal + 1) * sizeof(int))
    cdef const int **firstneigh = <const int **>malloc((nlocal + 1) * sizeof(int *))
    cdef Context context = Context(nlocal, nall, &owner[0], failure, 0)
    cdef dpa2_exchange exchange
    cdef double energy = 0.0
    exchange.context = &context
    exchange.forward = forward
    exchange.reverse = reverse
    try:
        for i in range(nlocal):
            one = lists[i]
            numneigh[i] = one.shape[0]
            firstneigh[i] = &one[0]
        with nogil:
            domain_set_atoms(domain.ptr, nlocal, nall, &coords[0, 0], &owner[0], numneigh, firstneigh, -1)
            domain_evaluate(
                domain.ptr, model.ptr, &types[0], types[0], NULL, NULL, &exchange, 1,
                &energy, &forces[0, 0], &virial[0, 0], NULL, NULL,
            )
            domain_descriptor(domain.ptr, model.ptr, &types[0], types[0], &exchange, 1, &rows[0, 0], NULL)
    finally:
        free(numneigh)
        free(firstneigh)
    return energy, context.calls


cdef int carry(void *context, const void *sent, void *received, int width, int size) noexcept nogil:
    """Packed rows from this process to itself."""
    cdef Context *c = <Context *>context
    c.calls += 1
    memcpy(received, sent, <size_t>c.nall * width * size)
    return c.failure


def halo(
    ModelHandle model, DomainHandle domain, const double[:, ::1] coords, const int[::1] types, lists, int nlocal,
    const int[::1] send, const int[::1] receive, const int[::1] images, const int[::1] owners,
    double[:, ::1] forces, int failure=0, bint again=False,
):
    """The energy of atoms with ghosts, of which some are sent and received; forces (nall, 3) are filled. ``again``: without
    the halo after all."""
    cdef int i
    cdef const int[::1] one
    cdef int *numneigh = <int *>malloc((nlocal + 1) * sizeof(int))
    cdef const int **firstneigh = <const int **>malloc((nlocal + 1) * sizeof(int *))
    cdef Context context = Context(nlocal, send.shape[0], NULL, failure, 0)
    cdef dpa2_halo table
    cdef double energy = 0.0
    table.nsend, table.nreceive, table.nimages = send.shape[0], receive.shape[0], images.shape[0]
    table.send, table.receive, table.images, table.owners = &send[0], &receive[0], &images[0], &owners[0]
    table.on_device = 0
    table.context = &context
    table.forward = table.reverse = carry
    try:
        for i in range(nlocal):
            one = lists[i]
            numneigh[i] = one.shape[0]
            firstneigh[i] = &one[0]
        with nogil:
            domain_set_atoms(domain.ptr, nlocal, types.shape[0], &coords[0, 0], NULL, numneigh, firstneigh, -1)
            domain_set_halo(domain.ptr, &table)
            if again:
                domain_set_halo(domain.ptr, NULL)
            domain_evaluate(
                domain.ptr, model.ptr, &types[0], types[0], NULL, NULL, NULL, 1, &energy, &forces[0, 0], NULL, NULL, NULL
            )
    finally:
        free(numneigh)
        free(firstneigh)
    return energy, context.calls
