"""The native files of releases in ``golden/release``, declared once: which models they hold.

The numbers to compare with are deepmd-kit's, in the golden files that the models come from.
"""

from __future__ import annotations

#: file -> golden file whose model and numbers it has
PLAIN = {name: f"{name}.npz" for name in ("fparam_aparam_case", "exclude_types", "econf_bias")}
#: file -> (model file, head, golden file)
CONVERTED = {
    "trained": ("files/trained/model.dp", None, "files/trained.npz"),
    "head": ("files/multitask/model.pt", "water", "files/multitask_water.npz"),
    "deepmd_table": ("compressed/smooth.pth", None, "compressed/smooth.npz"),
    "deepmd_table_single": ("compressed/single.pth", None, "compressed/single.npz"),
}
#: the same with tables of our own
COMPRESSED = {"tables": ("files/trained/model.dp", None, "files/trained.npz")}
SOURCES = {**PLAIN, **{name: golden for name, (_, _, golden) in (CONVERTED | COMPRESSED).items()}}
