"""Cells as plain Python for targets that are Python files: text, globals and older definitions, fan-outs as loops.

A target says by `value` how a step gets at what another one has left.
"""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

import msgspec

from nbflow.analysis import analyse
from nbflow.exporters.interface import Notes
from nbflow.exporters.needs import Needs, pieces_of
from nbflow.exporters.structure import Item
from nbflow.exporters.text import environment_variables, indent, plain_python, rename, show_last, string_lines
from nbflow.exporters.values import (
    aliases,
    entry_names,
    function_makers,
    function_names,
    inner_names,
    late_names,
    parsed,
    unstorable,
)
from nbflow.model import Binding, Definition, Flow, Parameter, Step

OWN_NAMES = {"get_ipython": "IPython's own"}
STATES = {
    "<random>": ("random", "random.setstate({})", "random.getstate()"),
    "<numpy.random>": ("numpy", "numpy.random.set_state({})", "numpy.random.get_state()"),
    "<torch>": ("torch", "torch.set_rng_state({})", "torch.get_rng_state()"),
}
"""Random state -> the module, how it is put back, how it is read."""
STATE_NAMES = {"<random>": "random_state", "<numpy.random>": "numpy_random_state", "<torch>": "torch_random_state"}
"""Random state -> the name of the artifact that it travels as."""


class PlainSteps(ABC):
    """Texts of a flow's steps; `wanted` gathers the modules and the helpers that they need."""

    target = ""
    own_names = OWN_NAMES

    def __init__(self, flow: Flow, needs: Needs, notes: Notes, known_gone: Collection[str] = ()) -> None:
        self.flow, self.needs, self.notes = flow, needs, notes
        self.known_gone = known_gone  # names that an earlier run could not store
        self.functions: frozenset[str] = frozenset()
        self.wanted: set[str] = set()
        self.gone: set[str] = set()  # names that no step keeps
        makers = function_makers(flow.definitions)
        held = {name for step in flow.steps for name in function_names(parsed(self.cell(step)), makers)}
        self.functions = frozenset(
            held & {name for step in flow.steps for name in step.writes}
        )  # names that may hold functions

    @abstractmethod
    def value(self, name: str) -> str:
        """A data name in; the expression that gives its value in a step out."""

    @abstractmethod
    def bound(self, bind: Binding) -> str:
        """An input in; the lines that bind its name out."""

    def items_name(self, head: Step) -> str:
        """The head of a fan-out in; what its items are called out."""
        return f"{re.sub(r'[^a-z0-9]+', '_', head.name.lower()).strip('_')}_items"

    # ------------------------------------------------------------ the cell

    def cell(self, step: Step) -> str:
        """A step in; its cell as plain Python, without the definitions that stand at the top of the file, out."""
        source, magic = step.source, analyse(step.source).cell_magic
        if magic in ("time", "capture"):
            self.notes.lost(f"%%{magic} of {step.label}", step=step.name, cell=step.cell)
            source = re.sub(r"(?m)^%%(time|capture)\b.*$", "", source, count=1)
        texts = []
        for piece in pieces_of(source, self.needs.lifted(step)):
            text = self.plain(piece.text, step.cell, piece.line)
            if text != piece.text and text:
                self.notes.changed(f"`{piece.text.strip()}` in {step.label}", step=step.name, cell=step.cell)
            texts.append(text)
        text = show_last("\n".join(texts).strip("\n"))
        text = text if string_lines(text) else re.sub(r"\n{3,}", "\n\n", text)  # where a definition was taken out
        self._check(step, text)
        if step.options.join and "inputs.frame()" in text:
            self.wanted.add("frame")
            body = [other for other in self.flow.steps if self.joined(step) in other.scope]
            columns = sorted({name for other in body for name in other.writes if not name.startswith("<")})
            text = text.replace("inputs.frame()", f"frame(inputs, {columns})")
        return text

    def plain(self, text: str, cell: str, line: int) -> str:
        """A piece of a cell in; it as plain Python out; what IPython alone understands is refused, or left out."""
        if environment_variables(text):
            return ""
        plain = plain_python(text, self.flow.writers)
        if plain is None:
            first = next((part for part in text.strip().splitlines() if not part.startswith("#")), "")
            self.notes.refused(
                f"{first!r} has no counterpart outside of IPython", cell=cell, line=line,
                fix="write it in Python, or move it into a cell that no step needs",
            )  # fmt: skip
            return ""
        if not plain[0].strip() and text.strip():
            self.notes.lost(f"`{text.strip()}`", cell=cell)
        self.wanted |= {plain[1]} - {""}
        return plain[0]

    def joined(self, step: Step) -> str:
        """A join in; the head of the fan-out that it closes out."""
        found = next((other for other in self.flow.steps if other.name in step.options.join and other.scope), None)
        return found.scope[-1] if found else ""

    def _check(self, step: Step, text: str) -> None:
        """Refuse what means something else within a method; note helpers that the cell needs."""
        nodes = [*ast.walk(parsed(text))]
        words = {node.id for node in nodes if isinstance(node, ast.Name)}
        self.wanted |= {"display"} & words
        for name in sorted(words):
            private = name.startswith("__") and not name.endswith("__")
            if private or name in self.own_names:
                self.notes.refused(
                    f"{step.label} uses {name}, which is {self.own_names.get(name, 'another name within a class')}",
                    step=step.name, cell=step.cell, name=name, fix="use another name",
                )  # fmt: skip
        if step.options.join and any(isinstance(node, ast.Attribute) and node.attr == "item" for node in nodes):
            self.wanted.add(f"item:{self.joined(step)}")
        if step.scope and any(name.startswith("<") for name in (*step.reads, *step.writes)):
            self.notes.refused(
                f"{step.label} draws from a global random state within a fan-out", step=step.name, cell=step.cell,
                fix="make a generator of its own in the step, such as random.Random(seed)",
            )  # fmt: skip

    # ------------------------------------------------------------ around it

    def ahead(self, step: Step, bindings: Sequence[Binding], text: str) -> list[str]:
        """A step in; the lines that come before its cell out: globals, older definitions, inputs."""
        self.needs.check_versions(step)
        shared = self.shared(step, bindings, text)
        lines = [f"global {', '.join(sorted(shared))}"] if shared else []
        done: set[str] = set()
        for d in self.needs.inlined(step):
            early = [bind for bind in d.binds if bind.name not in done]
            lines += [self.bound(bind) for bind in early]
            done |= {bind.name for bind in early}
            text = self.plain(d.source.strip("\n"), d.cell, d.line)
            lines.append(f"{text}\n" if text.startswith(("def ", "class ", "@", "async ")) else text)
        return [*lines, *(self.bound(bind) for bind in self.data(step, bindings) if bind.name not in done)]

    @staticmethod
    def data(step: Step, bindings: Sequence[Binding]) -> list[Binding]:
        """A step's bindings in; those that take data from a step, or from an earlier turn, out."""
        found = [bind for bind in bindings if not bind.sources or any(source.step for source in bind.sources)]
        return [bind for bind in found if not (bind.name == "inputs" and step.options.join)]

    def shared(self, step: Step, bindings: Sequence[Binding], text: str) -> set[str]:
        """A step in; the names that have to be globals of the file out.

        Functions at the top of the file read them, or the cell itself changes what the file has bound.
        """
        bindings = self.data(step, bindings)
        made = {name for d in self.needs.inlined(step) for name in d.names}
        used = {name for order in step.definitions for name in self.flow.definitions[order].names}
        behind = {b.name for b in bindings if b.sources and b.sources[0].step and b.sources[-1].definition is not None}
        cell = {name for statement in analyse(text).statements for name in statement.writes} | analyse(text).writes
        taken = {bind.name for bind in bindings} | set(step.targets) | made | cell
        late = taken & late_names(parsed(text)) if self.functions & set(step.writes) else set()
        return late | (taken & self.needs.free(step)) | (cell & used & self.needs.last.keys()) | behind

    def expression(self, text: str, data: Collection[str], targets: Sequence[str] = (), item: str = "") -> str:
        """An option's expression in; the same with each data name's `value`, and `item` for loop variables, out."""
        return rename(text, lambda name: item if name in targets else self.value(name) if name in data else name)

    def before_list(self, listed: Step) -> list[str]:
        """The list of a foreach in; the lines that its expression needs before it out."""
        given = {bind.name for bind in listed.bindings} & self.needs.free(listed)
        update = ", ".join(f"{name}={self.value(name)}" for name in sorted(given))
        inlined: list[Definition] = [*self.needs.inlined(listed)]
        return [*(d.source for d in inlined), *([f"globals().update({update})"] if given else [])]

    def outputs(self, step: Step, text: str) -> list[tuple[str, str, str]]:
        """A step in; its outputs as (name, value, test or ""), in the order in which the cell names them, out."""
        tree = parsed(text)
        gone = dict.fromkeys(self.known_gone, "what could not be stored in an earlier run")
        gone.update((name, "bound within an expression") for name in inner_names(tree) if not self.readers(step, name))
        gone.update(unstorable(tree, entry_names(tree) if step.options.join else frozenset()))
        shared = self.shared(step, step.bindings, text)
        place = {name: -at for at, name in enumerate(re.findall(r"\w+", text)[::-1])}
        found = []
        for name in sorted(step.writes, key=lambda name: (place.get(name, 1), name)):
            if name in STATES:
                self.wanted.add(STATES[name][0])
                found.append((name, STATES[name][2], ""))
            elif name in gone:
                self._leave_out(step, name, gone[name])
            elif name != step.options.catch:
                value = f"cloudpickle.dumps({name})" if name in self.functions else name
                self.wanted |= {"cloudpickle"} if name in self.functions else set()
                space = "globals" if name in shared else "locals"
                found.append((name, value, f'"{name}" in {space}()' if name in self.needs.unsure(step) else ""))
        return found

    def _leave_out(self, step: Step, name: str, kind: str) -> None:
        self.gone.add(name)
        readers = self.readers(step, name)
        if readers:
            self.notes.refused(
                f"{name} is {kind}, which {self.target} cannot keep, and {readers[0]} reads it", step=step.name,
                cell=step.cell, name=name,
                fix="keep what is needed of it under a name of its own, or make it where it is used",
            )  # fmt: skip
        else:
            self.notes.lost(f"{name} of {step.label}: it is {kind}", step=step.name, cell=step.cell, name=name)

    def readers(self, step: Step, name: str) -> list[str]:
        """A step and a name in; the steps that read it from there out."""
        return [edge.to for edge in self.flow.edges if edge.frm == step.name and name in edge.names]

    def note_aliases(self) -> None:
        """Tell where two names are one object and a later step changes it: elsewhere each name is kept by itself."""
        data = {name for step in self.flow.steps for name in step.writes}
        for step in self.flow.steps:
            later = [other for other in self.flow.steps if other.order > step.order]
            for pair in sorted(aliases(parsed(step.source))):
                for one, other in (pair, pair[::-1]) if data.issuperset(pair) else ():
                    changing = next((s for s in later if one in s.writes and one in s.reads), None)
                    if changing and any(other in s.reads for s in later if s.order >= changing.order):
                        what = f"what {changing.label} changes in {one}, {other} does not show in {self.target}"
                        self.notes.lost(
                            f"{one} and {other} may be one object: {what}", step=step.name, cell=step.cell,
                        )  # fmt: skip

    def is_guarded(self, bind: Binding) -> bool:
        """Whether an input may not be there: the step then goes without it, or with the definition behind it."""
        steps = [source for source in bind.sources if source.definition is None]
        return not steps or len(steps) < len(bind.sources) or (not bind.sure and self.needs.can_miss(bind))

    def awaited(self, text: str) -> str:
        """A step's text in; within a coroutine that is run, if it awaits, out."""
        if not analyse(text).awaits:
            return text
        self.wanted.add("asyncio")
        name = "main" if "main" not in re.findall(r"\w+", text) else "main_of_cell"
        return f"async def {name}():\n{indent(text, 4)}\n\nasyncio.run({name}())"

    # ------------------------------------------------------------ fan-outs whose items take from each other

    def sequence(self, steps: Sequence[Step]) -> Step:
        """A fan-out's steps in; one step that takes what they take from outside, and leaves what they leave, out."""
        inside = {step.name for step in steps}
        listed = [self.flow.lists[step.name] for step in steps if step.name in self.flow.lists]
        binds: dict[str, Binding] = {}
        for bind in (bind for step in [*steps, *listed] for bind in step.bindings):
            outer = tuple(source for source in bind.sources if source.step not in inside)
            if bind.name not in binds and bind.name != "inputs" and (outer or not any(s.sure for s in bind.sources)):
                found = Binding(name=bind.name, sources=outer)
                binds[bind.name] = msgspec.structs.replace(found, sure=bool(outer) and not self.needs.can_miss(found))
        writes = tuple(sorted({name for step in steps for name in step.writes}))
        alone = msgspec.structs.replace(steps[0].options, foreach=None, condition=None, until=None, catch=None)
        return msgspec.structs.replace(
            steps[0], options=alone, bindings=tuple(binds.values()), writes=writes, conditional=writes, targets=(),
            definitions=tuple(sorted({order for step in [*steps, *listed] for order in step.definitions})),
        )  # fmt: skip

    def loop(self, item: Item) -> str:
        """A fan-out in; it as a for loop, fan-outs within it too, each with its join below it, out."""
        head, inner = item.steps[0], list[str]()
        for part in item.body:
            inner.append(self.loop(part) if part.body else self.within(part.steps[0]))
            if part.join is not None:
                inner.append(self.within(part.join, part.steps[0]))
        assert head.options.foreach is not None  # noqa: S101  # only foreach steps open a scope
        target, items = head.options.foreach.target, self.items_name(head)
        lines = [f"for {target} in {head.options.foreach.expr}:", *(indent(text, 4) for text in inner)]
        if item.join is None:
            return "\n".join(lines)
        self.wanted |= {"copy", "types"}
        body = [step for step in item.steps if step is not item.join]
        names = {name for step in body for name in (*step.writes, *step.reads) if name not in self.needs.unsure(step)}
        given = ", ".join(f"{name}={name}" for name in sorted(names) if not name.startswith("<") and name != "inputs")
        left = f"types.SimpleNamespace(index=len({items}), item={target}, {given})"
        return "\n".join([f"{items} = []", *lines, f"    {items}.append(copy.deepcopy({left}))"])

    def within(self, step: Step, head: Step | None = None) -> str:
        """A step of such a fan-out in (a join with the head of what it joins); its cell as a part of the loop out."""
        text, options = self.cell(step) or "pass", step.options
        if head is not None:
            text = f"inputs = {self.items_name(head)}\n{text}"
        if options.until:
            text = f"for _ in range({options.max}):\n{indent(text, 4)}\n    if {options.until}:\n        break"
        if options.catch:
            self.wanted |= {"traceback", "types"}
            kept = "type=type(failure).__name__, message=str(failure), traceback=traceback.format_exc()"
            text = (
                f"try:\n{indent(text, 4)}\n    {options.catch} = None\n"
                f"except Exception as failure:\n    {options.catch} = types.SimpleNamespace({kept})"
            )
        tests = [f'"{name}" in locals()' for name in self.needs.lost(step)]
        tests += [f"({options.condition})"] if options.condition else []
        text = f"if {' and '.join(tests)}:\n{indent(text, 4)}" if tests else text
        return f"# {step.label}\n{text}"


def type_name(parameter: Parameter) -> str:
    """A parameter in; its type's bare name, `list` of `list[int]`, out."""
    return re.sub(r"\[.*", "", parameter.annotation or "").rpartition(".")[2]


def text_in(parameter: Parameter) -> str:
    """A parameter in; the first text in its default, `a.csv` of `File("a.csv")`, else its name, quoted, out."""
    texts = [node.value for node in ast.walk(ast.parse(parameter.default or "0")) if isinstance(node, ast.Constant)]
    return repr(next((text for text in texts if isinstance(text, str)), parameter.name))
