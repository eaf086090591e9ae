"""One statement → the objects that it may change, by the names through which it gets hold of them. Pure.

The reading is sound rather than sharp: what is handed to a call may be changed by it, and what a call gives back may
be a part of what it was given. Only what the tables below name is taken to leave its arguments alone. A name that is
not listed in an answer is left as it was.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

import msgspec

from nbflow.analysis.calls import LOG_METHODS, discarded_calls, is_exempt, is_logger
from nbflow.analysis.effects import dotted, full_name
from nbflow.analysis.result import PURE_BUILTINS
from nbflow.analysis.scopes import arguments_of, children_of, descend, import_pairs, target_names

Act = Literal["", "call", "outside"]
"""What a statement does besides: nothing, a call whose effect is not seen, something outside the process."""

NOBODY: frozenset[str] = frozenset()

FunctionStatement = ast.FunctionDef | ast.AsyncFunctionDef

SCALARS = PURE_BUILTINS | {"any", "all", "input"}
"""Builtins whose result shares nothing with what they are given."""

FIXED = frozenset("len str int float bool repr complex hash id ord chr isinstance type callable".split())
"""Of those, the ones whose result cannot change."""

LOOKING = frozenset(
    "sum sorted list tuple set frozenset dict min max enumerate zip map filter reversed iter any all getattr vars dir"
    " super object bytes bytearray memoryview slice property staticmethod classmethod open help input exit quit"
    " breakpoint compile divmod pow".split()
)
"""Builtins that change what they are given only where it is an iterator, which they use up."""

LAZY_BUILTINS = frozenset("enumerate zip map filter reversed iter open next getattr eval vars super".split())

PURE_MODULES = frozenset(
    "numpy pandas polars math cmath statistics operator itertools functools collections datetime re string textwrap"
    " json copy decimal fractions typing dataclasses pathlib platform inspect types nbflow ipywidgets scipy"
    " sklearn pyarrow sys time calendar zoneinfo unicodedata difflib hashlib base64 uuid getpass".split()
)
"""Packages whose functions leave their arguments alone, and act on nothing but what they give back."""

CHANGING_CALLS = frozenset(
    "numpy.put numpy.place numpy.putmask numpy.copyto numpy.fill_diagonal numpy.put_along_axis numpy.save numpy.savez"
    " numpy.savez_compressed numpy.savetxt numpy.vectorize numpy.apply_along_axis numpy.frompyfunc functools.reduce"
    " operator.setitem operator.delitem operator.iadd operator.ior operator.iconcat itertools.starmap"
    " itertools.accumulate itertools.takewhile itertools.dropwhile itertools.filterfalse itertools.groupby json.dump"
    " sys.exit sys.settrace sys.setprofile sys.setswitchinterval sklearn.set_config nbflow.run nbflow.verify".split()
)
"""Of those, the ones that do change what they are given, or call it."""

EAGER_MODULES = frozenset("numpy pandas polars math statistics datetime copy scipy sklearn re json pathlib".split())
"""Packages whose functions give no iterators, but for those below."""

LAZY_CALLS = frozenset("nditer ndenumerate ndindex finditer iterdir glob rglob split scandir".split())

METHODS = frozenset(
    "head tail describe info value_counts nunique unique isna isnull notna notnull sum mean median std var min max"
    " count corr cov quantile mode abs round astype copy groupby sort_values sort_index nlargest nsmallest query"
    " select_dtypes memory_usage to_string to_numpy to_list tolist to_dict to_frame items keys values get duplicated"
    " drop_duplicates dropna fillna drop rename reset_index set_index isin between pivot pivot_table melt stack unstack"
    " merge join diff shift cumsum cumprod rolling resample rank clip where mask idxmin idxmax argmin argmax any all"
    " iterrows itertuples equals eq ne lt le gt ge sub mul div dot reshape ravel flatten transpose squeeze"
    " strip lstrip rstrip lower upper title capitalize split rsplit splitlines replace startswith endswith find"
    " rfind format zfill encode decode isdigit isalpha index strftime isoformat total_seconds date weekday"
    " most_common union intersection difference symmetric_difference issubset issuperset get_params item".split()
)
"""Methods that look at their object. One that the notebook itself defines is not meant, nor one given `inplace`."""

LAZY_METHODS = frozenset("iterrows itertuples groupby rolling resample get split".split())

SCALAR_METHODS = frozenset(
    "nunique count info memory_usage to_string isdigit isalpha startswith endswith find rfind format strip lstrip"
    " rstrip lower upper title capitalize zfill encode decode strftime isoformat total_seconds weekday".split()
)
"""Of those, the ones whose result shares nothing with the object."""

SCALAR_ATTRIBUTES = frozenset("shape size ndim dtype dtypes nbytes empty itemsize".split())

GIVEN_TO_CHANGE = frozenset({"out", "file", "ax", "axes", "fig", "buf"})
"""Arguments that are changed whatever is called."""

OUTSIDE_METHODS = frozenset(
    "execute executemany executescript commit rollback post put patch delete send sendall sendto send_message publish"
    " upload upload_file upload_fileobj put_object insert_one insert_many update_one update_many delete_one write"
    " writelines writerow writerows log_metric log_param log_artifact".split()
)
"""Methods that act on something outside the process."""

PACKAGES = re.compile(r"^\s*[!%]\s*(?:\S*/)?(?:python\d?(?:\.\d+)?\s+-m\s+)?(?:pip3?|conda|mamba|uv|apt|apt-get)\b")


class FunctionEffects(msgspec.Struct, frozen=True):
    """What calling a function of the notebook does to its arguments and locals, to names around it, and besides."""

    quiet: bool  # it changes nothing that it is given
    lazy: bool  # it may give an iterator
    act: Act
    touched: frozenset[str] = NOBODY  # names around it whose objects it may change
    kept: frozenset[str] = NOBODY  # names around it whose objects it may give back


class Touch(msgspec.Struct, frozen=True):
    """What a statement may do to the objects of names."""

    touched: frozenset[str] = NOBODY  # may be changed
    drained: frozenset[str] = NOBODY  # are changed if they are iterators
    kept: frozenset[str] = NOBODY  # may live on in what is bound or changed
    lazy: bool = False  # what it binds may be an iterator
    fixed: bool = False  # what it binds cannot change
    calls: bool = False
    act: Act = ""
    line: int = 1  # of what acts


class Above(msgspec.Struct, frozen=True):
    """What stands above a statement: imports, functions and classes of the notebook, names that builtins lost."""

    origins: Mapping[str, str]
    bodies: Mapping[str, FunctionEffects]
    bound: Container[str]
    classes: frozenset[str] = NOBODY
    counting: frozenset[str] = NOBODY  # classes that change themselves when an object is made
    methods: frozenset[str] = NOBODY  # that some class of the notebook defines
    defaults: bool = False  # looking an element up may add one (`defaultdict`)
    iterators: bool = False  # some class of the notebook is an iterator


def touch_of(tree: ast.stmt | None, above: Above) -> Touch | None:
    """Return what a statement may do to the objects of names; None where it is not Python."""
    return None if tree is None else _touch(tree, _about(tree, above))


def body_of(tree: FunctionStatement, above: Above) -> FunctionEffects:
    """Return what calling a function does."""
    return _body(tree, _about(tree, above))


_About = tuple[
    tuple[tuple[str, str], ...], tuple[tuple[str, FunctionEffects], ...],
    frozenset[str], frozenset[str], frozenset[str],
    frozenset[str], bool, bool,
]  # fmt: skip


def _about(tree: ast.stmt, above: Above) -> _About:
    """Return as much of what stands above as a statement mentions: a notebook is read anew with every edit."""
    names, attributes = _mentioned(tree)
    return (
        tuple((name, above.origins[name]) for name in names if name in above.origins),
        tuple((name, above.bodies[name]) for name in names if name in above.bodies),
        frozenset(name for name in names if name in above.bound),
        above.classes.intersection(names),
        above.counting.intersection(names),
        above.methods & attributes,
        above.defaults,
        above.iterators,
    )


@lru_cache(maxsize=32_768)
def _mentioned(tree: ast.stmt) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names and the attributes that stand in a statement."""
    nodes = list(descend(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return tuple(sorted(names)), frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute))


def _above(about: _About) -> Above:
    origins, bodies, rebound, classes, counting, methods, defaults, iterators = about
    return Above(dict(origins), dict(bodies), rebound, classes, counting, methods, defaults, iterators)


@lru_cache(maxsize=32_768)
def _touch(tree: ast.stmt, about: _About) -> Touch:
    reader = _Reader(_above(about))
    reader.discarded.update(_discarded(tree))
    reader.visit(tree)
    touched, drained = reader.resolved()
    value = tree.value if isinstance(tree, ast.Assign | ast.AnnAssign) else None
    return Touch(
        touched=touched, drained=drained, kept=frozenset(reader.kept), lazy=reader.lazy,
        fixed=value is not None and _is_fixed(value, reader), calls=reader.calls, act=reader.act, line=reader.line,
    )  # fmt: skip


@lru_cache(maxsize=32_768)
def _body(tree: FunctionStatement, about: _About) -> FunctionEffects:
    reader = _Reader(_above(about))
    for statement in tree.body:
        reader.discarded.update(_discarded(statement))
        reader.visit(statement)
    parameters = {argument.arg for argument in arguments_of(tree)}
    inner = reader.locals | parameters
    changed_inside = (reader.touched | reader.drained) & inner
    around = reader.kept - inner
    touched = (reader.touched - inner) | (around if changed_inside else set())
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in descend(tree))
    return FunctionEffects(
        quiet=not changed_inside and not tree.decorator_list,
        lazy=reader.lazy or yields or bool(tree.decorator_list),
        act=reader.act,
        touched=frozenset(touched | reader.drained - inner),
        kept=frozenset(around),
    )


def _discarded(tree: ast.stmt) -> Iterator[int]:
    """Yield the ids of the calls whose value is dropped, in blocks inside too."""
    for node in descend(tree):
        if isinstance(node, ast.Expr):
            yield from discarded_calls(node.value)


class _Reader(msgspec.Struct):
    """One walk over a statement."""

    above: Above
    touched: set[str] = msgspec.field(default_factory=set)
    drained: set[str] = msgspec.field(default_factory=set)
    kept: set[str] = msgspec.field(default_factory=set)
    locals: set[str] = msgspec.field(default_factory=set)
    discarded: set[int] = msgspec.field(default_factory=set)
    lazy: bool = False
    calls: bool = False
    act: Act = ""
    line: int = 1

    def resolved(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the names touched and drained: one bound by the statement itself may stand for all that it kept."""
        touched, drained = set(self.touched), set(self.drained)
        if touched & self.locals:
            touched |= self.kept
        if drained & self.locals:
            drained |= self.kept
        return frozenset(touched), frozenset(drained)

    # ------------------------------------------------------------ the walk

    def visit(self, node: ast.AST) -> None:
        """Take in a node and all below it."""
        getattr(self, "see_" + type(node).__name__.lower(), self.see_other)(node)

    def see_other(self, node: ast.AST) -> None:
        """Take in the parts of a node without a rule of its own."""
        for child in children_of(node):
            self.visit(child)

    def see_assign(self, node: ast.Assign) -> None:
        self._give(node.targets, node.value)

    def see_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._give([node.target], node.value)

    def see_namedexpr(self, node: ast.NamedExpr) -> None:
        self._give([node.target], node.value)

    def _give(self, targets: Iterable[ast.expr], value: ast.expr) -> None:
        self.visit(value)
        self.kept |= self.keeps(value)
        self.lazy = self.lazy or self.is_lazy(value)
        for target in targets:
            self._bind(target)
            if isinstance(target, ast.Tuple | ast.List) and not isinstance(value, ast.Tuple | ast.List):
                self.drained |= self.keeps(value)

    def _bind(self, target: ast.expr) -> None:
        """Take in a target: names in it are bound, what it is a part of is changed."""
        for part in descend(target):
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
                self.locals.add(part.id)
            elif isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
                self._change(part.value)
                self.visit(part)

    def _change(self, owner: ast.expr) -> None:
        self.touched |= self.keeps(owner)
        if dotted(owner).partition(".")[0] in self.above.origins:
            self._acts("call", owner)

    def see_augassign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        self.kept |= self.keeps(node.value)
        if isinstance(node.target, ast.Name):
            self.touched.add(node.target.id)
            self.kept.add(node.target.id)
        else:
            self._bind(node.target)

    def see_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute | ast.Subscript):
                self._change(target.value)
                self.visit(target)

    def see_for(self, node: ast.For | ast.AsyncFor) -> None:
        self._iterate(node.iter)
        self._bind(node.target)
        for part in (node.iter, *node.body, *node.orelse):
            self.visit(part)

    see_asyncfor = see_for

    def see_comprehension(self, node: ast.comprehension) -> None:
        self._iterate(node.iter)
        self._bind(node.target)
        for part in (node.iter, *node.ifs):
            self.visit(part)

    def _iterate(self, value: ast.expr) -> None:
        self.drained |= self.keeps(value)
        self.kept |= self.keeps(value)

    def see_starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load):
            self.drained |= self.keeps(node.value)
        self.visit(node.value)

    def see_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.kept |= self.keeps(item.context_expr)
            if not isinstance(item.context_expr, ast.Call):
                self.touched |= self.keeps(item.context_expr)
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self._bind(item.optional_vars)
        for part in node.body:
            self.visit(part)

    see_asyncwith = see_with

    def see_match(self, node: ast.Match) -> None:
        self.kept |= self.keeps(node.subject)
        self.see_other(node)

    def see_matchas(self, node: ast.MatchAs) -> None:
        self.locals |= {node.name} if node.name else set()
        self.see_other(node)

    def see_matchstar(self, node: ast.MatchStar) -> None:
        self.locals |= {node.name} if node.name else set()

    def see_excepthandler(self, node: ast.ExceptHandler) -> None:
        self.locals |= {node.name} if node.name else set()
        self.see_other(node)

    def see_return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.kept |= self.keeps(node.value)
            self.lazy = self.lazy or self.is_lazy(node.value)

    def see_await(self, node: ast.Await) -> None:
        self.touched |= self.keeps(node.value)
        self.lazy = True
        self.visit(node.value)

    def see_yield(self, node: ast.Yield) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.kept |= self.keeps(node.value)

    def see_yieldfrom(self, node: ast.YieldFrom) -> None:
        self._iterate(node.value)
        self.visit(node.value)

    def see_compare(self, node: ast.Compare) -> None:
        for operator, value in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                self.drained |= self.keeps(value)
        self.see_other(node)

    def see_subscript(self, node: ast.Subscript) -> None:
        if self.above.defaults:
            self.touched |= self.keeps(node.value)
        self.see_other(node)

    def see_expr(self, node: ast.Expr) -> None:
        """Take in an expression statement: `a >> b` for its own sake is a call in disguise."""
        if isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.LShift | ast.RShift):
            self.touched |= self.keeps(node.value.left) | self.keeps(node.value.right)
        self.visit(node.value)

    def see_lambda(self, node: ast.Lambda) -> None:
        self.locals |= {argument.arg for argument in arguments_of(node)}
        self.see_other(node)

    def see_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Take in a function made inside, which counts as called."""
        self.locals |= {node.name, *(argument.arg for argument in arguments_of(node))}
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
            self.kept |= self.keeps(part)
        for statement in node.body:
            self.visit(statement)

    see_asyncfunctiondef = see_functiondef

    def see_classdef(self, node: ast.ClassDef) -> None:
        self.locals.add(node.name)
        self.see_other(node)

    def see_import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.locals |= {name for name, _ in import_pairs(node)}

    see_importfrom = see_import

    # ------------------------------------------------------------ calls

    def see_call(self, node: ast.Call) -> None:
        self.calls = True
        for word in node.keywords:
            if word.arg in GIVEN_TO_CHANGE:
                self.touched |= self.keeps(word.value)
                self.kept |= self.keeps(word.value)
        if not self._is_exempt(node):
            if self.is_quiet(node):
                self.drained |= self._arguments(node)
            else:
                handed = self._arguments(node) | self._callee(node.func)
                self.touched |= handed
                self.kept |= handed
            self._note_act(node)
        self.see_other(node)

    def _is_exempt(self, node: ast.Call) -> bool:
        return is_exempt(node, self.above.origins, self.is_free)

    def is_free(self, name: str) -> bool:
        """Return whether a name means what it means in Python: nobody above has bound it."""
        return name not in self.above.bound and name not in self.locals

    def _arguments(self, node: ast.Call) -> frozenset[str]:
        values = [*node.args, *(word.value for word in node.keywords)]
        return NOBODY.union(*(self._handed(value) for value in values))

    def _callee(self, func: ast.expr) -> frozenset[str]:
        return self._handed(func) if not self._module_name(func) else NOBODY

    def _handed(self, value: ast.expr) -> frozenset[str]:
        """Return the names whose objects a call gets hold of; of a function by itself its body counts."""
        name = value.id if isinstance(value, ast.Name) and value.id not in self.locals else ""
        is_code = name in self.above.bodies or name in self.above.classes - self.above.counting
        return NOBODY if is_code else self.keeps(value)

    def _module_name(self, func: ast.expr) -> str:
        """Return the full name of a function of an imported module, "" for any other callee."""
        root = dotted(func).partition(".")[0]
        return full_name(func, self.above.origins) if root in self.above.origins and root not in self.locals else ""

    def is_quiet(self, node: ast.Call) -> bool:
        """Return whether a call leaves alone what it is given, but for using up iterators."""
        func, above = node.func, self.above
        if (name := self._module_name(func)) != "":
            root, last = name.partition(".")[0], name.rpartition(".")[2]
            if root not in PURE_MODULES or name in CHANGING_CALLS or name.startswith("numpy.random."):
                return False
            return not _is_told_to_change(node) and not last.startswith("set_")
        if isinstance(func, ast.Name):
            if func.id in above.bodies and func.id not in self.locals:
                return above.bodies[func.id].quiet
            return func.id in SCALARS | LOOKING and self.is_free(func.id)
        if isinstance(func, ast.Attribute):
            if is_logger(func.value) and func.attr in LOG_METHODS - above.methods:
                return True
            return func.attr in METHODS - above.methods and not _is_told_to_change(node)
        return False

    def _note_act(self, node: ast.Call) -> None:
        func, above = node.func, self.above
        if isinstance(func, ast.Name) and func.id in above.bodies and func.id not in self.locals:
            self._acts(above.bodies[func.id].act, node)
            return
        if isinstance(func, ast.Attribute) and func.attr in OUTSIDE_METHODS - above.methods:
            if self._module_name(func).partition(".")[0] not in PURE_MODULES:
                self._acts("outside", node)
            return
        if id(node) not in self.discarded or self.is_quiet(node):
            return
        if isinstance(func, ast.Name) and self.is_free(func.id) and func.id not in above.origins:
            return  # a builtin: what it changes it is given
        if isinstance(func, ast.Attribute) and not self._module_name(func):
            return  # a method changes its object
        self._acts("call", node)

    def _acts(self, act: Act, node: ast.AST) -> None:
        if act and (not self.act or (act == "outside" and self.act == "call")):
            self.act, self.line = act, getattr(node, "lineno", 1)

    # ------------------------------------------------------------ values

    def keeps(self, node: ast.expr) -> frozenset[str]:
        """Return the names whose objects a value may be, be a part of, or hold."""
        match node:
            case ast.Name(id=name):
                return frozenset({name})
            case ast.Attribute(attr=attribute) if attribute in SCALAR_ATTRIBUTES:
                return NOBODY
            case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
                return self.keeps(value)
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.keeps(value)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
                return NOBODY.union(*(self.keeps(part) for part in parts))
            case ast.Dict(values=parts):
                return NOBODY.union(*(self.keeps(part) for part in parts))
            case ast.IfExp(body=one, orelse=other):
                return self.keeps(one) | self.keeps(other)
            case ast.BinOp(op=ast.Div() | ast.FloorDiv() | ast.Mod() | ast.Pow() | ast.MatMult()):
                return NOBODY
            case ast.BinOp(left=left, right=right):
                return self.keeps(left) | self.keeps(right)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehended(node)
            case ast.Lambda():
                inner = {argument.arg for argument in arguments_of(node)}
                return frozenset(name for name in _loads(node) if name not in inner)
            case ast.Call():
                return self._given_back(node)
        return NOBODY

    def _comprehended(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> frozenset[str]:
        sources = NOBODY.union(*(self.keeps(each.iter) for each in node.generators))
        inner = {name for each in node.generators for name in target_names(each.target)}
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        names = NOBODY.union(*(self.keeps(result) for result in results))
        if isinstance(node, ast.GeneratorExp):
            return names | sources
        return (names - inner) | (sources if names & inner else NOBODY)

    def _given_back(self, node: ast.Call) -> frozenset[str]:
        func = node.func
        if isinstance(func, ast.Name) and func.id in SCALARS and self.is_free(func.id):
            return NOBODY
        name = self._module_name(func)
        if name.startswith(("math.", "statistics.", "copy.deepcopy", "json.", "time.", "datetime.")):
            return NOBODY
        if isinstance(func, ast.Attribute) and func.attr in SCALAR_METHODS - self.above.methods and not name:
            return NOBODY
        return self._arguments(node) | self._callee(func)

    def is_lazy(self, node: ast.expr) -> bool:
        """Return whether a value may be an iterator that is made here."""
        match node:
            case ast.GeneratorExp() | ast.Await():
                return True
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
                return any(self.is_lazy(part) for part in parts)
            case ast.Dict(values=parts):
                return any(self.is_lazy(part) for part in parts)
            case ast.IfExp(body=one, orelse=other):
                return self.is_lazy(one) or self.is_lazy(other)
            case ast.ListComp(elt=result) | ast.SetComp(elt=result) | ast.DictComp(value=result):
                return self.is_lazy(result)
            case ast.NamedExpr(value=value) | ast.Starred(value=value):
                return self.is_lazy(value)
            case ast.Call():
                return self._gives_iterator(node)
        return False

    def _gives_iterator(self, node: ast.Call) -> bool:
        func, above = node.func, self.above
        if (name := self._module_name(func)) != "":
            keywords = {word.arg for word in node.keywords}
            return (
                name.partition(".")[0] not in EAGER_MODULES
                or name.rpartition(".")[2] in LAZY_CALLS
                or bool(keywords & {"chunksize", "iterator"})
            )
        if isinstance(func, ast.Name) and func.id not in self.locals:
            if func.id in above.bodies:
                return above.bodies[func.id].lazy
            if func.id in above.classes:
                return above.iterators
            return func.id not in SCALARS | LOOKING - LAZY_BUILTINS or not self.is_free(func.id)
        if isinstance(func, ast.Attribute):
            return func.attr not in METHODS - LAZY_METHODS - above.methods
        return True


def _is_told_to_change(node: ast.Call) -> bool:
    """Return whether a call is given `inplace` or `out`."""
    return any(
        word.arg is None
        or word.arg == "out"
        or (word.arg == "inplace" and not (isinstance(word.value, ast.Constant) and not word.value.value))
        for word in node.keywords
    )


def _is_fixed(value: ast.expr, reader: _Reader) -> bool:
    """Return whether a value can never change: numbers, text, and tuples of such."""
    match value:
        case ast.Constant() | ast.JoinedStr():
            return True
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return all(_is_fixed(part, reader) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _is_fixed(left, reader) and _is_fixed(right, reader)
        case ast.UnaryOp(op=operator, operand=operand):
            return isinstance(operator, ast.Not) or _is_fixed(operand, reader)
        case ast.IfExp(body=one, orelse=other):
            return _is_fixed(one, reader) and _is_fixed(other, reader)
        case ast.Call(func=ast.Name(id=name)):
            return name in FIXED and reader.is_free(name)
    return False


def _loads(node: ast.AST) -> Iterator[str]:
    """Yield the names that are loaded anywhere below a node."""
    return (part.id for part in descend(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))
