/* Energy, forces and virial of a structure with the C interface of dpa2.
 *
 *   cc -std=c11 evaluate.c $(python -m dpa2 --cflags --libs) -o evaluate
 *   ./evaluate model.safetensors structure.extxyz [threads [device]]
 *
 * The device is cpu, cuda or cuda:N: the arrays are the same, and threads mean nothing on a GPU.
 * The structure is an extended XYZ file of one frame whose columns start with the element and the position. With a Lattice it is
 * periodic along all three vectors, without one along none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dpa2.h"

typedef struct {
  int natoms;
  double *coords;    /* (natoms, 3) angstrom */
  char (*symbols)[8];
  double box[9];     /* vectors as rows, angstrom */
  int has_box;
} structure;

static void structure_free(structure *s) {
  free(s->coords);
  free(s->symbols);
}

/* 0, or -1 with a line on stderr. */
static int structure_read(structure *s, const char *path) {
  char line[4096];
  const char *lattice = NULL, *columns = NULL;
  FILE *file = fopen(path, "r");
  *s = (structure){0};
  if (file == NULL) {
    perror(path);
    return -1;
  }
  if (fgets(line, sizeof line, file) == NULL || sscanf(line, "%d", &s->natoms) != 1 || s->natoms < 0) {
    fprintf(stderr, "%s: line 1 is not a number of atoms\n", path);
    goto failed;
  }
  if (fgets(line, sizeof line, file) == NULL) line[0] = '\0';
  lattice = strstr(line, "Lattice=\"");
  columns = strstr(line, "Properties=");
  if (columns != NULL && strncmp(columns, "Properties=species:S:1:pos:R:3", 30) != 0) {
    fprintf(stderr, "%s: the columns must start with species:S:1:pos:R:3\n", path);
    goto failed;
  }
  if (lattice != NULL) {
    double *b = s->box;
    s->has_box = 1;
    if (sscanf(lattice + 9, "%lf %lf %lf %lf %lf %lf %lf %lf %lf", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8) != 9) {
      fprintf(stderr, "%s: the Lattice does not have nine numbers\n", path);
      goto failed;
    }
  }
  s->coords = malloc(((size_t)s->natoms + 1) * 3 * sizeof *s->coords);
  s->symbols = malloc(((size_t)s->natoms + 1) * sizeof *s->symbols);
  if (s->coords == NULL || s->symbols == NULL) {
    fprintf(stderr, "%s: no memory for %d atoms\n", path, s->natoms);
    goto failed;
  }
  for (int i = 0; i < s->natoms; ++i) {
    double *x = s->coords + 3 * (size_t)i;
    if (fgets(line, sizeof line, file) == NULL || sscanf(line, "%7s %lf %lf %lf", s->symbols[i], x, x + 1, x + 2) != 4) {
      fprintf(stderr, "%s: line %d is not an element and a position\n", path, i + 3);
      goto failed;
    }
  }
  fclose(file);
  return 0;

failed:
  fclose(file);
  structure_free(s);
  return -1;
}

/* The exit status of the program. */
static int evaluate(const dpa2_model *model, const structure *s, int threads) {
  const size_t n = (size_t)s->natoms;
  int status = EXIT_FAILURE;
  int *types = malloc((n + 1) * sizeof *types);
  double *forces = malloc((n + 1) * 3 * sizeof *forces);
  double energy = 0.0, virial[9];
  if (types == NULL || forces == NULL) {
    fprintf(stderr, "no memory for %d atoms\n", s->natoms);
    goto done;
  }
  for (size_t i = 0; i < n; ++i) {
    types[i] = dpa2_model_type_index(model, s->symbols[i]);
    if (types[i] < 0) {
      fprintf(stderr, "atom %d: the model does not know %s\n", (int)i, s->symbols[i]);
      goto done;
    }
  }
  if (dpa2_evaluate(model, s->natoms, s->coords, types, s->has_box ? s->box : NULL, NULL, NULL, NULL, threads, &energy, forces, virial,
                    NULL, NULL) != DPA2_OK) {
    fprintf(stderr, "dpa2: %s\n", dpa2_last_error());
    goto done;
  }
  if (dpa2_last_warning()[0] != '\0') fprintf(stderr, "dpa2: warning: %s\n", dpa2_last_warning());

  printf("energy %.17g\n", energy);
  for (int k = 0; k < 3; ++k) printf("virial %.17g %.17g %.17g\n", virial[3 * k], virial[3 * k + 1], virial[3 * k + 2]);
  for (size_t i = 0; i < n; ++i) printf("force %.17g %.17g %.17g\n", forces[3 * i], forces[3 * i + 1], forces[3 * i + 2]);
  status = EXIT_SUCCESS;

done:
  free(types);
  free(forces);
  return status;
}

int main(int argc, char **argv) {
  dpa2_model *model = NULL;
  structure s;
  int status;
  if (argc < 3 || argc > 5) {
    fprintf(stderr, "usage: %s model.safetensors structure.extxyz [threads [device]]\n", argv[0]);
    return 2;
  }
  if (structure_read(&s, argv[2]) != 0) return EXIT_FAILURE;
  if (dpa2_model_load_device(argv[1], NULL, 0.0, argc > 4 ? argv[4] : "cpu", &model) != DPA2_OK) {
    fprintf(stderr, "dpa2: %s\n", dpa2_last_error());
    structure_free(&s);
    return EXIT_FAILURE;
  }
  status = evaluate(model, &s, argc > 3 ? atoi(argv[3]) : 1);
  dpa2_model_free(model);
  structure_free(&s);
  return status;
}
