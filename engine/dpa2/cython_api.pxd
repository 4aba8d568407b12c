# DPA-2 models for Cython: what other packages cimport. Arguments, units and ownership are those of dpa2.h.
#
# The functions need no GIL, take raw pointers and raise the exceptions of dpa2. They are reached through this module when it
# is imported: an extension needs the folder of dpa2.h to compile (dpa2.installation.include_directory()), and no library.

cdef extern from "dpa2.h" nogil:
    ctypedef struct dpa2_model:
        pass

    ctypedef struct dpa2_domain:
        pass

    ctypedef struct dpa2_output:
        const char *name
        const char *unit
        int per_atom
        int ghosts
        int ndim
        const int *shape
        int size
        const char *reduction
        const char *of

    ctypedef struct dpa2_exchange:
        void *context
        int (*forward)(void *context, void *rows, int width, int size) noexcept
        int (*reverse)(void *context, void *rows, int width, int size) noexcept

    ctypedef struct dpa2_halo:
        int nsend
        const int *send
        int nreceive
        const int *receive
        int nimages
        const int *images
        const int *owners
        int on_device
        void *context
        int (*forward)(void *context, const void *sent, void *received, int width, int size) noexcept
        int (*reverse)(void *context, const void *sent, void *received, int width, int size) noexcept


# A model, freed with the object. `ptr` is never NULL and may be used by any number of threads at once, without the GIL.
cdef class ModelHandle:
    cdef dpa2_model *ptr


# A part of a system, freed with the object. `ptr` is never NULL and belongs to one thread at a time.
cdef class DomainHandle:
    cdef dpa2_domain *ptr


# As the functions of dpa2.h with dpa2_ before the name. Return 0; with an exception set, -1.

cdef int evaluate(
    const dpa2_model *model,
    int natoms,
    const double *coords,  # (natoms, 3) angstrom
    const int *types,  # (natoms)
    const double *box,  # (3, 3) angstrom, or NULL
    const int *pbc,  # (3), or NULL
    const double *fparam,  # (fparam_dim), or NULL
    const double *aparam,  # (natoms, aparam_dim), or NULL
    int threads,
    double *energy,  # out: (1) eV
    double *forces,  # out: (natoms, 3) eV/angstrom, or NULL
    double *virial,  # out: (3, 3) eV, or NULL
    double *atom_energy,  # out: (natoms) eV, or NULL
    double *atom_virial,  # out: (natoms, 3, 3) eV, or NULL
) except -1 nogil

cdef int descriptor(
    const dpa2_model *model,
    int natoms,
    const double *coords,
    const int *types,
    const double *box,
    const int *pbc,
    int threads,
    double *descriptor,  # out: (natoms, descriptor_dim)
    double *rot_mat,  # out: (natoms, g2_dim, 3), or NULL
) except -1 nogil

cdef int compute(
    const dpa2_model *model,
    int natoms,
    const double *coords,
    const int *types,
    const double *box,
    const int *pbc,
    const double *fparam,
    const double *aparam,
    int threads,
    int noutputs,
    const char *const *names,  # (noutputs) those of ModelHandle.outputs, every one once
    double *const *arrays,  # out: (noutputs)
) except -1 nogil

cdef int compute_spin(
    const dpa2_model *model,
    int natoms,
    const double *coords,
    const int *types,
    const double *box,
    const int *pbc,
    const double *fparam,
    const double *aparam,
    const double *spins,  # (natoms, 3), or NULL for models without spins
    int threads,
    int noutputs,
    const char *const *names,
    double *const *arrays,
) except -1 nogil

cdef int vjp(
    const dpa2_model *model,
    int natoms,
    const double *coords,
    const int *types,
    const double *box,
    const int *pbc,
    const double *fparam,
    const double *aparam,
    int threads,
    int nweights,
    const char *const *names,  # (nweights) "descriptor", and the output of the atoms
    const double *const *weights,  # (nweights)
    double *gradient,  # out: (natoms, 3)
    double *strain,  # out: (3, 3), or NULL
) except -1 nogil

cdef int domain_set_atoms(
    dpa2_domain *domain,
    int nlocal,
    int nall,
    const double *coords,  # (nall, 3) angstrom; used until the evaluations are done
    const int *ids,  # (nall), or NULL
    const int *numneigh,  # (nlocal)
    const int *const *firstneigh,  # (nlocal)[numneigh]
    int index_mask,
) except -1 nogil

cdef int domain_set_spins(
    dpa2_domain *domain,
    const double *spins,  # (nall, 3); used until the evaluations are done
    double reach,  # angstrom: of the lists and of the ghosts
) except -1 nogil

cdef int domain_set_halo(
    dpa2_domain *domain,
    const dpa2_halo *halo,  # for evaluations whose exchange is NULL, or NULL: none any more; its lists are copied
) except -1 nogil

cdef int domain_evaluate(
    dpa2_domain *domain,
    const dpa2_model *model,
    const int *types,  # (nall)
    int pad_type,
    const double *fparam,  # (fparam_dim), or NULL
    const double *aparam,  # (nlocal, aparam_dim), or NULL
    const dpa2_exchange *exchange,  # or NULL: there is a halo, or no ghost is a neighbour
    int threads,
    double *energy,  # out: (1) eV
    double *forces,  # out: (nall, 3) eV/angstrom, or NULL
    double *virial,  # out: (3, 3) eV, or NULL
    double *atom_energy,  # out: (nlocal) eV, or NULL
    double *atom_virial,  # out: (nall, 3, 3) eV, or NULL
) except -1 nogil

cdef int domain_descriptor(
    dpa2_domain *domain,
    const dpa2_model *model,
    const int *types,
    int pad_type,
    const dpa2_exchange *exchange,
    int threads,
    double *descriptor,  # out: (nlocal, descriptor_dim)
    double *rot_mat,  # out: (nlocal, g2_dim, 3), or NULL
) except -1 nogil

cdef int domain_compute(
    dpa2_domain *domain,
    const dpa2_model *model,
    const int *types,
    int pad_type,
    const double *fparam,
    const double *aparam,
    const dpa2_exchange *exchange,
    int threads,
    int noutputs,
    const char *const *names,
    double *const *arrays,
) except -1 nogil

cdef int domain_vjp(
    dpa2_domain *domain,
    const dpa2_model *model,
    const int *types,
    int pad_type,
    const double *fparam,
    const double *aparam,
    const dpa2_exchange *exchange,
    int threads,
    int nweights,
    const char *const *names,
    const double *const *weights,
    double *gradient,  # out: (nall, 3)
    double *strain,  # out: (3, 3), or NULL
) except -1 nogil

# What the last of these calls in this thread has to say although it succeeded: "" or a text, until the next call.
cdef const char *last_warning() noexcept nogil
