"""Definitions that leave something with another one when they are made: whoever uses that one needs them too. Pure.

`@show.register` adds a case to a function; a class tells its bases' `__init_subclass__` and metaclass that it is there.
Nobody reads the name of such a definition, and yet a plain run has made it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence

from nbflow.effects import dotted
from nbflow.model import Definition

OF_PROPERTIES = frozenset({"setter", "getter", "deleter"})
HEARS = re.compile(r"__init_subclass__|\bmetaclass\s*=|\(type\)|__set_name__")
"""A class with this in its source may be told of its subclasses."""


def attached_to(
    tree: ast.stmt | None,
    definitions: Sequence[Definition],
    family: Callable[[str], set[int]],
    *,
    listed: bool,
) -> Iterator[str]:
    """A definition's syntax, all definitions, and what a name needs, in; names that it leaves something with, out.

    `listed`: the notebook asks classes for their subclasses.
    """
    for decorator in getattr(tree, "decorator_list", []):
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        root, _, rest = dotted(function).partition(".")
        if rest and rest not in OF_PROPERTIES:
            yield root
    if not isinstance(tree, ast.ClassDef):
        return
    for base in (*tree.bases, *(keyword.value for keyword in tree.keywords)):
        above = [definitions[order] for order in family(dotted(base).partition(".")[0])]
        classes = [each for each in above if not each.origins and "class " in each.source]
        if listed or any(HEARS.search(each.source) for each in classes):
            yield from (name for each in classes for name in each.names)
