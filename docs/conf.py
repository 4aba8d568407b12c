"""The site: every page of the tree that people read, from the root of the tree, so that links work here and on a forge.

sphinx-build -W --keep-going -c docs . build-docs
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "dpa2"
author = "the dpa2 developers"
(version,) = re.findall(r"^\s*version: '([^']+)'", (ROOT / "meson.build").read_text(encoding="utf-8"), re.MULTILINE)
release = version

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_argparse_cli",
    "c_header",
    "contents",
    "mathml",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "bench/**.md", "examples/**.md", "tests/golden/README.md"]
exclude_patterns = ["build*", ".*", "src", "engine", "include", "recipe", "backend"]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may begin a list of sections with the third level

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types are in the signatures, shapes and units in the text
autodoc_mock_imports = ["ase", "cupy", "jax", "openmm", "sklearn", "torch", "torch_sim"]
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
c_maximum_signature_line_length = 88


html_theme = "furo"
html_title = f"dpa2 {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options: dict[str, Any] = {"navigation_with_keys": True}


def setup(app: Sphinx) -> None:
    app.add_lexer("lammps", TextLexer)  # input scripts, in plain type
