"""Formulas as MathML, which browsers draw themselves: pages need no script and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
LEFT_OVER = re.compile(r">[^<]*(?:\\|&(?!#|\w+;))")  # of TeX, in the text of an element


def mathml(tex: str, display: str = "inline") -> str:
    """A formula of TeX; ``aligned``, ``\\_`` in text and ``+=``, which the converter does not have, in other words."""
    tex = re.sub(r"\\text\{[^}]*\}", lambda found: found[0].replace(r"\_", "_").replace(r"\#", "#"), tex)
    tex = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{split}", tex)
    tex = tex.replace(r"\mathrel{+}=", r"\;\text{+=}\;")
    return convert(tex, display=display).replace("<mi>&#x02032;</mi>", '<mi class="prime">&#x02032;</mi>')


def checked(node: nodes.Element, display: str) -> str:
    found = mathml(node.astext(), display)
    if LEFT_OVER.search(found):
        logger.warning("a formula that MathML is not made of: %s", node.astext(), location=node)
    return found


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(checked(node, "inline"))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{checked(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
