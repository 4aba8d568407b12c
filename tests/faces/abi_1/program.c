/* A program of version 1 of the interface: compiled with the header beside it, run with the library of today. */
#include <dpa2.h>
#include <stdio.h>

int main(int argc, char **argv) {
  const double coords[] = {0.0, 0.0, 0.0, 0.96, 0.0, 0.0, -0.24, 0.93, 0.0};
  const int types[] = {0, 1, 1}, rows[] = {1, 2, 0, 2, 0, 1}, numneigh[] = {2, 2, 2};
  const int *firstneigh[] = {rows, rows + 2, rows + 4};
  double energy, part, forces[9], virial[9], atom_energy[3], descriptor[4096];
  dpa2_model *model;
  dpa2_domain *domain;
  int k;
  if (argc < 2 || dpa2_abi_version() < DPA2_ABI_VERSION || dpa2_model_load(argv[1], "float64", 0.0, &model) != DPA2_OK ||
      dpa2_evaluate(model, 3, coords, types, NULL, NULL, NULL, NULL, 1, &energy, forces, virial, atom_energy, NULL) != DPA2_OK ||
      dpa2_model_descriptor_dim(model) * 3 > 4096 ||
      dpa2_descriptor(model, 3, coords, types, NULL, NULL, 1, descriptor, NULL) != DPA2_OK || dpa2_domain_create(&domain) != DPA2_OK ||
      dpa2_domain_set_atoms(domain, 3, 3, coords, NULL, numneigh, firstneigh, -1) != DPA2_OK ||
      dpa2_domain_evaluate(domain, model, types, 0, NULL, NULL, NULL, 1, &part, NULL, NULL, NULL, NULL) != DPA2_OK) {
    fprintf(stderr, "%s\n", dpa2_last_error());
    return 1;
  }
  printf("%d\n%.17g %.17g\n", DPA2_ABI_VERSION, energy, part);
  for (k = 0; k < 9; ++k) printf("%.17g\n", forces[k]);
  for (k = 0; k < 9; ++k) printf("%.17g\n", virial[k]);
  for (k = 0; k < dpa2_model_descriptor_dim(model); ++k) printf("%.17g\n", descriptor[k]);
  if (dpa2_evaluate(model, 3, coords, types, NULL, NULL, NULL, NULL, 1, NULL, forces, NULL, NULL, NULL) != DPA2_INVALID_INPUT) return 2;
  dpa2_domain_free(domain);
  dpa2_model_free(model);
  return 0;
}
