"""Functions of `__main__` that are data (lambdas, closures) ↔ their code, with globals looked up where they are called.

A notebook's function reads its globals when it is called; a copy of them, as cloudpickle takes, would freeze the
values of the moment. So the code travels alone, and finds the globals of whichever process loads it.
"""

from __future__ import annotations

import builtins
import copyreg
import decimal
import dis
import gc
import re
import types
from collections.abc import Iterator
from typing import Any

from nbflow.store.serialize.inspection import attribute, is_a
from nbflow.store.serialize.rebuild import (
    fill_cell,
    fill_function,
    fill_node,
    fill_whole,
    main_globals,
    make_cell,
    make_context,
    make_dict_iterator,
    make_dict_view,
    make_function,
    make_match,
    make_memory,
    source_of,
)

GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


def is_main_function(value: Any) -> bool:
    """Return whether a value is a function whose globals are the notebook's own."""
    return isinstance(value, types.FunctionType) and value.__globals__ is main_globals()


def free_names(code: types.CodeType) -> frozenset[str]:
    """Return the global names that a function's code, or code nested in it, reads, without plain builtins."""
    names = set(_global_names(code))
    here = main_globals()
    return frozenset(name for name in names if name in here or not hasattr(builtins, name))


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in GLOBAL_READS:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def reduce_function(function: types.FunctionType) -> tuple[Any, ...]:
    """Return a function's reduction: made bare first and filled afterwards, so that it may refer to itself."""
    state = (
        function.__qualname__,
        function.__module__,
        function.__defaults__,
        function.__kwdefaults__,
        function.__annotations__,
        function.__doc__,
        function.__dict__,
    )
    made_from = (function.__code__, function.__name__, function.__closure__, source_of(function.__code__))
    return make_function, made_from, state, None, None, fill_function


def reduce_cell(cell: types.CellType) -> tuple[Any, ...]:
    """Return a closure cell's reduction: one cell that several functions share stays one."""
    try:
        content = cell.cell_contents
    except ValueError:  # not yet assigned
        return make_cell, ()
    return make_cell, (), (content,), None, None, fill_cell


def reduce_match(match: re.Match[Any]) -> tuple[Any, ...]:
    """Return the reduction of a match, which is found again in its text; raise TypeError when it is not."""
    made_from = (match.re, match.string, match.pos, match.endpos, match.regs)
    make_match(*made_from)
    return make_match, made_from


KINDS_OF_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


def reduce_dict_view(view: Any) -> tuple[Any, ...]:
    """Return the reduction of a dict's keys, values or items: they go on looking into the dict."""
    (owner,) = (each for each in gc.get_referents(view) if isinstance(each, dict))
    return make_dict_view, (owner, KINDS_OF_VIEWS[type(view)])


KINDS_OF_ITERATORS = {
    type(walk(getattr({}, method)())): (method, walk is reversed)
    for method in KINDS_OF_VIEWS.values() for walk in (iter, reversed)
}  # fmt: skip


def reduce_dict_iterator(iterator: Any) -> Any:
    """Return the reduction of an iterator over a dict, which goes on looking into it; pickle's own copies the rest."""
    owners = [each for each in gc.get_referents(iterator) if is_a(each, dict)]
    remaining = iterator.__length_hint__()
    if len(owners) != 1 or not remaining:  # at its end it has let go of the dict, or the dict has changed its size
        return NotImplemented
    method, backwards = KINDS_OF_ITERATORS[type(iterator)]
    return make_dict_iterator, (owners[0], method, backwards, len(owners[0]) - remaining)


def reduce_proxy(proxy: types.MappingProxyType[Any, Any]) -> Any:
    """Return the reduction of a read-only view of a dict or of a class's attributes, which goes on looking into it."""
    (owner,) = gc.get_referents(proxy)
    members = owner.get("__dict__") if type(owner) is dict else None
    if is_a(members, types.GetSetDescriptorType):
        return vars, (attribute(members, "__objclass__"),)
    return types.MappingProxyType, (owner,)


def reduce_context(context: decimal.Context) -> Any:
    """Return the reduction of a context of decimal numbers: where the one in force is still so, that is it again."""
    return (make_context, context.__reduce__()[1]) if context is decimal.getcontext() else NotImplemented


PLAIN_BASES = frozenset({"__main__", "abc", "typing"})


def has_own_state(kind: type) -> bool:
    """Return whether a class of the notebook says itself, or `copyreg` for it, what is pickled of its instances."""
    mains = [each for each in kind.__mro__ if each.__module__ == "__main__"]
    if not any("__getstate__" in vars(each) for each in mains) and kind not in copyreg.dispatch_table:
        return False
    plain = all(each is object or each.__module__ in PLAIN_BASES for each in kind.__mro__)
    same = all(getattr(kind, name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
    return plain and same and not (hasattr(kind, "__getnewargs__") or hasattr(kind, "__getnewargs_ex__"))


def keeps_a_dict(kind: type) -> bool:
    """Return whether a class's instances have their attributes in a dict, of which pickle's own way makes another."""
    own = all(getattr(kind, name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
    return own and kind.__dictoffset__ != 0 and not hasattr(kind, "__setstate__") and kind not in copyreg.dispatch_table


def reduce_whole(value: Any) -> tuple[Any, ...]:
    """Return an object's reduction with all of its attributes, whatever its `__getstate__` would leave out."""
    return copyreg.__newobj__, (type(value),), object.__getstate__(value), None, None, fill_whole  # type: ignore[attr-defined]


def reduce_memory(view: memoryview) -> tuple[Any, ...]:
    """Return a memoryview's reduction: over the whole of a bytearray it goes on looking into it, else a copy."""
    if type(view.obj) is bytearray and view.contiguous and view.nbytes == len(view.obj):
        return make_memory, (view.obj, view.format, view.shape)
    return make_memory, (bytes(view) if view.readonly else bytearray(view), view.format, view.shape)


def reduce_node(node: Any) -> tuple[Any, ...]:
    """Return the reduction of a node of matplotlib's transforms.

    Nodes know those above them by `id`, and keep the ids of the process that pickled them: a new node that comes to lie
    at one of those places would take the older one's part, which is told of no change any more.
    """
    make, made_from, state = node.__reduce_ex__(5)[:3]
    return make, made_from, state, None, None, fill_node
