"""Cells as plain Python for targets that are Python files: text, globals and older definitions, fan-outs as loops.

A target says by `value` how a step reaches what another one has left.
"""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

import msgspec

from nbflow.analysis.cell import analyse
from nbflow.analysis.source import star_modules
from nbflow.exporters.cell_text import environment_variables, indent, plain_python, rename, show_last, string_lines
from nbflow.exporters.definitions import Needs, pieces_of
from nbflow.exporters.exporter import Notes
from nbflow.exporters.identifiers import GeneratedImports
from nbflow.exporters.structure import Item
from nbflow.exporters.value_kinds import (
    aliases,
    changed_names,
    entry_names,
    function_makers,
    function_names,
    inner_names,
    late_names,
    late_outer_names,
    parsed,
    unstorable,
)
from nbflow.flow.fanouts import carried_names
from nbflow.model import Binding, Definition, Flow, Step

OWN_NAMES = {"get_ipython": "IPython's own"}
STATES = {
    "<random>": ("random", "setstate({})", "getstate()"),
    "<numpy.random>": ("numpy", "random.set_state({})", "random.get_state()"),
    "<torch>": ("torch", "set_rng_state({})", "get_rng_state()"),
}
"""Random state -> the module, how it is put back, how it is read."""
STATE_NAMES = {"<random>": "random_state", "<numpy.random>": "numpy_random_state", "<torch>": "torch_random_state"}
"""Random state -> the name of the artifact that it travels as."""
_NAMED = re.compile(r"\.\s*([^\W\d]\w*)|['\"](\w+)['\"]")
_BY_ANY_NAME = re.compile(r"getattr\([^,]+,\s*[^'\"\s]|\bvars\(|__dict__|\.names\(|\.frame\(")


class PlainSteps(ABC):
    """Texts of a flow's steps; `words` gathers the modules and the helpers that they need."""

    target = ""
    item = ""  # the expression for the item of a fan-out that a task has
    own_names = OWN_NAMES

    def __init__(
        self, flow: Flow, needs: Needs, words: GeneratedImports, notes: Notes, known_gone: Collection[str] = ()
    ) -> None:
        self.flow, self.needs, self.words, self.notes = flow, needs, words, notes
        self.known_gone = known_gone  # names that an earlier run could not store
        self.functions: frozenset[str] = frozenset()
        self.carried = carried_names(flow.steps)
        self.item_wanted: set[str] = set()  # heads of fan-outs whose join reads `.item`
        self.gone: set[str] = set()  # names that no step keeps
        makers = function_makers(flow.definitions)
        functions = {name for step in flow.steps for name in function_names(parsed(self.cell(step)), makers)}
        self.functions = frozenset(
            functions & {name for step in flow.steps for name in step.writes}
        )  # names that may hold functions

    @abstractmethod
    def value(self, name: str, task: str = "self") -> str:
        """Return the expression that gives a data name's value, of the task that holds it."""

    @abstractmethod
    def is_kept(self, name: str) -> str:
        """Return the test whether a step has left a data name."""

    @abstractmethod
    def kept(self, name: str, value: str) -> str:
        """Return the line that leaves an expression to later steps under a data name."""

    @abstractmethod
    def bound(self, bind: Binding) -> str:
        """Return the lines that bind an input's name."""

    def items_name(self, head: Step) -> str:
        """Return what the items of a fan-out are called."""
        return self.words.mark(f"{re.sub(r'[^a-z0-9]+', '_', head.name.lower()).strip('_')}_items")

    # ------------------------------------------------------------ the cell

    def cell(self, step: Step) -> str:
        """Return a step's cell as plain Python, without the definitions that stand at the top of the file."""
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
            columns = sorted({name for other in self.body(step) for name in other.writes if not name.startswith("<")})
            text = text.replace("inputs.frame()", f"{self.words.helper('frame')}(inputs, {columns})")
        return text

    def plain(self, text: str, cell: str, line: int) -> str:
        """Return a piece of a cell as plain Python; what IPython alone understands is refused, or left out."""
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
        if plain[1]:
            self.words.module(plain[1])
        return plain[0]

    def joined(self, step: Step) -> str:
        """Return the head of the fan-out that a join closes."""
        inner = next((other for other in self.flow.steps if other.name in step.options.join and other.scope), None)
        return inner.scope[-1] if inner else ""

    def body(self, join: Step) -> list[Step]:
        """Return the steps of the fan-out that a join closes, those of fan-outs within it too."""
        return [step for step in self.flow.steps if self.joined(join) in step.scope]

    def asked(self, join: Step, text: str) -> list[str]:
        """Return the names that a join may ask its fan-out's items for, sorted."""
        definitions = [self.flow.definitions[order] for step in self.body(join) for order in step.definitions]
        constants = {name for d in definitions if d.kind == "definition" and not d.origins for name in d.names}
        names = constants.union(*((*step.reads, *step.writes) for step in self.body(join)))
        texts = [text, *(self.flow.definitions[order].source for order in join.definitions)]
        if not any(_BY_ANY_NAME.search(each) for each in texts):
            names &= {word for each in texts for match in _NAMED.findall(each) for word in match}
        return sorted(name for name in names - {"index", "item", "inputs"} if not name.startswith("<"))

    def _check(self, step: Step, text: str) -> None:
        """Refuse what means something else within a method; note helpers that the cell needs."""
        nodes = [*ast.walk(parsed(text))]
        words = {node.id for node in nodes if isinstance(node, ast.Name)}
        if "display" in words and "display" not in self.words.bound:
            self.words.helper("display")
        for name in sorted(words):
            private = name.startswith("__") and not name.endswith("__")
            if private or name in self.own_names:
                self.notes.refused(
                    f"{step.label} uses {name}, which is {self.own_names.get(name, 'another name within a class')}",
                    step=step.name, cell=step.cell, name=name, fix="use another name",
                )  # fmt: skip
        if step.options.join and any(isinstance(node, ast.Attribute) and node.attr == "item" for node in nodes):
            self.item_wanted.add(self.joined(step))
        if step.scope and any(name.startswith("<") for name in (*step.reads, *step.writes)):
            self.notes.refused(
                f"{step.label} draws from a global random state within a fan-out", step=step.name, cell=step.cell,
                fix="make a generator of its own in the step, such as random.Random(seed)",
            )  # fmt: skip

    # ------------------------------------------------------------ around it

    def ahead(self, step: Step, bindings: Sequence[Binding], text: str) -> list[str]:
        """Return the lines that come before a step's cell: globals, older definitions, inputs."""
        self.needs.check_versions(step)
        shared = self.shared(step, bindings, text)
        lines = [f"global {', '.join(sorted(shared))}"] if shared else []
        bound_names: set[str] = set()
        inlined = self.needs.inlined(step)
        reads = _reads(step.source).union(*(_reads(d.source) for d in inlined))
        for d in inlined:
            early = [bind for bind in d.binds if bind.name not in bound_names]
            lines += [self.bound(bind) for bind in early]
            bound_names |= {bind.name for bind in early}
            text = self.plain(_without_star(d, reads).strip("\n"), d.cell, d.line)
            lines.append(f"{text}\n" if text.startswith(("def ", "class ", "@", "async ")) else text)
        return [*lines, *(self.bound(bind) for bind in self.data(step, bindings) if bind.name not in bound_names)]

    @staticmethod
    def data(step: Step, bindings: Sequence[Binding]) -> list[Binding]:
        """Return those of a step's bindings that take data from a step, or from an earlier turn."""
        inputs = [bind for bind in bindings if not bind.sources or any(source.step for source in bind.sources)]
        return [bind for bind in inputs if not (bind.name == "inputs" and step.options.join)]

    def shared(self, step: Step, bindings: Sequence[Binding], text: str) -> set[str]:
        """Return the names of a step that have to be globals of the file.

        Functions at the top of the file read them, or the cell itself changes what the file has bound.
        """
        bindings = self.data(step, bindings)
        inlined = {name for d in self.needs.inlined(step) for name in d.names}
        used = {name for order in step.definitions for name in self.flow.definitions[order].names}
        behind = {b.name for b in bindings if b.sources and b.sources[0].step and b.sources[-1].definition is not None}
        cell = {name for statement in analyse(text).statements for name in statement.writes} | analyse(text).writes
        names = {bind.name for bind in bindings} | set(step.targets) | inlined | cell
        late = names & late_names(parsed(text)) if self.functions & set(step.writes) else set()
        return late | (names & self.needs.free(step)) | (cell & used & self.needs.last.keys()) | behind

    def expression(self, text: str, data: Collection[str]) -> str:
        """Return an option's expression with each data name's `value`."""
        return rename(text, lambda name: self.value(name) if name in data else name)

    def tests(self, step: Step) -> tuple[list[str], list[str]]:
        """Return the lines that have to stand before the tests whether a step runs, and these tests."""
        condition, foreach = step.options.condition, step.options.foreach
        tests = [self.is_kept(name) for name in self.needs.lost(step)]
        if condition is None:
            return [], tests
        ahead = self.ahead_of(self.needs.condition_of(step))
        tests.append(f"{self.words.builtin('bool')}({self.expression(condition, () if ahead else step.reads)})")
        if step.options.catch is not None:
            message = f"--catch of {step.label} does not cover its --if, which is decided before it"
            self.notes.lost(message, step=step.name, cell=step.cell)
        if foreach is not None:  # the loop variable is bound where the step is skipped, too
            ahead += [f"{foreach.target} = {self.item}", *(self.kept(name, name) for name in step.targets)]
        return ahead, tests

    def ahead_of(self, source: Step) -> list[str]:
        """Return the lines that have to stand before the list of a foreach, or a condition.

        None where each name in it is the file's own or data that the expression names itself.
        """
        names = {bind.name for bind in source.bindings} & self.needs.free(source)
        return self.ahead(source, source.bindings, source.source) if names or self.needs.inlined(source) else []

    def outputs(self, step: Step, text: str) -> list[tuple[str, str, str]]:
        """Return a step's outputs as (name, value, test or ""), in the order in which the cell names them."""
        tree = parsed(text)
        reasons = dict.fromkeys(self.known_gone, "what could not be stored in an earlier run")
        reasons.update(
            (name, "bound within an expression") for name in inner_names(tree) if not self.readers(step, name)
        )
        reasons.update(unstorable(tree, entry_names(tree) if step.options.join else frozenset()))
        shared = self.shared(step, step.bindings, text)
        self.note_late(step, text)
        place = {name: -at for at, name in enumerate(re.findall(r"\w+", text)[::-1])}
        outputs = []
        for name in sorted(step.writes, key=lambda name: (place.get(name, 1), name)):
            if name in STATES:
                outputs.append((name, f"{self.words.module(STATES[name][0])}.{STATES[name][2]}", ""))
            elif name.startswith("<"):
                self.notes.refused(
                    f"{step.label} sets attributes of {name.strip('<>').removeprefix('of ')}: {self.target} keeps data",
                    step=step.name, cell=step.cell, name=name, fix="keep them in a variable or in an instance",
                )  # fmt: skip
            elif name in reasons:
                self._leave_out(step, name, reasons[name])
            elif name != step.options.catch:
                value = f"{self.words.module('cloudpickle')}.dumps({name})" if name in self.functions else name
                space = self.words.builtin("globals" if name in shared else "locals")
                outputs.append((name, value, f'"{name}" in {space}()' if name in self.needs.unsure(step) else ""))
        return outputs

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

    def note_late(self, step: Step, text: str) -> None:
        """Note which names a function that is kept as data goes on holding as they were."""
        if self.functions & set(step.writes):
            for name in sorted(late_outer_names(parsed(text))):
                later = [s for s in self.flow.steps if name in s.writes and (s.order > step.order or s.scope)]
                if later:
                    listing = ", ".join(sorted(self.functions & set(step.writes)))
                    other = later[-1].label if later[-1] is not step else "the items after it"
                    self.notes.lost(
                        f"{listing} of {step.label} goes on using the {name} of that moment, not that of {other}",
                        step=step.name, cell=step.cell,
                    )  # fmt: skip

    def readers(self, step: Step, name: str) -> list[str]:
        """Return the steps that read a name from a step."""
        return [edge.to for edge in self.flow.edges if edge.frm == step.name and name in edge.names]

    def keeps_item(self, step: Step) -> bool:
        """Return whether a step keeps the item for its join: a fan-out's first, and one below an inner fan-out."""
        if not step.scope or step.scope[-1] not in self.item_wanted:
            return False
        within = any(other.scope[-1] in self.item_wanted for other in self.body(step)) if step.options.join else False
        return within or step.options.foreach is not None

    def state_put(self, name: str, value: str) -> str:
        """Return the line that puts back a random state, from an expression for what a step has left of it."""
        return f"{self.words.module(STATES[name][0])}.{STATES[name][1].format(value)}"

    def note_losses(self, options: Mapping[str, str]) -> None:
        """Note which steps have options that are lost, each with a word why, and what else is not carried over."""
        for step in self.flow.steps:
            for name in (name for name in options if getattr(step.options, name)):
                text = f"--{name.replace('_', '-')} of {step.label}{': ' if options[name] else ''}{options[name]}"
                self.notes.lost(text, step=step.name, cell=step.cell)
        self.note_aliases()

    def item_mark(self, head: str) -> str:
        """Return the name under which a task keeps its item for the join of a fan-out."""
        body = [step for step in self.flow.steps if head in step.scope]
        is_used = head in self.carried or any("item" in step.writes for step in body)
        return self.words.mark(f"item_of_{head}") if is_used else "item"

    def one_of(self, join: Step) -> list[Step]:
        """Return the steps of which one must have run for an item to count; none where each item counts."""
        skippable = [step for step in self.body(join) if self.needs.may_be_skipped(step)]
        head = self.joined(join)
        if len(skippable) < len(self.body(join)):
            return []
        if any(step.scope[-1] != head for step in skippable):
            fix = "give --if to a step below it"
            self.notes.refused(f"an item of {head} may be skipped, and has a fan-out in it", step=head, fix=fix)
        return skippable

    def entries(self, join: Step, text: str) -> list[str]:
        """Return the line that gives each item the notebook's names, if a join asks for others."""
        data = {name for step in self.flow.steps for name in step.writes} | {p.name for p in self.flow.parameters}
        values = {name: self.value(name, "task") if name in data else name for name in self.asked(join, text)}
        if self.joined(join) in self.item_wanted:
            values["item"] = f"task.{self.item_mark(self.joined(join))}"
        words = [f"{name}=lambda task: {value}" for name, value in values.items() if value != f"task.{name}"]
        return (
            [f"inputs = [{self.words.helper('Entry')}(task, {', '.join(words)}) for task in inputs]"] if words else []
        )

    def framed(self, step: Step, ahead: Sequence[str], text: str, kept: Sequence[tuple[str, str]]) -> str:
        """Return a step's text: the lines before its cell, its cell, and what is kept, each with a test or ""."""
        first = sorted(ahead, key=lambda line: not line.startswith("global "))
        last = [f"if {test}:\n    {line}" if test else line for line, test in kept]
        if step.options.catch and last and text:  # names bound before a failure are kept
            text, last = f"try:\n{indent(text, 4)}\nfinally:\n" + indent("\n".join(last), 4), []
        parts = ("\n".join(first), text, "\n".join(last))
        return self.awaited("\n\n".join(part.strip("\n") for part in parts if part))

    def note_aliases(self) -> None:
        """Note where two names are one object and a later step changes it: elsewhere each name is kept by itself."""
        data = {name for step in self.flow.steps for name in step.writes}
        for step in self.flow.steps:
            later = [other for other in self.flow.steps if other.order > step.order]
            for pair in sorted(aliases(parsed(step.source))):
                for one, other in (pair, pair[::-1]) if data.issuperset(pair) else ():
                    changing = next((s for s in later if one in changed_names(parsed(s.source))), None)
                    if changing and any(other in s.reads for s in later if s.order >= changing.order):
                        what = f"in {self.target}, {other} does not show what {changing.label} changes in {one}"
                        self.notes.lost(
                            f"{one} and {other} may be one object: {what}", step=step.name, cell=step.cell,
                        )  # fmt: skip

    def is_guarded(self, bind: Binding) -> bool:
        """Return whether an input may be absent: the step goes without it, or with the definition behind it."""
        steps = [source for source in bind.sources if source.definition is None]
        self.needs.check_behind(bind)
        return not steps or len(steps) < len(bind.sources) or (not bind.sure and self.needs.can_miss(bind))

    def awaited(self, text: str) -> str:
        """Return a step's text, within a coroutine that is run if it awaits."""
        if not analyse(text).awaits:
            return text
        name = "main" if "main" not in re.findall(r"\w+", text) else "main_of_cell"
        return f"async def {name}():\n{indent(text, 4)}\n\n{self.words.module('asyncio')}.run({name}())"

    # ------------------------------------------------------------ fan-outs whose items take from each other

    def sequence(self, steps: Sequence[Step]) -> Step:
        """Return one step that takes what a fan-out's steps take from outside, and leaves what they leave."""
        inside = {step.name for step in steps}
        listed = [self.flow.lists[step.name] for step in steps if step.name in self.flow.lists]
        binds: dict[str, Binding] = {}
        for bind in (bind for step in [*steps, *listed] for bind in step.bindings):
            outer = tuple(source for source in bind.sources if source.step not in inside)
            if bind.name not in binds and bind.name != "inputs" and (outer or not any(s.sure for s in bind.sources)):
                binding = Binding(name=bind.name, sources=outer)
                binds[bind.name] = msgspec.structs.replace(
                    binding, sure=bool(outer) and not self.needs.can_miss(binding)
                )
        writes = tuple(sorted({name for step in steps for name in step.writes}))
        alone = msgspec.structs.replace(steps[0].options, foreach=None, condition=None, until=None, catch=None)
        return msgspec.structs.replace(
            steps[0], options=alone, bindings=tuple(binds.values()), writes=writes, conditional=writes, targets=(),
            definitions=tuple(sorted({order for step in [*steps, *listed] for order in step.definitions})),
        )  # fmt: skip

    def loop(self, item: Item) -> str:
        """Return a fan-out as a for loop, fan-outs within it too, each with its join below it."""
        head, inner = item.steps[0], list[str]()
        for part in item.body:
            inner.append(self.loop(part) if part.body else self.within(part.steps[0]))
            if part.join is not None:
                inner.append(self.within(part.join, part.steps[0]))
        assert head.options.foreach is not None  # noqa: S101  # only foreach steps open a scope
        target, items, lost = (
            head.options.foreach.target,
            self.items_name(head),
            self.needs.lost(self.flow.lists[head.name]),
        )
        entry = [] if item.join is None else self.items_kept(head, item.join)
        if head.name in self.item_wanted:
            target, inner = self.item_mark(head.name), [f"{target} = {self.item_mark(head.name)}", *inner]
        loop = "\n".join(
            [f"for {target} in {head.options.foreach.expr}:", *(indent(text, 4) for text in [*inner, *entry])]
        )
        if lost:  # as the list of a fan-out within another one may be
            loop = f"if {' and '.join(self.is_there(name) for name in lost)}:\n{indent(loop, 4)}"
        return f"{items} = []\n{loop}" if entry else loop

    def items_kept(self, head: Step, join: Step) -> list[str]:
        """Return the lines that keep what an item of a fan-out that is a loop has left for its join."""
        items, names = self.items_name(head), self.asked(join, self.cell(join))
        missing = sorted(self.needs.unsure_in(head.name).difference(self.carried.get(head.name, ())) & {*names})
        skipped = "the whole of it" if self.one_of(join) else f"its {missing[0]}" if missing else ""
        if skipped:
            self.notes.refused(
                f"{join.label} asks for items of {head.label}, which take from each other, and one may be without"
                f" {skipped}", step=join.name, cell=join.cell, fix="give it a value in each item",
            )  # fmt: skip
        fields = [f"index=len({items})", *(f"{name}={name}" for name in names)]
        fields += [f"item={self.item_mark(head.name)}"] if head.name in self.item_wanted else []
        entry = f"{self.words.module('types')}.SimpleNamespace({', '.join(fields)})"
        return [f"{items}.append({self.words.module('copy')}.deepcopy({entry}))"]

    def is_there(self, name: str) -> str:
        """Return the test whether a name is bound, local or global."""
        return f'"{name}" in {{**{self.words.builtin("globals")}(), **{self.words.builtin("locals")}()}}'

    def within(self, step: Step, head: Step | None = None) -> str:
        """Return the cell of a step of such a fan-out, or of a join of one inside it, as a part of the loop."""
        text, options = self.cell(step) or "pass", step.options
        if head is not None:
            text = f"inputs = {self.items_name(head)}\n{text}"
        if options.until:
            text = f"for _ in range({options.max}):\n{indent(text, 4)}\n    if {options.until}:\n        break"
        if options.catch:
            namespace = f"{self.words.module('types')}.SimpleNamespace"
            trace = f"{self.words.module('traceback')}.format_exc()"
            fields = f"type=failure.__class__.__name__, message=f'{{failure}}', traceback={trace}"
            text = (
                f"try:\n{indent(text, 4)}\n    {options.catch} = None\n"
                f"except Exception as failure:\n    {options.catch} = {namespace}({fields})"
            )
        tests = [self.is_there(name) for name in self.needs.lost(step)]
        tests += [f"({options.condition})"] if options.condition else []
        text = f"if {' and '.join(tests)}:\n{indent(text, 4)}" if tests else text
        return f"# {step.label}\n{text}"


def _reads(source: str) -> frozenset[str]:
    analysis = analyse(source)
    return analysis.reads | analysis.builtin_reads | frozenset[str]().union(*(s.deferred for s in analysis.statements))


def _without_star(definition: Definition, reads: frozenset[str]) -> str:
    """Return a definition's source; of a star import, which no function may hold, an import of the names in `reads`."""
    modules = star_modules(definition.source)
    if not modules or not definition.names or not definition.source.startswith("from "):
        return definition.source
    names = sorted(reads.intersection(definition.names))
    return f"from {modules[0]} import {', '.join(names)}" if names else "pass"
