"""Parameters as tools with a command line take them: a plain kind or JSON, a default, and the way back to the type."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection

import msgspec

from nbflow.exporters.identifiers import GeneratedImports
from nbflow.flow.parameters import Config, bare_name, declared_type, literal_of
from nbflow.model import Parameter

KINDS = {
    "int": "int", "float": "float", "bool": "bool", "str": "str", "File": "file", "Path": "str", "date": "str",
    "datetime": "str",
    **dict.fromkeys("list dict tuple set frozenset List Dict Tuple Set Config Any object".split(), "json"),
}  # fmt: skip
"""A type of the notebook's -> what it is outside: "int", "float", "bool", "str", "file" or "json"."""

HELPER = "helper"
CONVERSIONS = {
    "Path": ("pathlib", "Path"), "date": ("datetime", "date.fromisoformat"),
    "datetime": ("datetime", "datetime.fromisoformat"), "frozenset": ("", "frozenset"),
    "tuple": ("", "tuple"), "Tuple": ("", "tuple"), "set": ("", "set"), "Set": ("", "set"),
    "Config": (HELPER, "Config"),
}  # fmt: skip
"""A type -> the module and its function, the builtin, or the file's helper, that makes its value from what is kept."""

_OF_JSON = frozenset("int float bool str None list dict List Dict Config Any object".split())


class Setting(msgspec.Struct, frozen=True):
    """One parameter; `default` is an expression, or of JSON the text that holds it; `inside`: why it cannot be set."""

    kind: str = "json"
    type: str = ""
    default: str | None = None
    literal: bool = True  # else the default has to be computed
    optional: bool = False  # None is a value too
    inside: str = ""
    note: str = ""  # what is not quite the same


def setting_of(parameter: Parameter, others: Collection[str]) -> Setting:
    """Return how a parameter can be set from outside, or why not; `others` are all parameters."""
    text = parameter.default
    tree = ast.parse(text or "None", mode="eval").body
    if text is not None and {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {*others}:
        return Setting(inside="other parameters give its value")
    names = _types_of(parameter, tree)
    optional = "None" in names
    names = [name for name in names if name != "None"]
    kind = KINDS.get(names[0] if names else "object") if len(names) < 2 else None
    if kind is None or (kind == "json" and parameter.annotation and not _holds_json(parameter.annotation)):
        return Setting(inside=f"values of {parameter.annotation} cannot be told by text alone")
    type_name = names[0] if names else ""
    if kind == "file":
        paths = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        return Setting(kind, type_name, repr(paths[0]) if paths else None, optional=optional or text == "None")
    if text is None:
        return Setting(kind, type_name, optional=optional)
    value = literal_of(text)
    if value is None and text != "None":
        return Setting(kind, type_name, text, literal=False, optional=optional) if names else Setting(
            inside="its default is computed, and it has no type")  # fmt: skip
    if isinstance(value, Config):
        type_name = "Config"
    if kind != "json":
        note = f"its default is {float(value)}, not {text}" if kind == "float" and isinstance(value, int) else ""
        return Setting(kind, type_name, text, optional=optional or value is None, note=note)
    plain = sorted(value, key=repr) if isinstance(value, set) else list(value) if isinstance(value, tuple) else value
    if not _is_json(plain):
        return Setting(inside="its default is no JSON")
    return Setting(kind, type_name, json.dumps(plain, ensure_ascii=False), optional=optional or value is None)


def default_of(setting: Setting, words: GeneratedImports) -> str:
    """Return the expression for a setting's default, of JSON the text that holds it."""
    if setting.literal:
        return repr(setting.default) if setting.kind == "json" else setting.default or "None"
    function = {"json": f"{words.module('json')}.dumps", "str": "str"}.get(setting.kind, "")
    return f"{function}({setting.default})" if function else setting.default or "None"


def restored(setting: Setting, value: str, words: GeneratedImports) -> str:
    """Return the expression that makes the notebook's value of an expression for what is kept outside."""
    if setting.kind == "file":
        return f"{words.helper('as_file')}({setting.default}, {value})"
    if setting.type not in CONVERSIONS:
        return value
    module, function = CONVERSIONS[setting.type]
    if module == HELPER:
        called = words.helper(function)
    else:
        called = f"{words.module(module)}.{function}" if module else words.builtin(function)
    result = f"{called}({value})"
    return f"{value} and {result}" if setting.optional else result


def _types_of(parameter: Parameter, default: ast.expr) -> list[str]:
    """Return a parameter's types, by bare names: two for `int | None`, none where nothing is said."""
    if parameter.annotation is None:
        return ["None"] if isinstance(default, ast.Constant) and default.value is None else []
    try:
        return _names_of(declared_type(parameter.annotation))
    except SyntaxError:
        return ["?"]


def _names_of(kind: ast.expr) -> list[str]:
    match kind:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_names_of(left), *_names_of(right)]
        case ast.Constant(value=None):
            return ["None"]
        case ast.Subscript(value=base, slice=inner):
            parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            name = bare_name(base)
            if name in ("Optional", "Union"):
                return [
                    *(["None"] if name == "Optional" else []),
                    *(each for part in parts for each in _names_of(part)),
                ]
            if name in ("Annotated", "Final"):
                return _names_of(parts[0])
            if name == "Literal":
                return sorted({type(ast.literal_eval(part)).__name__ for part in parts})
            return [name]
    return [bare_name(kind)]


def _holds_json(annotation: str) -> bool:
    """Return whether what a list or dict is declared to hold can be told in JSON."""
    tree = declared_type(annotation)
    inner = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    words = {n.id for part in inner for n in ast.walk(part) if isinstance(n, ast.Name)}
    outer = _names_of(tree)
    return words <= _OF_JSON | {*outer} | {"Optional", "Union"}


def _is_json(value: object) -> bool:
    try:
        return repr(json.loads(json.dumps(value))) == repr(value)  # of a config, too: it is written as a dict
    except (TypeError, ValueError):
        return False
