"""How the reference of the site reads the package: an extension of griffe, which mkdocstrings uses.

Docstrings name other objects as Sphinx does (``:class:`Trace```); Markdown has them as code.  The text of a setting is
its ``--help``, and its value is its default.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from griffe import Attribute, Docstring, ExprCall, Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`[~.]?([^`]+)`")


class Docstrings(Extension):
    """Docstrings in Markdown, and those of settings."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Roles become code."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)

    def on_attribute_instance(self, *, node: Any, attr: Attribute, **_: Any) -> None:
        """``name: type = setting(default, "help")``: the help describes it."""
        call = attr.value
        if isinstance(call, ExprCall) and str(call.function) == "setting" and isinstance(node, ast.AnnAssign):
            attr.value = call.arguments[0]
            text = getattr(node.value, "args", [])[1]
            if isinstance(text, ast.Constant):
                attr.docstring = Docstring(str(text.value), parent=attr)
