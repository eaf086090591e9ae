"""Inputs that a cell changes in place though nothing in its text says so: compared with themselves after it.

Taking the base line and comparing cost a fingerprint each. Loading the stored value once more instead, and only where
it has to be, costs more: so nothing is left out for its size alone, only where the text of the cell is enough.
"""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from nbflow.analysis.cell import analyse, parse_cell
from nbflow.model import Group, TaskSpec
from nbflow.store.serialize.fingerprint import fingerprint, is_made
from nbflow.store.serialize.inspection import attribute, is_a
from nbflow.store.serialize.registry import Registry

DEAR = 256 << 10
"""From this many bytes of many small objects on a fingerprint takes milliseconds: a look at the cell's text is less."""

LARGE = 64 << 20
"""The same for the memory of arrays."""

KNOWN = frozenset({"builtins", "collections", "numpy", "pandas", "polars", "pyarrow", "scipy", "sklearn", "torch"})
"""Packages whose values do not change by operators, subscripts and attributes being read."""

ESTIMATOR_READS = frozenset(
    "predict predict_proba predict_log_proba decision_function transform score score_samples apply get_params"
    " feature_importances_ best_score_ best_params_".split()
)
"""Methods and properties of scikit-learn's estimators that leave them as they are: its own checks for estimators
(`check_dict_unchanged`) demand it."""


class BaseLine:
    """What inputs looked like before the cell."""

    def __init__(self, spec: TaskSpec, values: Mapping[str, Any], registry: Registry) -> None:
        """Take down `values`: a task's inputs that its cell is not known to write."""
        self._registry = registry
        self._values = {
            name: value
            for name, value in values.items()
            if (not is_fixed(value) or (is_a(value, type) and is_made(value, registry)))
            and not _is_only_read(spec, name, value)
        }
        self._before = {name: fingerprint(value, registry) for name, value in self._values.items()}
        # Nobody can say whether these change, and those that it runs together with find them as it leaves them.
        self._shared = frozenset(spec.live if spec.together else ())

    def compare(self) -> frozenset[str]:
        """Return the names of inputs whose objects are not as they were, whatever the names hold after the cell."""
        return frozenset(name for name, value in self._values.items() if self._is_changed(name, value))

    def _is_changed(self, name: str, value: Any) -> bool:
        before = self._before[name]
        if before is None:
            return name not in self._shared
        return fingerprint(value, self._registry) != before


def is_fixed(value: Any) -> bool:
    """Return whether a value cannot change, or is no data. A function changes with what it closes over."""
    if is_a(value, types.FunctionType):
        return not (value.__closure__ or value.__defaults__ or value.__kwdefaults__ or vars(value))
    fixed = (int, float, complex, str, bytes, bool, type(None), range, type, types.ModuleType)
    return is_a(value, fixed)


def _is_only_read(spec: TaskSpec, name: str, value: Any) -> bool:
    """Return whether the text of the cell says that an input stays as it is; asked only where comparing takes long."""
    if name not in spec.inputs:  # as a task before it in its process has left it
        return False
    group = spec.groups[spec.inputs[name].group]
    if not _is_dear(group) or len(group.names) > 1 or attribute(value, "__next__") is not None:
        return False
    package = str(attribute(type(value), "__module__", "")).partition(".")[0]
    mentioned = re.compile(rf"\b{re.escape(name)}\b")
    if package not in KNOWN or group.definitions or group.free:
        return False  # what the notebook itself defines may change with a property that is read, or with `==`
    if any(mentioned.search(statement.source) for statement in spec.replay):
        return False  # a function that the cell calls may hand it on
    if package == "sklearn" and _uses(spec.source, name) <= ESTIMATOR_READS:
        return True
    return name not in analyse(spec.source).may_mutate


def _is_dear(group: Group) -> bool:
    return group.stream.length > DEAR or sum(buffer.length for buffer in group.buffers) > LARGE


@lru_cache(maxsize=256)
def _uses(source: str, name: str) -> frozenset[str]:
    """Return the attributes by which a cell uses a name, with "" where the name stands by itself."""
    tree = parse_cell(source)
    if tree is None:
        return frozenset({""})
    attributes = {""} if any(isinstance(node, ast.Global | ast.Nonlocal) for node in ast.walk(tree)) else set()
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
            inside.add(node.value)
            attributes.add(node.attr if isinstance(node.ctx, ast.Load) else "")
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)
    return frozenset(attributes if inside.issuperset(names) else {*attributes, ""})
