"""A `%%params` cell's typed assignments: read, overridden from outside, checked all at once."""

from __future__ import annotations

import ast
import datetime as dt
import io
import json
import math
import tokenize
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Never

import msgspec

from nbflow.errors import ParameterError, nearest
from nbflow.model import Cell, Parameter

ENVIRONMENT_PREFIX = "NBFLOW_PARAM_"
FILE = "__import__('nbflow').File"
"""`File` for a cell that has not imported it."""

CONFIG = "__import__('nbflow').Config"
"""`Config`, as `File`."""


class File(str):
    """A file parameter: the path that `open()` takes; the content belongs to the key of every step that reads it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"File({str.__repr__(self)})"


class Config(dict[str, Any]):
    """A table of a `%%config` cell: its keys are attributes too (`model.layers`), and nothing in it can be changed."""

    def __init__(self, values: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__({name: _frozen(value) for name, value in values.items()})

    def __getattr__(self, name: str) -> Any:
        """Return what stands under a key; raise AttributeError naming the nearest one."""
        if name in self:
            return self[name]
        raise AttributeError(f"the config has no {name!r}{nearest(name, self)}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def _refuse(self, *_: Any, **__: Any) -> Never:
        raise TypeError("a config cannot be changed: change its file or cell, or take a copy with dict(…)")

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = _refuse
    __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, Any]]]:
        """Build it anew from a plain mapping: its items cannot be set one by one."""
        return type(self), (dict(self),)


def _frozen(value: Any) -> Any:
    """Return a value whose tables are configs, those in lists too."""
    if isinstance(value, dict):
        return Config(value)
    return [_frozen(part) for part in value] if isinstance(value, list) else value


def read_parameters(cell: Cell) -> list[Parameter]:
    """Return the parameters of a `%%params` cell in order; other statements are left to the cell."""
    try:
        tree = ast.parse(cell.body)
    except (SyntaxError, ValueError):
        return []
    comments = _comments(cell.body)
    parameters = []
    for node in tree.body:
        assignment = _assignment(node)
        if assignment is None:
            continue
        kind, value = assignment.annotation, assignment.value
        parameters.append(Parameter(
            name=assignment.name, annotation=_type_of_literal(value) if kind is None else ast.unparse(kind),
            default=None if value is None else ast.unparse(value), line=node.lineno, cell=cell.id,
            help=_help(node, comments),
        ))  # fmt: skip
    return parameters


class _Assignment(msgspec.Struct, frozen=True):
    """One name with its annotation and its value, each None where there is none."""

    name: str
    annotation: ast.expr | None
    value: ast.expr | None


def _assignment(node: ast.stmt) -> _Assignment | None:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            return _Assignment(name, annotation, value)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return _Assignment(name, None, value)
    return None


def _value_of(node: ast.expr) -> Any:
    """Return the value of an expression that holds nothing but literals, as a config may too; raise what is listed."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == CONFIG and len(node.args) == 1:
        return Config(ast.literal_eval(node.args[0]))
    return ast.literal_eval(node)


_UNREADABLE = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
"""What reading a literal from a text may raise."""


def declared_type(annotation: str) -> ast.expr:
    """Return the tree of a type as it is written, in quotes too; raise SyntaxError where it is no expression."""
    return ast.parse(annotation.strip("'\""), mode="eval").body


def bare_name(node: ast.AST) -> str:
    """Return the last part of a dotted name, `Literal` for `typing.Literal`; "" for any other expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


class _Comments(msgspec.Struct, frozen=True):
    """A cell's comments by line: those that stand alone, and those behind code."""

    alone: Mapping[int, str]
    behind: Mapping[int, str]


def _comments(source: str) -> _Comments:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        tokens = []
    alone: dict[int, str] = {}
    behind: dict[int, str] = {}
    for token in tokens:
        if token.type == tokenize.COMMENT:
            stands_alone = not token.line[: token.start[1]].strip()
            (alone if stands_alone else behind)[token.start[0]] = token.string.lstrip("# ").strip()
    return _Comments(alone, behind)


def _help(node: ast.stmt, comments: _Comments) -> str:
    """Return the comment behind an assignment, else the lines right above it that hold nothing but a comment."""
    for line in (node.end_lineno or node.lineno, node.lineno):
        if line in comments.behind:
            return comments.behind[line]
    lines, at = [], node.lineno - 1
    while at in comments.alone:
        lines.append(comments.alone[at])
        at -= 1
    return " ".join(reversed(lines))


def is_file(parameter: Parameter) -> bool:
    """Return whether a parameter is declared as `File`, `Optional[File]` or `File | None`."""
    try:
        kind = declared_type(parameter.annotation or "")
    except SyntaxError:
        return False
    return any(bare_name(node) == "File" for node in ast.walk(kind))


def with_file(source: str) -> str:
    """Return a params cell's body with `File` spelt so that it needs no import, line numbers kept."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    lines = source.split("\n")
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "File"]
    for node in sorted(names, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        line = lines[node.lineno - 1].encode()  # columns are bytes
        start, end = node.col_offset, node.col_offset + len("File")
        lines[node.lineno - 1] = (line[:start] + FILE.encode() + line[end:]).decode()
    return "\n".join(lines)


def _type_of_literal(value: ast.expr | None) -> str | None:
    try:
        literal = None if value is None else _value_of(value)
    except _UNREADABLE:
        return None
    return None if literal is None else type(literal).__name__


# ---------------------------------------------------------------- overrides


def gather_overrides(
    parameters: tuple[Parameter, ...],
    given: Mapping[str, Any],
    from_file: Mapping[str, Any],
    environment: Mapping[str, str],
    exists: Callable[[str], bool] = lambda _: True,
) -> dict[str, Any]:
    """Return values from the command line or a call, from a file and from the environment, typed, by name.

    Strongest first: `given`, `from_file`, `NBFLOW_PARAM_<NAME>`. Raises one ParameterError that lists every problem:
    unknown names, values of the wrong type, parameters without a value, files of which `exists` says no.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    values_by_name = {**from_file, **given}
    problems = [f"unknown parameter {name!r}{nearest(name, by_name)}" for name in values_by_name if name not in by_name]
    for name, parameter in by_name.items():
        if name in given:
            raw: Any = given[name]
        elif name in from_file:
            raw = from_file[name]
        elif ENVIRONMENT_PREFIX + name.upper() in environment:
            raw = environment[ENVIRONMENT_PREFIX + name.upper()]
        elif parameter.default is None:
            problems.append(f"the parameter {name!r} has no value")
            continue
        else:
            continue
        try:
            value = convert(raw, parameter.annotation)
            values[name] = Config(value) if isinstance(literal_of(parameter.default), Config) else value
        except (ValueError, TypeError) as error:
            problems.append(f"{name} = {raw!r}: {error}")
    problems += [f"the default of {p.name} is no {p.annotation}: {p.default}" for p in parameters
                 if p.name not in values and _is_wrong(p)]  # fmt: skip
    problems += _missing_files(parameters, values, exists)
    if problems:
        listing = ", ".join(f"{p.name}: {p.annotation or 'any'}" for p in parameters) or "none"
        raise ParameterError(
            problems[0] if len(problems) == 1 else "; ".join(problems), fix=f"this notebook's parameters: {listing}"
        )
    return values


def _is_wrong(parameter: Parameter) -> bool:
    """Return whether a literal default is of another type than declared; None always stands for no value."""
    value = literal_of(parameter.default)
    return value is not None and not is_of(value, parameter.annotation)


def is_of(value: Any, annotation: str | None) -> bool:
    """Return whether a value is of a declared type; of one that cannot be read, every value is."""
    try:
        return fits(value, declared_type(annotation or "Any"))
    except _UNREADABLE:
        return True


def fits(value: Any, kind: ast.expr) -> bool:
    """Return whether a value is of a type as it is written; of types that are unknown here, every value is."""
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return fits(value, left) or fits(value, right)
        case ast.Constant(value=None):
            return value is None
        case ast.Subscript(value=base, slice=inner):
            options = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            return _fits_generic(value, bare_name(base), options)
    types = _TYPES.get(bare_name(kind), (object,))
    return isinstance(value, types) and not (isinstance(value, bool) and bool not in types and object not in types)


def _fits_generic(value: Any, base: str, options: list[ast.expr]) -> bool:
    match base:
        case "Optional" | "Union":
            return any(fits(value, each) for each in options) or (base == "Optional" and value is None)
        case "Literal":
            return any(type(value) is type(one) and value == one for one in map(ast.literal_eval, options))
        case "Annotated" | "Final":
            return fits(value, options[0])
        case "dict" | "Dict":
            return isinstance(value, dict) and (len(options) != 2 or all(
                fits(key, options[0]) and fits(part, options[1]) for key, part in value.items()
            ))  # fmt: skip
        case "list" | "List" | "set" | "Set" | "frozenset":
            return fits(value, ast.Name(base.lower())) and all(fits(part, options[0]) for part in value)
    return fits(value, ast.Name(base.lower()))


def _missing_files(
    parameters: tuple[Parameter, ...], values: Mapping[str, Any], exists: Callable[[str], bool]
) -> list[str]:
    """Return what is wrong with file parameters whose path is known: computed defaults are looked at later."""
    paths = {p.name: values.get(p.name, literal_of(p.default)) for p in parameters if is_file(p)}
    return [f"{name} = {str(path)!r}: there is no such file" for name, path in paths.items()
            if isinstance(path, str) and not exists(path)]  # fmt: skip


def literal_of(source: str | None) -> Any:
    """Return the value of a default's source where it is a literal, else None."""
    try:
        return _value_of(ast.parse(source or "None", mode="eval").body)
    except _UNREADABLE:
        return None


def default_text(parameter: Parameter) -> str:
    """Return a default as people read it: of a config what is in it; "" where there is none."""
    value = literal_of(parameter.default)
    return repr(value) if isinstance(value, Config) else parameter.default or ""


def convert(raw: Any, annotation: str | None) -> Any:
    """Return a value, or its text, as a type's source says; ValueError says what was expected."""
    if annotation is None:
        return _from_json(raw) if isinstance(raw, str) else raw
    try:
        kind = declared_type(annotation)
    except SyntaxError:
        return raw
    return _convert(raw, kind)


def _convert(raw: Any, kind: ast.expr) -> Any:
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _first_of(raw, [left, right])
        case ast.Constant(value=None):
            return _none(raw)
        case ast.Subscript(value=base, slice=inner):
            return _convert_generic(raw, bare_name(base), inner)
    name = bare_name(kind)
    converter = _CONVERTERS.get(name)
    return converter(raw) if converter else (_from_json(raw) if isinstance(raw, str) else raw)


def _convert_generic(raw: Any, base: str, inner: ast.expr) -> Any:
    options = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if base == "Optional":
        return _first_of(raw, [ast.Constant(value=None), *options])
    if base == "Union":
        return _first_of(raw, options)
    if base == "Literal":
        allowed = [ast.literal_eval(option) for option in options]
        for value in allowed:
            if (raw == value and type(raw) is type(value)) or (isinstance(raw, str) and raw == str(value)):
                return value
        raise ValueError(f"must be one of {', '.join(map(repr, allowed))}")
    if base in ("Annotated", "Final"):
        return _convert(raw, options[0])
    value = _CONVERTERS.get(base.lower(), lambda value: value)(raw)
    if base.lower() in ("list", "set", "frozenset") and options:
        return type(value)(_convert(part, options[0]) for part in value)
    if base.lower() == "dict" and len(options) == 2:
        return {_convert(key, options[0]): _convert(part, options[1]) for key, part in value.items()}
    return value


def _first_of(raw: Any, kinds: list[ast.expr]) -> Any:
    reasons = []
    for kind in sorted(kinds, key=lambda k: 0 if isinstance(k, ast.Constant) else 2 if ast.unparse(k) == "str" else 1):
        try:
            return _convert(raw, kind)
        except (ValueError, TypeError) as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def _from_json(raw: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def _none(raw: Any) -> None:
    if raw is None or (isinstance(raw, str) and raw.lower() in ("none", "null", "")):
        return
    raise ValueError("expected None")


def _int(raw: Any) -> int:
    if isinstance(raw, str):
        try:
            return int(raw.strip().replace("_", ""))
        except ValueError:
            raise ValueError("expected a whole number (int)") from None
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError(f"expected a whole number (int), not {type(raw).__name__}")  # noqa: TRY004  # one kind of error for all
    return raw


def _float(raw: Any) -> float:
    if isinstance(raw, str):
        try:
            return float(raw)
        except ValueError:
            raise ValueError("expected a number (float)") from None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"expected a number (float), not {type(raw).__name__}")  # noqa: TRY004  # one kind of error for all
    return float(raw)


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    raise ValueError("expected true or false (bool)")


def _str(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected text (str), not {type(raw).__name__}")  # noqa: TRY004  # one kind of error for all
    return raw


def _of(kind: type, what: str) -> Callable[[Any], Any]:
    def converter(raw: Any) -> Any:
        value = _from_json(raw) if isinstance(raw, str) else raw
        if kind is tuple or kind is set or kind is frozenset:
            value = kind(value) if isinstance(value, list | tuple | set | frozenset) else value
        if not isinstance(value, kind):
            raise ValueError(f"expected {what}")  # noqa: TRY004  # as above
        return value

    return converter


def _path(raw: Any) -> Path:
    if not isinstance(raw, str | Path):
        raise ValueError(f"expected a path, not {type(raw).__name__}")  # noqa: TRY004  # one kind of error for all
    return Path(raw)


def _date(raw: Any) -> dt.date:
    if isinstance(raw, dt.date):
        return raw
    return dt.date.fromisoformat(str(raw))


def _datetime(raw: Any) -> dt.datetime:
    if isinstance(raw, dt.datetime):
        return raw
    return dt.datetime.fromisoformat(str(raw))


def _anything(raw: Any) -> Any:
    return _from_json(raw) if isinstance(raw, str) else raw


_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,), "float": (float, int), "complex": (complex, float, int), "bool": (bool,), "str": (str,),
    "bytes": (bytes,), "list": (list,), "List": (list,), "tuple": (tuple,), "Tuple": (tuple,), "set": (set,),
    "frozenset": (frozenset,), "dict": (dict,), "Dict": (dict,), "Path": (Path,), "date": (dt.date,),
    "datetime": (dt.datetime,), "File": (str,), "Config": (dict,),
}  # fmt: skip

_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "str": _str,
    "list": _of(list, "a JSON list, for example '[1, 2]'"),
    "tuple": _of(tuple, "a JSON list, for example '[1, 2]'"),
    "set": _of(set, "a JSON list, for example '[1, 2]'"),
    "frozenset": _of(frozenset, "a JSON list, for example '[1, 2]'"),
    "dict": _of(dict, """a JSON object, for example '{"a": 1}'"""),
    "Path": _path,
    "File": lambda raw: File(_str(str(raw) if isinstance(raw, Path) else raw)),
    "Config": lambda raw: Config(_CONVERTERS["dict"](raw)),
    "date": _date,
    "datetime": _datetime,
    "Any": _anything,
    "object": _anything,
}


# ---------------------------------------------------------------- the cell with its overrides


def source_of(value: Any) -> str:
    """Return an expression that makes a parameter's value without any import."""
    match value:
        case File():
            return f"{FILE}({str.__repr__(value)})"
        case Path():
            return f"__import__('pathlib').Path({str(value)!r})"
        case dt.datetime() | dt.date():
            return f"__import__('datetime').{repr(value).removeprefix('datetime.')}"
        case float() if not math.isfinite(value):
            return f"float({str(value)!r})"
        case Config():
            return f"{CONFIG}({source_of(_thawed(value))})"
        case dict():
            return f"{{{', '.join(f'{source_of(key)}: {source_of(part)}' for key, part in value.items())}}}"
        case list():
            return f"[{', '.join(map(source_of, value))}]"
    return repr(value)


def _thawed(value: Any) -> Any:
    """Return a value whose configs are plain dicts."""
    if isinstance(value, dict):
        return {name: _thawed(part) for name, part in value.items()}
    return [_thawed(part) for part in value] if isinstance(value, list) else value


def override_source(source: str, values: Mapping[str, Any]) -> str:
    """Return a params cell's body with these values assigned, line numbers kept."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    lines = source.split("\n")
    for node in reversed(tree.body):
        assignment = _assignment(node)
        if assignment is None or assignment.name not in values:
            continue
        annotation = f": {ast.unparse(assignment.annotation)}" if assignment.annotation is not None else ""
        end = node.end_lineno or node.lineno
        value = values[assignment.name]
        if isinstance(value, File) and isinstance(assignment.value, ast.Constant):
            value = str(value)  # as if the line had named another path
        text = f"{assignment.name}{annotation} = {source_of(value)}"
        lines[node.lineno - 1 : end] = [text, *[""] * (end - node.lineno)]
    return "\n".join(lines)


CONSTANT = frozenset(
    "Path PurePath File Config date datetime timedelta Decimal Fraction int float bool str list tuple set frozenset"
    " dict range len min max sum abs round sorted".split()
)
"""Calls that come out the same each time."""


def is_constant(source: str) -> bool:
    """Return whether a params cell's defaults always come out the same: `date(2024, 1, 1)` does, `date.today()` not."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return all(bare_name(call) in CONSTANT or ast.unparse(call) == "__import__" for call in calls)


def literal_values(source: str) -> dict[str, Any] | None:
    """Return a params cell's values when every default is a literal, so that no task is needed; else None."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    values: dict[str, Any] = {}
    for node in tree.body:
        assignment = _assignment(node)
        if assignment is None and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if assignment is None or assignment.value is None:
            return None
        try:
            values[assignment.name] = _value_of(assignment.value)
        except _UNREADABLE:
            return None
    return values
