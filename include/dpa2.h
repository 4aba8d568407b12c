/* dpa2: DPA-2 interatomic potentials. The C interface.
 *
 * Units: lengths in angstrom, energies in eV, forces in eV/angstrom, virials in eV (minus the derivative of the energy with
 * respect to strain; row-major, the first index is the component of the force).
 *
 * Every function that can fail returns a status and keeps a message for the calling thread; nothing aborts, and nothing is
 * thrown. Arrays are the caller's, dense and row-major; their shapes stand in the comments. A pointer of a result that is NULL
 * is a result that is not computed.
 *
 * Models are immutable: any number of threads may evaluate one model at once; on a GPU they take turns. A domain belongs to one
 * thread at a time.
 *
 * Link with what `python -m dpa2 --cflags --libs` or `pkg-config --cflags --libs dpa2` prints.
 */
#ifndef DPA2_H
#define DPA2_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DPA2_API __attribute__((visibility("default")))
#else
#define DPA2_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface: grows when something is added or changed. @since 3 stands for version 3. */
#define DPA2_ABI_VERSION 6

/* @since 1 */
typedef enum dpa2_status {
  DPA2_OK = 0,
  DPA2_INVALID_INPUT = 1, /* coordinates, types, box, lists, parameters, a NULL pointer; results beyond all numbers */
  DPA2_MODEL_FILE = 2,    /* the model file is missing, corrupt or inconsistent */
  DPA2_UNSUPPORTED = 3,   /* a valid file of a kind that this library does not evaluate */
  DPA2_OUT_OF_MEMORY = 4,
  DPA2_INTERNAL = 5,      /* a broken promise inside of the library: please report it */
  DPA2_EXCHANGE = 6       /* a communication callback returned something other than 0 */
} dpa2_status;

/* ---- the library ------------------------------------------------------------------------------------------------------ */

/* DPA2_ABI_VERSION of the library that is loaded: at least that of the header a program was compiled with. @since 1 */
DPA2_API int dpa2_abi_version(void);

/* The version of the package, as "1.2.3". @since 1 */
DPA2_API const char *dpa2_version(void);

/* The instruction-set level that the kernels run at: "v2", "v3", "v4", or "base" where the processor is no x86-64. The
 * environment variable DPA2_ISA, read at the first use, chooses a lower one; "" where it names none. @since 1 */
DPA2_API const char *dpa2_isa(void);

/* What went wrong in the last call of this thread that failed; "" if none did. Valid until the next call of this thread.
 * @since 1 */
DPA2_API const char *dpa2_last_error(void);

/* What an evaluation has to say although it succeeded. @since 1 */
typedef enum dpa2_warning {
  DPA2_WARNING_OVERFLOW = 1,   /* atoms with more neighbours than the model's sel, of which only the nearest are kept */
  DPA2_WARNING_CLOSE_PAIR = 2, /* a pair closer than half of the least distance in the model's training data where that is known,
                                  else than 0.5 angstrom: coordinates in another unit than angstrom, or atoms that overlap */
  DPA2_WARNING_CLAMP = 3       /* zbl: atoms so far from their nearest neighbour that their energy is the pair table's. @since 4 */
} dpa2_warning;

/* All that the last evaluation of this thread has to say, or the last loading of a model on a GPU, one on a line; "" where there is
 * nothing. Valid until the next call of this thread. @since 1 */
DPA2_API const char *dpa2_last_warning(void);

/* The same of one kind. @since 1 */
DPA2_API const char *dpa2_last_warning_of(dpa2_warning kind);

/* ---- models ----------------------------------------------------------------------------------------------------------- */

/* @since 1 */
typedef struct dpa2_model dpa2_model;

/* Reads a model in the native format (.safetensors; `dpa2 convert` makes it from a deepmd-kit file). Nothing in the file is
 * executed or trusted.
 *   path       name of the file
 *   precision  "float64", "float32", or NULL for the file's own
 *   skin       angstrom; with more than 0, dpa2_evaluate reuses neighbour lists until an atom has moved by skin / 2; the
 *              results are the same bits
 *   model      out: free it with dpa2_model_free; NULL where loading failed
 * @since 1 */
DPA2_API dpa2_status dpa2_model_load(const char *path, const char *precision, double skin, dpa2_model **model);

/* The same from the `size` bytes of such a file in memory, which are not needed afterwards: one process reads, and sends to
 * the others. `name` stands for the file in messages. @since 1 */
DPA2_API dpa2_status dpa2_model_load_buffer(const void *data, size_t size, const char *name, const char *precision, double skin,
                                            dpa2_model **model);

/* As dpa2_model_load, on a device. On a GPU the functions for whole systems take and fill the same arrays, of the host, with the
 * same units; `threads` and skin mean nothing. A domain does not use the caller's lists then: neighbours are all rows within
 * the cutoff, found on the GPU, and ids must not be negative. The GPU needs the driver's library, and NVRTC for kernels that the
 * package does not bring; both are looked for when the first such model is loaded. Any thread may evaluate the model: the context
 * of the device is current during a call, and what was current before it is afterwards.
 *   device     "cpu" or NULL; "cuda", the first GPU; "cuda:N", that of number N among those which CUDA_VISIBLE_DEVICES shows
 * @since 3 */
DPA2_API dpa2_status dpa2_model_load_device(const char *path, const char *precision, double skin, const char *device,
                                            dpa2_model **model);

/* As dpa2_model_load_buffer, on a device, with `device` as for dpa2_model_load_device. @since 6 */
DPA2_API dpa2_status dpa2_model_load_buffer_device(const void *data, size_t size, const char *name, const char *precision, double skin,
                                                   const char *device, dpa2_model **model);

/* How many GPUs CUDA shows to this process. Where there is no driver, the message says what is missing.
 *   count      out: (1), 0 where the call fails
 * @since 6 */
DPA2_API dpa2_status dpa2_device_count(int *count);

/* NULL is allowed. Domains that have evaluated the model keep what they need of it. @since 1 */
DPA2_API void dpa2_model_free(dpa2_model *model);

/* The questions to a model, from here to dpa2_model_memory_estimate, are answered with 0, or NULL, or -1 where these could be
 * answers, if the model is NULL. */

/* Number of types in the type map. @since 1 */
DPA2_API int dpa2_model_ntypes(const dpa2_model *model);

/* The element symbol of a type, or NULL where there is none. Valid as long as the model. @since 1 */
DPA2_API const char *dpa2_model_type_name(const dpa2_model *model, int type);

/* The type of an element symbol, or -1. @since 1 */
DPA2_API int dpa2_model_type_index(const dpa2_model *model, const char *symbol);

/* The largest cutoff, angstrom: how far ghosts and neighbour lists have to reach. @since 1 */
DPA2_API double dpa2_model_rcut(const dpa2_model *model);

/* Width of the descriptor of an atom. @since 1 */
DPA2_API int dpa2_model_descriptor_dim(const dpa2_model *model);

/* Width of the rotation matrices of dpa2_descriptor: (natoms, g2_dim, 3). @since 1 */
DPA2_API int dpa2_model_g2_dim(const dpa2_model *model);

/* Number of frame parameters. @since 1 */
DPA2_API int dpa2_model_fparam_dim(const dpa2_model *model);

/* Number of atomic parameters of each atom. @since 1 */
DPA2_API int dpa2_model_aparam_dim(const dpa2_model *model);

/* 1 if fparam may be NULL although the model has frame parameters. @since 1 */
DPA2_API int dpa2_model_has_default_fparam(const dpa2_model *model);

/* "float64" or "float32". @since 1 */
DPA2_API const char *dpa2_model_precision(const dpa2_model *model);

/* "cpu", or "cuda:N". Valid as long as the model. @since 3 */
DPA2_API const char *dpa2_model_device(const dpa2_model *model);

/* The widest row, in numbers of the model's precision, that an exchange is asked to send. @since 1 */
DPA2_API int dpa2_model_exchange_width(const dpa2_model *model);

/* The configuration as JSON text. Valid as long as the model. @since 1 */
DPA2_API const char *dpa2_model_config(const dpa2_model *model);

/* Bytes that a first evaluation with forces takes: natoms atoms with on average `neighbors` others within the cutoff, with
 * atomic virials if `atomic` is not 0. Of a model on a GPU they are those of the GPU, constants and buffers, without CUDA's
 * context and compiled kernels. INT64_MAX stands for more than that; less than 0 for senseless arguments, and for more atoms than
 * a GPU can number. @since 1 */
DPA2_API int64_t dpa2_model_memory_estimate(const dpa2_model *model, int64_t natoms, double neighbors, int atomic, int threads);

/* What the outputs of the model are: "energy", also of several models in one, "spin" (energies that depend on spins, @since 5),
 * "dipole", "polar", "dos", "property" or "population". NULL if the model is NULL. @since 2 */
DPA2_API const char *dpa2_model_kind(const dpa2_model *model);

/* Of a model of the kind "spin": how far the virtual atom that stands for its spin is from an atom of this type, angstrom per unit of
 * spin. 0 for types without spins, which there are not, and for models of other kinds. deepmd-kit's mask_mag is whether it is above
 * 0. @since 5 */
DPA2_API double dpa2_model_virtual_scale(const dpa2_model *model, int type);

/* How far neighbour lists and ghosts of a domain with these atoms have to reach, angstrom: dpa2_model_rcut, and of a model of the
 * kind "spin" twice the distance of the farthest virtual atom from its own as well. The largest answer of all processes counts.
 * Spins that only turn do not change it.
 *   types   (natoms)
 *   spins   (natoms, 3), or NULL for models of other kinds
 * -1 for senseless arguments. @since 5 */
DPA2_API double dpa2_model_reach(const dpa2_model *model, int natoms, const int *types, const double *spins);

/* An output, under deepmd-kit's name. Later versions may add members at the end. @since 2 */
typedef struct dpa2_output {
  const char *name;
  const char *unit;      /* "" for a number without one, or in the unit of the data that the model was trained on */
  int per_atom;          /* 1: a value for every atom; 0: one for the frame */
  int ghosts;            /* 1: dpa2_domain_compute fills rows of ghosts as well, to be added to the owners' by the caller */
  int ndim;              /* of a value */
  const int *shape;      /* (ndim) */
  int size;              /* numbers in a value: the product of shape */
  const char *reduction; /* "sum" or "mean" if a frame's value is that of the atoms' values of the output `of`; else "" */
  const char *of;        /* the output that this one is a reduction or a derivative of; "" if of its own */
} dpa2_output;

/* Number of outputs that dpa2_compute can be asked for. @since 2 */
DPA2_API int dpa2_model_noutputs(const dpa2_model *model);

/* The output of a number from 0 on, or NULL where there is none. Valid as long as the model. @since 2 */
DPA2_API const dpa2_output *dpa2_model_output(const dpa2_model *model, int index);

/* ---- whole systems ---------------------------------------------------------------------------------------------------- */

/* Energy, forces and virial of one structure, with the library's own neighbour search. For models of the kind "energy"; others are
 * invalid input, and dpa2_compute has their outputs.
 *   natoms       number of atoms
 *   coords       (natoms, 3) angstrom, inside of the box or not, none beyond 1e7
 *   types        (natoms) indices into the type map; less than 0: an atom that takes no part
 *   box          (3, 3) cell vectors as rows, angstrom; NULL: open boundaries
 *   pbc          (3) 0 or 1 per cell vector; NULL: periodic along all of them if there is a box
 *   fparam       (fparam_dim), or NULL where the model has none or a default
 *   aparam       (natoms, aparam_dim), or NULL where the model has none
 *   threads      threads to use; less than 1 means 1, more than 4096 is an error. Where the system has no more threads, fewer are
 *                used: the results are the same
 *   energy       out: (1) eV
 *   forces       out: (natoms, 3) eV/angstrom, or NULL; without it virial and atom_virial must be NULL as well
 *   virial       out: (3, 3) eV, or NULL
 *   atom_energy  out: (natoms) eV, or NULL
 *   atom_virial  out: (natoms, 3, 3) eV, or NULL: every pair's share goes by halves to its two atoms; the sum is the virial
 * @since 1 */
DPA2_API dpa2_status dpa2_evaluate(const dpa2_model *model, int natoms, const double *coords, const int *types,
                                   const double *box, const int *pbc, const double *fparam, const double *aparam, int threads,
                                   double *energy, double *forces, double *virial, double *atom_energy, double *atom_virial);

/* Descriptors, and rotation matrices if asked for.
 *   descriptor   out: (natoms, descriptor_dim)
 *   rot_mat      out: (natoms, g2_dim, 3), or NULL
 * and the rest as for dpa2_evaluate. @since 1 */
DPA2_API dpa2_status dpa2_descriptor(const dpa2_model *model, int natoms, const double *coords, const int *types,
                                     const double *box, const int *pbc, int threads, double *descriptor, double *rot_mat);

/* Outputs by name, those of dpa2_model_output: for a model of the kind "energy"
 *   "energy"         (1) eV
 *   "atom_energy"    (natoms) eV
 *   "force"          (natoms, 3) eV/angstrom; without it "virial" and "atom_virial" must not be asked for
 *   "virial"         (3, 3) eV
 *   "atom_virial"    (natoms, 3, 3) eV
 * of the kind "spin", with dpa2_compute_spin, the same, all at the spins that are given, and
 *   "force_mag"      (natoms, 3) eV per unit of spin: minus the derivative of the energy with respect to the spins
 * of the kind "dipole", in the unit of its training data
 *   "global_dipole"  (3), the sum of "dipole"
 *   "dipole"         (natoms, 3)
 *   "force"          (natoms, 3, 3), per angstrom: minus the derivatives of "global_dipole", the component before the
 *                    direction; without it "virial" and "atom_virial" must not be asked for
 *   "virial"         (3, 3, 3): of every component, as that of an energy
 *   "atom_virial"    (natoms, 3, 3, 3)
 * of the kind "polar", in the unit of its training data
 *   "global_polar"   (3, 3), the sum of "polar"
 *   "polar"          (natoms, 3, 3)
 * of the kind "dos"
 *   "dos"            (n) states/eV, the sum of "atom_dos"
 *   "atom_dos"       (natoms, n) states/eV
 * of the kind "property", under the name of the property, say "gap", in the unit of its training data
 *   "gap"            (n), the sum of "atom_gap" or, as `reduction` says, the mean over the atoms that count: those that are
 *                    neither virtual nor of a type that the model excludes. Where none counts the mean is not a number
 *   "atom_gap"       (natoms, n), zero for atoms that do not count
 * of the kind "population"
 *   "population"     (natoms, 2) electrons of either spin
 * and of all kinds
 *   "descriptor"     (natoms, descriptor_dim)
 *   "rot_mat"        (natoms, g2_dim, 3)
 * The numbers are those of dpa2_evaluate and dpa2_descriptor. Descriptors besides other outputs are a pass of their own.
 *   noutputs     how many are asked for, at least one
 *   names        (noutputs) every name once
 *   arrays       out: (noutputs) where they go; NULL only where there is no number to write
 * and the rest as for dpa2_evaluate. @since 2 */
DPA2_API dpa2_status dpa2_compute(const dpa2_model *model, int natoms, const double *coords, const int *types,
                                  const double *box, const int *pbc, const double *fparam, const double *aparam, int threads,
                                  int noutputs, const char *const *names, double *const *arrays);

/* As dpa2_compute, of models of the kind "spin", which depend on spins. "virial" and "atom_virial" are derivatives at fixed spins, and
 * not symmetric; the descriptors are those of the atoms, not of the virtual ones.
 *   spins        (natoms, 3), in the unit of the data that the model was trained on; numbers of types without spins have to be
 *                finite, and are not used. NULL for models of other kinds
 * @since 5 */
DPA2_API dpa2_status dpa2_compute_spin(const dpa2_model *model, int natoms, const double *coords, const int *types,
                                       const double *box, const int *pbc, const double *fparam, const double *aparam,
                                       const double *spins, int threads, int noutputs, const char *const *names,
                                       double *const *arrays);

/* The gradient of a weighted sum of outputs (a vector-Jacobian product), at the price of an evaluation with forces:
 *   S = sum_i atom_energy[i] w[i] + sum_i sum_c descriptor[i][c] g[i][c]
 * of a model of the kind "energy"; of others with "dipole", "polar", "atom_dos", "atom_" and the property's name, or "population".
 *   nweights     how many outputs have weights, at least one; the others do not count
 *   names        (nweights) such an output, "descriptor" or "rot_mat", every name once
 *   weights      (nweights) the weights of every number of these outputs: (natoms, size), (natoms, descriptor_dim), (natoms, g2_dim, 3)
 *   fparam, aparam  not looked at if the output of atoms has no weights
 *   gradient     out: (natoms, 3) the derivative of S with respect to coords
 *   strain       out: (3, 3), or NULL: the derivative of S with respect to a strain e that moves box and coordinates, from x[k]
 *                to x[k] + sum_l e[k][l] x[l]
 * With the weight 1 for every atom's energy these are minus the forces and minus the virial. The rest is as for dpa2_evaluate.
 * @since 2 */
DPA2_API dpa2_status dpa2_vjp(const dpa2_model *model, int natoms, const double *coords, const int *types, const double *box,
                              const int *pbc, const double *fparam, const double *aparam, int threads, int nweights,
                              const char *const *names, const double *const *weights, double *gradient, double *strain);

/* ---- parts of a system ------------------------------------------------------------------------------------------------ */

/* For programs that divide space among processes, or that have neighbour lists already: local atoms and ghosts (copies of
 * atoms of other processes, or periodic images), lists for the local atoms, and callbacks that carry rows between the two.
 * Ghosts have to reach as far as dpa2_model_rcut (dpa2_model_reach for the kind "spin") and no farther, whatever the number of layers
 * of the model. Of a model on a GPU
 * the callbacks get rows of the host, too, all rows of the local atoms and of the ghosts each time; with a dpa2_halo no more than
 * what other processes need leaves the GPU. All processes have to have the model on a GPU, or all on the CPU. @since 1 */
typedef struct dpa2_domain dpa2_domain;

/* How rows of atoms get from owners to ghosts and back. `rows` is (nall, width) numbers of `size` bytes each: 8 for a model in
 * float64, 4 in float32. Every process enters every call in the same order, also one without atoms, with the same width and
 * size. Return 0, or anything else to give up with DPA2_EXCHANGE. @since 1 */
typedef struct dpa2_exchange {
  void *context;                                                       /* handed to the callbacks */
  int (*forward)(void *context, void *rows, int width, int size);      /* owners' rows to ghost rows */
  int (*reverse)(void *context, void *rows, int width, int size);      /* adds ghost rows to owners' rows */
} dpa2_exchange;

/* Where the rows of ghosts come from, and how packed rows get to other processes, in place of a dpa2_exchange. Rows of ghosts that are
 * images of this process's own atoms are copied by the library. `sent` and `received` are packed rows of `width` numbers of `size`
 * bytes each, as for dpa2_exchange. A callback is not called where this process has nothing to send and nothing to receive; else in
 * the same order on every process, with the same width and size. Return 0, or anything else to give up with DPA2_EXCHANGE.
 * @since 6 */
typedef struct dpa2_halo {
  int nsend;
  const int *send;     /* (nsend) rows of local atoms that are ghosts of other processes; an atom may be there several times */
  int nreceive;
  const int *receive;  /* (nreceive) rows of the ghosts that are atoms of other processes */
  int nimages;
  const int *images;   /* (nimages) rows of the ghosts that are atoms of this process */
  const int *owners;   /* (nimages) rows of these atoms. Every ghost is in `receive` or in `images`, once */
  int on_device;       /* 1: of a model on a GPU the callbacks take memory of the GPU, whose context is current, as a CUDA-aware MPI
                          does: what is sent is complete, and what is received has to be when they return. 0: memory of the host */
  void *context;       /* handed to the callbacks */
  /* sent (nsend, width) in the order of `send`; received (nreceive, width) is to be filled in the order of `receive` */
  int (*forward)(void *context, const void *sent, void *received, int width, int size);
  /* the other way: sent (nreceive, width), received (nsend, width), which is added to the rows of `send` */
  int (*reverse)(void *context, const void *sent, void *received, int width, int size);
} dpa2_halo;

/* An empty domain; free it with dpa2_domain_free. It keeps the memory of an evaluation for the next. @since 1 */
DPA2_API dpa2_status dpa2_domain_create(dpa2_domain **domain);

/* NULL is allowed. @since 1 */
DPA2_API void dpa2_domain_free(dpa2_domain *domain);

/* The atoms of a step. The arrays are not copied: they have to stay as they are until the evaluations of the step are done.
 *   nlocal       number of atoms of this process
 *   nall         number of atoms and ghosts: local ones first
 *   coords       (nall, 3) angstrom; ghosts where they are seen from here: no box is applied
 *   ids          (nall) numbers of the atoms in the whole system, equal for an atom and its ghosts, which decide between
 *                neighbours at equal distances and stand in messages; NULL: the rows. Ghosts of one number and distance come in
 *                the order of their places, by x, y, z
 *   numneigh     (nlocal). NULL, like firstneigh: there are no lists, and models on the CPU cannot be evaluated (since version 6)
 *   firstneigh   (nlocal)[numneigh]: rows of the neighbours of an atom, in both directions for a pair (a full list), in any order;
 *                those beyond the cutoff are skipped
 *   index_mask   is and-ed with every entry of firstneigh: -1 for plain rows
 * @since 1 */
DPA2_API dpa2_status dpa2_domain_set_atoms(dpa2_domain *domain, int nlocal, int nall, const double *coords, const int *ids,
                                           const int *numneigh, const int *const *firstneigh, int index_mask);

/* The halo of the atoms that were set, for evaluations whose `exchange` is NULL. It holds until the next call, also for atoms that are
 * set later if there are as many; else an evaluation with it is invalid input. The lists are copied.
 *   halo         NULL: none any more
 * @since 6 */
DPA2_API dpa2_status dpa2_domain_set_halo(dpa2_domain *domain, const dpa2_halo *halo);

/* The spins of the atoms that were set, for models of the kind "spin": until the next dpa2_domain_set_atoms. The array is not copied.
 * Lists, types and exchanges are of atoms all the same: an exchange carries the numbers of a virtual atom in the row of its atom.
 *   spins        (nall, 3), as for dpa2_compute_spin; ghosts have those of their owners
 *   reach        angstrom: every pair of atoms up to this distance is in the lists, and ghosts that near are there. An evaluation
 *                that needs more (dpa2_model_reach) is invalid input
 * @since 5 */
DPA2_API dpa2_status dpa2_domain_set_spins(dpa2_domain *domain, const double *spins, double reach);

/* Evaluates a model of the kind "energy" on the atoms that were set. Models that are evaluated one after the other on the same
 * atoms share the work on the lists where they want the same ones.
 *   types        (nall) indices into the model's type map; less than 0: an atom that takes no part
 *   pad_type     the type of the first atom of the whole system, or -1: models that are not smooth depend on it
 *   fparam       (fparam_dim), or NULL where the model has none or a default
 *   aparam       (nlocal, aparam_dim), or NULL where the model has none
 *   exchange     NULL where there is a halo, or where no neighbour is a ghost (else it is an error where one is)
 *   threads      threads to use; less than 1 means 1, more than 4096 is an error. Where the system has no more threads, fewer are
 *                used: the results are the same
 *   energy       out: (1) eV, of the local atoms
 *   forces       out: (nall, 3) eV/angstrom, or NULL. What the local atoms' energies do to ghosts stands in the ghosts' rows, to
 *                be added to the owners' by the caller. All processes have to agree on NULL or not: without forces there
 *                are no reverse exchanges, and the others would wait for ever.
 *   virial       out: (3, 3) eV, or NULL: this process's part
 *   atom_energy  out: (nlocal) eV, or NULL
 *   atom_virial  out: (nall, 3, 3) eV, or NULL: as for forces, ghosts' rows belong to the owners
 * @since 1 */
DPA2_API dpa2_status dpa2_domain_evaluate(dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type,
                                          const double *fparam, const double *aparam, const dpa2_exchange *exchange, int threads,
                                          double *energy, double *forces, double *virial, double *atom_energy,
                                          double *atom_virial);

/* Descriptors of the local atoms.
 *   descriptor   out: (nlocal, descriptor_dim)
 *   rot_mat      out: (nlocal, g2_dim, 3), or NULL
 * @since 1 */
DPA2_API dpa2_status dpa2_domain_descriptor(dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type,
                                            const dpa2_exchange *exchange, int threads, double *descriptor, double *rot_mat);

/* Outputs by name of the local atoms: as dpa2_compute, with the other arguments of dpa2_domain_evaluate. Outputs with `ghosts`
 * have nall rows, others nlocal. Values that are sums or virials are this process's part. A mean is over its local atoms that count,
 * and what it is of all follows from the outputs of atoms. All processes have to name the same outputs, also those without atoms.
 * @since 2 */
DPA2_API dpa2_status dpa2_domain_compute(dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type,
                                         const double *fparam, const double *aparam, const dpa2_exchange *exchange, int threads,
                                         int noutputs, const char *const *names, double *const *arrays);

/* As dpa2_vjp, of the local atoms' outputs: weights have nlocal rows. All processes take part, whatever their weights.
 *   gradient     out: (nall, 3), where ghosts' rows are to be added to the owners' by the caller
 *   strain       out: (3, 3), or NULL: this process's part
 * @since 2 */
DPA2_API dpa2_status dpa2_domain_vjp(dpa2_domain *domain, const dpa2_model *model, const int *types, int pad_type,
                                     const double *fparam, const double *aparam, const dpa2_exchange *exchange, int threads,
                                     int nweights, const char *const *names, const double *const *weights, double *gradient,
                                     double *strain);

#ifdef __cplusplus
}
#endif

#endif /* DPA2_H */
