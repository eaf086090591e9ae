"""What stands on a class, a function or an object made by a decorator: each part has a key, a look, and a way back.

A key is a path. `count` is an attribute, `area.calls` one of a method, `Inner.rate` of a nested class, `RED.note` of a
member of an enumeration, `[width].default` of a dataclass's field; `()total` is what a function closes over, and
`()fn.calls` stands on a function that it closes over. What Python itself keeps on a class is no part of it.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found, unused-ignore]  # what `abc` shows of its registries, and resets
import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nbflow.errors import TaskError
from nbflow.model import MISSING
from nbflow.store.serialize.fingerprint import fingerprint
from nbflow.store.serialize.inspection import answered, attribute, is_a
from nbflow.store.serialize.registry import Registry
from nbflow.task.observe.environment import origin_of

METHODS = (types.FunctionType, staticmethod, classmethod, property)
SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)

OWN = frozenset(
    "_abc_impl _member_map_ _member_names_ _value2member_map_ _member_type_ _unhashable_values_ _use_args_ _new_member_"
    " _value_repr_ _generate_next_value_ _hashable_values_ _unhashable_values_map_ __dict__ __weakref__ __bases__"
    " __annotations_cache__ __annotate__ __annotate_func__ __firstlineno__ __static_attributes__ __protocol_attrs__"
    " __non_callable_proto_members__ __dataclass_fields__ __slotnames__".split()
)
"""What Python keeps on a class for itself, or what has parts of its own here."""

MEANT = frozenset("__doc__ __annotations__ __hash__ __match_args__ __abstractmethods__ __module__ __slots__".split())
"""Names with two underscores around them that mean something to Python: libraries keep things under others."""

OF_FUNCTIONS = ("__name__", "__qualname__", "__doc__", "__module__", "__defaults__", "__kwdefaults__", "__code__")
OF_MEMBERS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
OF_FIELDS = ("default", "default_factory", "metadata", "repr")
OF_PARTIALS = ("func", "args", "keywords")
OLDER = {"()defaults": "__defaults__", "()kwdefaults": "__kwdefaults__"}
"""Keys in older stores -> what they are now."""

PLAIN = frozenset({"builtins", "__main__", "abc", "enum", "typing"})
REGISTERED = "()registered"
"""The classes that an abstract class was told are its subclasses."""

DEPTH = 3
"""So far functions in what functions close over are looked at."""


class Standing(msgspec.Struct, frozen=True):
    """One part: the object on which it stands, its value, and whether that has parts of its own."""

    owner: Any
    value: Any
    is_owner: bool = False


def is_stateful(value: Any) -> bool:
    """Return whether a definition's value is one on which cells may set something.

    That is a class or function that was made for it, or an object of a class that is the user's own.
    """
    if is_a(value, type | types.FunctionType):
        return attribute(value, "__module__") == "__main__" or _is_made_inside(value)
    return not is_a(value, enum.Enum) and (is_a(value, functools.partial) or _is_users(type(value)))


def _is_users(kind: type) -> bool:
    name = attribute(kind, "__module__")
    if name == "__main__":
        return True
    file = attribute(sys.modules.get(name) if type(name) is str else None, "__file__")
    return type(file) is str and origin_of(file) == "local"


def parts_of(value: Any) -> dict[str, Standing]:
    """Return all that cells may set on a class, function or object, by key."""
    parts: dict[str, Standing] = {}
    queue, known = [("", value)], {id(value)}
    while queue:
        path, owner = queue.pop()
        inner = _inner(owner)
        held = {id(each) for each in inner.values()}
        for name, each in _own(owner).items():
            parts[path + name] = Standing(owner, each, id(_bare(each)) in held)
        for name, each in inner.items():
            if id(each) not in known and path.count(".") < DEPTH:
                known.add(id(each))
                queue.append((f"{path}{name}.", each))
    return parts


def looks_of(parts: Mapping[str, Standing], registry: Registry) -> dict[str, str]:
    """Return how each part looks: equal texts of one object in one process mean that nothing was changed.

    What cannot be looked into is told by what it is: whether it was changed in place nobody knows.
    """
    return {key: _look(part.value, registry, part.is_owner) for key, part in parts.items()}


def prints_of(value: Any, registry: Registry) -> dict[str, str]:
    """Return how each part of a class, function or object looks now."""
    return looks_of(parts_of(value), registry)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two parts are the same object, or tuples of the same objects, as some are made when asked for."""
    if is_a(one, tuple) and is_a(other, tuple) and len(one) == len(other):
        return all(a is b for a, b in zip(one, other, strict=True))
    return one is other


def put_part(value: Any, key: str, part: Any) -> None:
    """Set a part of a class, function or object, or take it away where it is `MISSING`; raise TaskError if it fails.

    One that stands on what is not there is left out.
    """
    path, _, name = key.rpartition(".")
    if is_a(clear := attribute(value, "_clear_cache"), types.MethodType):  # of `singledispatch`: what it has looked up
        clear()
    for step in path.split(".") if path else ():
        value = _inner(value).get(step, MISSING)
        if value is MISSING:
            return
    if name in OLDER and name[2:] not in attribute(attribute(value, "__code__"), "co_freevars", ()):
        name = OLDER[name]
    try:
        _put(value, name, part)
    except Exception as error:  # a class may refuse other bases, hooks of libraries may raise anything
        what = attribute(value, "__qualname__") or type(value).__qualname__
        raise TaskError(
            f"{name} of {what}, which a cell above has set, cannot be set again: {type(error).__name__}: {error}",
            fix=f"set {name} in the statement that defines {what}",
        ) from error


# ---------------------------------------------------------------- what stands where


def _own(owner: Any) -> dict[str, Any]:
    """Return what stands on an owner itself, by name."""
    if is_a(owner, type):
        return _of_class(owner)
    if is_a(owner, types.FunctionType):
        return _of_function(owner)
    if is_a(owner, dataclasses.Field):
        return {name: attribute(owner, name) for name in OF_FIELDS}
    attributes = dict(attribute(owner, "__dict__", {}))
    if is_a(owner, enum.Enum):
        return {name: each for name, each in attributes.items() if name not in OF_MEMBERS}
    if is_a(owner, functools.partial):
        return attributes | {name: getattr(owner, name) for name in OF_PARTIALS}
    return attributes | dict(_in_slots(owner)) | {"__class__": type(owner)}


def _in_slots(owner: Any) -> Iterator[tuple[str, Any]]:
    for kind in type(owner).__mro__:
        for name, each in vars(kind).items():
            if is_a(each, types.MemberDescriptorType):
                value = answered(functools.partial(each.__get__, owner), MISSING)
                if value is not MISSING:
                    yield name, value


def _of_class(owner: Any) -> dict[str, Any]:
    told = all(each.__module__ in PLAIN for each in (*owner.__mro__, *type(owner).__mro__))
    members: Mapping[str, Any] = vars(owner).get("_member_map_", {})
    attributes = {
        name: each for name, each in vars(owner).items()
        if name not in OWN and name not in members
        and not (is_a(each, SLOTS) and each.__objclass__ is owner)
        and (told or name in MEANT or not _is_dunder(name) or is_a(each, METHODS))
    }  # fmt: skip
    if not attributes.get("__annotations__", True):
        del attributes["__annotations__"]  # made by whoever asked for it
    attributes |= {"__name__": owner.__name__, "__qualname__": owner.__qualname__}
    attributes |= {"__bases__": owner.__bases__, "__class__": type(owner)}
    if "_abc_impl" in vars(owner):
        attributes[REGISTERED] = _registered(owner)
    return attributes


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _registered(owner: Any) -> tuple[type, ...]:
    classes = (each() for each in _abc._get_dump(owner)[0])  # noqa: SLF001
    return tuple(sorted((each for each in classes if each is not None), key=lambda each: each.__qualname__))


def _of_function(owner: types.FunctionType) -> dict[str, Any]:
    attributes = dict(vars(owner)) | {name: getattr(owner, name) for name in OF_FUNCTIONS}
    if sys.version_info < (3, 14) and owner.__annotations__:  # from then on asking evaluates them
        attributes["__annotations__"] = owner.__annotations__
    return attributes | {f"(){name}": each for name, each in _closed_over(owner)}


def _closed_over(owner: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=False):
        content = answered(lambda cell=cell: cell.cell_contents, MISSING)  # type: ignore[misc]  # not bound yet
        if content is not MISSING and name != "__class__":
            yield name, content


def _bare(value: Any) -> Any:
    """Return the function in what makes it a method."""
    return value.__func__ if is_a(value, staticmethod | classmethod) else value


def _inner(owner: Any) -> dict[str, Any]:
    """Return what has parts of its own and belongs to an owner alone, by its step in a key."""
    if is_a(owner, types.FunctionType):
        parts = (*((f"(){name}", each) for name, each in _closed_over(owner)), *vars(owner).items())
        return {name: each for name, each in parts if _is_made_inside(each)}
    if not is_a(owner, type):
        return {}
    prefix = f"{owner.__qualname__}."
    inner = {
        name: _bare(each) for name, each in vars(owner).items()
        if is_a(_bare(each), type | types.FunctionType) and attribute(_bare(each), "__qualname__") == prefix + name
        and attribute(_bare(each), "__module__") == owner.__module__
    }  # fmt: skip
    if is_a(owner, enum.EnumMeta):
        inner |= {name: each for name, each in vars(owner)["_member_map_"].items() if name == attribute(each, "_name_")}
    fields = vars(owner).get("__dataclass_fields__", {})
    return inner | {f"[{name}]": each for name, each in fields.items() if is_a(each, dataclasses.Field)}


def _is_made_inside(value: Any) -> bool:
    """Return whether a function was made while another one ran, as those are that decorators give."""
    return is_a(value, types.FunctionType) and "<locals>" in value.__qualname__


# ---------------------------------------------------------------- how it looks


def _look(value: Any, registry: Registry, is_owner: bool = False, depth: int = 0) -> str:
    """Return how a part looks; of one with parts of its own those tell the rest.

    A class or a function with a name is told by which one it is, for what is set on that is its own state; any other
    function by what it is made of.
    """
    if is_a(value, types.FunctionType):
        if is_owner or depth > DEPTH:
            return f"code {hash(value.__code__)}"
        if not _is_made_inside(value) and value.__name__.isidentifier():
            return f"function {id(value)}"  # what is set on it is its own
        inner = [_look(each, registry, depth=depth + 1) for _, each in _closed_over(value)]
        made = (value.__defaults__, value.__kwdefaults__, vars(value))
        return f"code {hash(value.__code__)} {[_look(each, registry) for each in made]} {inner}"
    if is_a(value, staticmethod | classmethod):
        return f"{type(value).__name__} {_look(value.__func__, registry, is_owner, depth)}"
    if is_a(value, property):
        made = (value.fget, value.fset, value.fdel)
        return f"property {[_look(each, registry, depth=depth + 1) for each in made]}"
    if is_a(value, types.CodeType):
        return f"code {hash(value)}"
    if is_a(value, type):
        return f"class {id(value)}"
    if is_a(value, types.GeneratorType):
        frame = value.gi_frame
        return "ended" if frame is None else f"{frame.f_lasti} {fingerprint(dict(frame.f_locals), registry)}"
    return fingerprint(value, registry) or by_identity(value)


def by_identity(value: Any) -> str:
    """Return how something looks that cannot be looked into."""
    return f"{attribute(type(value), '__qualname__', '')} {id(value)}"


# ---------------------------------------------------------------- the way back


def _put(owner: Any, name: str, part: Any) -> None:
    if name == REGISTERED:
        _abc._reset_registry(owner)  # noqa: SLF001
        _abc._reset_caches(owner)  # noqa: SLF001
        for each in part:
            owner.register(each)
    elif name in OF_PARTIALS and is_a(owner, functools.partial):
        func, arguments, keywords, attributes = owner.__reduce__()[2]
        made = {"func": func, "args": arguments, "keywords": keywords, name: part}
        owner.__setstate__((*made.values(), attributes))
    elif name.startswith("()"):
        cells = dict(zip(attribute(owner, "__code__").co_freevars, owner.__closure__ or (), strict=False))
        if name[2:] in cells and part is not MISSING:
            cells[name[2:]].cell_contents = part
    else:
        # what the user's own hooks do besides, they have done when the cell set it; those of libraries have to see it
        kind = type if is_a(owner, type) else object
        hooked = is_a(owner, type) and not (_is_users(type(owner)) or is_a(owner, enum.EnumMeta))
        if part is not MISSING:
            setattr(owner, name, part) if hooked else kind.__setattr__(owner, name, part)
        elif name in vars(owner):
            delattr(owner, name) if hooked else kind.__delattr__(owner, name)
