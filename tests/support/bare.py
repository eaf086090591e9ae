"""A notebook's cells one after the other by nothing but `exec`: what each prints, and what all of them leave, as text.

`python bare.py NOTEBOOK` knows nothing of nbflow: it is what generated notebooks are measured by. `show` is the text.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types
import zlib
from collections import deque
from pathlib import Path
from typing import Any

HEAD = "%%step"
SIMPLE = (bool, int, float, complex, str, bytes, type(None))
LINKED = (list, dict, set, deque)
"""Kinds of which it shows where one stands in two places of a value."""


def show(value: Any) -> str:
    """Return a value as text: equal ones give the same, and what a value holds twice is told from its copy."""
    places: dict[int, int] = {}
    return _show(value, places)


def _show(value: Any, places: dict[int, int]) -> str:
    if isinstance(value, LINKED) or type(value).__module__ == "__main__":
        if id(value) in places:
            return f"<{places[id(value)]}>"
        places[id(value)] = len(places)
    kind = type(value).__name__
    if isinstance(value, SIMPLE):
        return f"{kind}:{value!r}"
    if isinstance(value, dict):
        return f"{kind}{{{', '.join(f'{_show(k, places)}: {_show(v, places)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple | set | frozenset | deque):
        return f"{kind}[{', '.join(_show(each, places) for each in value)}]"
    if kind == "ndarray":
        return f"array {value.dtype} {value.tolist()}"
    if isinstance(value, types.FunctionType):
        cells = [_show(cell.cell_contents, places) for cell in value.__closure__ or ()]
        return f"function {value.__name__} {cells} {_show(value.__defaults__, places)} {_show(vars(value), places)}"
    if isinstance(value, types.MethodType):
        return f"method {value.__name__} of {_show(value.__self__, places)}"
    if isinstance(value, types.BuiltinMethodType):
        return f"builtin {value.__name__} of {_show(value.__self__, places)}"
    if type(value).__module__ == "__main__":
        return f"{kind} {_show({**vars(value)}, places)}"
    if hasattr(value, "getstate"):  # a random.Random
        return f"{kind} {zlib.crc32(repr(value.getstate()).encode())}"
    return kind


def main() -> None:
    """Execute a notebook; print one line of JSON."""
    path = Path(sys.argv[1])
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.path[0] = str(path.parent)
    printed: dict[str, str] = {}
    error = ""
    before = {*vars(module)}
    for cell in cells:
        source = "\n".join("" if line.startswith(("%%", "%load")) else line for line in cell["source"].split("\n"))
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            try:
                exec(compile(source, cell["id"], "exec"), vars(module))
            except BaseException as problem:
                error = f"{cell['id']}: {type(problem).__name__}: {problem}"
        printed[cell["id"]] = told.getvalue()
        if error:
            break
    left = {
        name: show(value) for name, value in vars(module).items()
        if name not in before and name[0] != "_" and not isinstance(value, types.ModuleType)
    }  # fmt: skip
    sys.__stdout__.write(json.dumps({"printed": printed, "left": left, "error": error}))


if __name__ == "__main__":
    main()
