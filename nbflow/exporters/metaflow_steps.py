"""One step's cell as the body of a Metaflow step: its inputs from `self`, the cell, its outputs into `self`."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import msgspec

from nbflow.analysis import analyse
from nbflow.exporters.interface import Notes
from nbflow.exporters.metaflow_names import STATES, Names
from nbflow.exporters.needs import Needs, entry_names, function_makers, function_names, pieces_of, unstorable
from nbflow.exporters.text import environment_variables, indent, plain_python, rename, show_last
from nbflow.model import Binding, Flow, Parameter, Step

MOVES = {
    "<random>": ("random", "random.setstate({})", "random.getstate()"),
    "<numpy.random>": ("numpy", "numpy.random.set_state({})", "numpy.random.get_state()"),
    "<torch>": ("torch", "torch.set_rng_state({})", "torch.get_rng_state()"),
}
"""Random state -> the module, how it is put back, how it is read."""

CONVERSIONS = {
    "File": ("as_file", "as_file({default}, {value})"), "tuple": ("", "tuple({value})"), "set": ("", "set({value})"),
    "Path": ("pathlib", "pathlib.Path({value})"), "date": ("datetime", "datetime.date.fromisoformat({value})"),
    "datetime": ("datetime", "datetime.datetime.fromisoformat({value})"),
}  # fmt: skip
"""A parameter's type -> what has to be imported or defined, and how its value is made of what Metaflow keeps."""


def type_name(parameter: Parameter) -> str:
    """A parameter in; its type's bare name, `list` of `list[int]`, out."""
    return re.sub(r"\[.*", "", parameter.annotation or "").rpartition(".")[2]


class StepTexts:
    """Texts of steps; `wanted` gathers the modules and the helpers that they need."""

    def __init__(self, flow: Flow, needs: Needs, names: Names, notes: Notes) -> None:
        self.flow, self.needs, self.names, self.notes = flow, needs, names, notes
        self.parameters = {parameter.name: parameter for parameter in flow.parameters}
        self.caught = {step.options.catch for step in flow.steps if step.options.catch}
        self.wanted: set[str] = set()
        makers = function_makers(flow.definitions)
        held = {name for step in flow.steps for name in function_names(_tree(self.cell(step)), makers)}
        self.pickled = held & {name for step in flow.steps for name in step.writes}

    # ------------------------------------------------------------ the cell

    def cell(self, step: Step) -> str:
        """A step in; its cell as plain Python, without the definitions that stand at the top of the file, out."""
        source = step.source
        if analyse(source).cell_magic in ("time", "capture"):
            self.notes.lost(f"%%{analyse(source).cell_magic} of {step.label}", step=step.name, cell=step.cell)
            source = re.sub(r"(?m)^%%(time|capture)\b.*$", "", source, count=1)
        texts = []
        for piece in pieces_of(source, self.needs.lifted(step)):
            plain = ("", "") if environment_variables(piece.text) else plain_python(piece.text, self.flow.writers)
            if plain is None:
                self.notes.refused(
                    f"{piece.text.strip().splitlines()[0]!r} has no counterpart outside of IPython", step=step.name,
                    cell=step.cell, line=piece.line, fix="write it in Python, or move it into a cell that no step needs",
                )  # fmt: skip
            elif plain[0] != piece.text:
                self.notes.changed(f"{piece.text.strip()!r} in {step.label}", step=step.name, cell=step.cell)
            texts.append(plain[0] if plain else "")
            self.wanted |= {plain[1]} - {""} if plain else set()
        text = show_last("\n".join(texts).strip("\n"))
        self._check(step, text)
        if step.options.join and "inputs.frame()" in text:
            self.wanted |= {"frame", "pandas"}
            body = [other for other in self.flow.steps if self._head(step) in other.scope]
            columns = sorted({name for other in body for name in other.writes if not name.startswith("<")})
            text = text.replace("inputs.frame()", f"frame(inputs, {columns})")
        return text

    def _head(self, step: Step) -> str:
        joined = next((other for other in self.flow.steps if other.name in step.options.join and other.scope), None)
        return joined.scope[-1] if joined else ""

    def _check(self, step: Step, text: str) -> None:
        """Refuse what means something else within a method; note helpers that the cell needs."""
        tree = _tree(text)
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if "display" in words:
            self.wanted.add("display")
        for name in sorted(words):
            private = name.startswith("__") and not name.endswith("__")
            if private or name in ("self", "get_ipython"):
                why = {"self": "Metaflow's own", "get_ipython": "IPython's own"}.get(name, "another name within a class")
                self.notes.refused(f"{step.label} uses {name}, which is {why}", step=step.name, cell=step.cell, name=name,
                                   fix="use another name")  # fmt: skip
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if step.options.join and "item" in attributes:
            self.wanted.add(f"item:{self._head(step)}")

    # ------------------------------------------------------------ around it

    def whole(self, step: Step, text: str | None = None) -> str:
        """A step, and its text where that is not its cell, in; inputs bound, the cell, outputs kept, out."""
        text = self.cell(step) if text is None else text
        parts = [*self.bind(step, step.bindings, text), text]
        kept = self.keep(step, text)
        if f"item:{step.name}" in self.wanted and "item" not in step.writes:
            kept.append("self.item = self.input")
        if step.options.catch and kept and text:
            parts[-1] = f"try:\n{indent(text, 4)}\nfinally:\n{indent(chr(10).join(kept), 4)}"
            kept = []
        whole = "\n".join(part for part in [*parts, *kept] if part)
        if analyse(text).awaits:
            self.wanted.add("asyncio")
            return f"async def work():\n{indent(whole, 4)}\n\nasyncio.run(work())"
        return whole

    def bind(self, step: Step, bindings: Sequence[Binding], text: str) -> list[str]:
        """A step in; the lines that come before its cell out: globals, older definitions, inputs."""
        inlined = self.needs.inlined(step)
        self.needs.check_versions(step)
        bindings = [bind for bind in bindings if not (bind.name == "inputs" and step.options.join)]
        shared = self.shared(step, bindings, text)
        lines = [f"global {', '.join(sorted(shared))}"] if shared else []
        done: set[str] = set()
        by_name = {bind.name: bind for bind in bindings}
        for d in inlined:
            early = [bind for bind in d.binds if bind.name not in done]
            lines += [self._bound(bind) for bind in early]
            done |= {bind.name for bind in early}
            plain = plain_python(d.source, self.flow.writers)
            self.wanted |= {plain[1]} - {""} if plain else set()
            lines.append(plain[0] if plain else "")
        if step.targets and step.options.foreach is not None:
            lines.append(f"{step.options.foreach.target} = self.input")
        return [*lines, *(self._bound(bind) for name, bind in by_name.items() if name not in done)]

    def shared(self, step: Step, bindings: Sequence[Binding], text: str) -> set[str]:
        """A step in; the names that have to be globals of the file out.

        Functions at the top of the file read them, or the cell itself changes what the file has bound.
        """
        made = {name for d in self.needs.inlined(step) for name in d.names}
        used = {name for order in step.definitions for name in self.flow.definitions[order].names}
        fallback = {b.name for b in bindings if b.sources and b.sources[0].step and b.sources[-1].definition is not None}
        cell = analyse(text).writes
        taken = {bind.name for bind in bindings} | set(step.targets) | made | cell
        return (taken & self.needs.free(step)) | (cell & used & self.needs.last.keys()) | fallback

    def _bound(self, bind: Binding) -> str:
        if bind.name in MOVES:
            self.wanted.add(MOVES[bind.name][0])
            return MOVES[bind.name][1].format(f"self.{STATES[bind.name]}")
        line = f"{bind.name} = {self.value(bind.name)}"
        here = [source for source in bind.sources if source.definition is None]
        if not here or len(here) < len(bind.sources) or (not bind.sure and self.needs.can_miss(bind)):
            return f'if hasattr(self, "{self.names.artifacts.get(bind.name, bind.name)}"):\n    {line}'
        return line

    def value(self, name: str) -> str:
        """A data name in; the expression that gives its value in a step out."""
        value = f"self.{self.names.artifacts.get(name, name)}"
        if name in self.parameters and type_name(self.parameters[name]) in CONVERSIONS:
            need, form = CONVERSIONS[type_name(self.parameters[name])]
            self.wanted |= {need} - {""}
            return form.format(value=value, default=self.parameters[name].default or repr(name))
        if name in self.caught:
            self.wanted.add("caught")
            return f"caught({value})"
        if name in self.pickled:
            self.wanted.add("cloudpickle")
            return f"cloudpickle.loads({value})"
        return value

    def expression(self, text: str, bindings: Sequence[Binding], targets: Sequence[str] = ()) -> str:
        """An option's expression in; the same with artifacts taken from `self` out."""
        data = {bind.name for bind in bindings}
        return rename(text, lambda name: "self.input" if name in targets else self.value(name) if name in data else name)

    def keep(self, step: Step, text: str) -> list[str]:
        """A step in; the lines that make its outputs artifacts, in the order in which the cell names them, out."""
        tree = _tree(text)
        gone = unstorable(tree, entry_names(tree) if step.options.join else frozenset())
        unsure = self.needs.unsure(step)
        shared = self.shared(step, step.bindings, text)
        lines = []
        order = {name: at for at, name in enumerate(re.findall(r"\w+", text)[::-1])}
        for name in sorted(step.writes, key=lambda name: -order.get(name, -1)):
            if name in MOVES:
                lines.append(f"self.{STATES[name]} = {MOVES[name][2]}")
                self.wanted.add(MOVES[name][0])
            elif name in gone:
                self._leave_out(step, name, gone[name])
            elif name != step.options.catch:
                value = f"cloudpickle.dumps({name})" if name in self.pickled else name
                self.wanted |= {"cloudpickle"} if name in self.pickled else set()
                line = f"self.{self.names.artifacts[name]} = {value}"
                space = "globals" if name in shared else "locals"
                lines.append(f'if "{name}" in {space}():\n    {line}' if name in unsure else line)
        return lines

    def _leave_out(self, step: Step, name: str, kind: str) -> None:
        readers = [edge.to for edge in self.flow.edges if edge.frm == step.name and name in edge.names]
        if readers:
            self.notes.refused(
                f"{name} is {kind}, which Metaflow cannot keep, and {readers[0]} reads it", step=step.name, cell=step.cell,
                name=name, fix="keep what is needed of it under a name of its own, or make it where it is used",
            )  # fmt: skip
        else:
            self.notes.lost(f"{name} of {step.label}: it is {kind}", step=step.name, cell=step.cell, name=name)


    # ------------------------------------------------------------ fan-outs whose items take from each other

    def ahead(self, listed: Step) -> list[str]:
        """The list of a foreach in; the lines that its expression needs before it out."""
        given = {bind.name for bind in listed.bindings} & self.needs.free(listed)
        update = ", ".join(f"{name}={self.value(name)}" for name in sorted(given))
        return [*(d.source for d in self.needs.inlined(listed)), *([f"globals().update({update})"] if given else [])]

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
        return msgspec.structs.replace(
            steps[0], options=msgspec.structs.replace(steps[0].options, foreach=None, condition=None, until=None, catch=None),
            bindings=tuple(binds.values()), writes=writes, conditional=writes, targets=(),
            definitions=tuple(sorted({order for step in [*steps, *listed] for order in step.definitions})),
        )  # fmt: skip

    def loop(self, head: Step, inner: Sequence[str], body: Sequence[Step], *, joined: bool) -> str:
        """A fan-out's head, the texts of its steps and the steps in; it as a for loop out."""
        assert head.options.foreach is not None  # noqa: S101  # only foreach steps open a scope
        target, items = head.options.foreach.target, f"{self.names.steps[head.name]}_items"
        lines = [f"for {target} in {head.options.foreach.expr}:", *(indent(text, 4) for text in inner)]
        if joined:
            self.wanted |= {"copy", "types"}
            sure = {name for step in body for name in (*step.writes, *step.reads) if name not in self.needs.unsure(step)}
            given = ", ".join(f"{name}={name}" for name in sorted(sure) if not name.startswith("<") and name != "inputs")
            left = f"types.SimpleNamespace(index=len({items}), item={target}, {given})"
            lines = [f"{items} = []", *lines, f"    {items}.append(copy.deepcopy({left}))"]
        return "\n".join(lines)

    def within(self, step: Step, head: Step | None = None) -> str:
        """A step of such a fan-out in (a join with the head of what it joins); its cell as a part of the loop out."""
        text, options = self.cell(step) or "pass", step.options
        if head is not None:
            text = f"inputs = {self.names.steps[head.name]}_items\n{text}"
        if options.until:
            text = f"for _ in range({options.max}):\n{indent(text, 4)}\n    if {options.until}:\n        break"
        if options.catch:
            self.wanted |= {"traceback", "types"}
            left = "types.SimpleNamespace(type=type(failure).__name__, message=str(failure), traceback=traceback.format_exc())"
            text = f"try:\n{indent(text, 4)}\n    {options.catch} = None\nexcept Exception as failure:\n    {options.catch} = {left}"
        tests = [f'"{name}" in locals()' for name in self.needs.lost(step)] + ([f"({options.condition})"] if options.condition else [])
        text = f"if {' and '.join(tests)}:\n{indent(text, 4)}" if tests else text
        return f"# {step.label}\n{text}"


def _tree(text: str) -> ast.Module:
    try:
        return compile(text, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # type: ignore[return-value]
    except SyntaxError:
        return ast.Module([], [])
