"""One step's cell as the body of a Metaflow step: its inputs from `self`, the cell, its outputs into `self`."""

from __future__ import annotations

from collections.abc import Collection

from nbflow.exporters.interface import Notes
from nbflow.exporters.metaflow_names import Names
from nbflow.exporters.needs import Needs
from nbflow.exporters.settings import restored
from nbflow.exporters.steps import OWN_NAMES, STATES, PlainSteps
from nbflow.exporters.text import indent
from nbflow.exporters.words import Words
from nbflow.model import Binding, Flow, Step


class StepTexts(PlainSteps):
    """Bodies of Metaflow's steps."""

    target = "Metaflow"
    own_names = OWN_NAMES | {"self": "Metaflow's own"}

    def __init__(
        self, flow: Flow, needs: Needs, names: Names, words: Words, notes: Notes, known_gone: Collection[str]
    ) -> None:
        super().__init__(flow, needs, words, notes, known_gone)
        self.names = names
        self.caught = {step.options.catch for step in flow.steps if step.options.catch}

    def whole(self, step: Step, text: str | None = None) -> str:
        """A step, and its text where that is not its cell, in; inputs bound, the cell, outputs kept, out."""
        text = self.cell(step) if text is None else text
        parts = self.ahead(step, step.bindings, text)
        if step.targets and step.options.foreach is not None:
            line = f"{step.options.foreach.target} = self.input"
            parts.insert(1 if parts and parts[0].startswith("global ") else 0, line)
        if step.options.until is not None:  # a turn takes from the one before it what no step above has written
            mark = self.words.mark(f"{self.names.steps[step.name]}_turns")
            own = [bind.name for bind in step.bindings if bind.name in step.writes and not self.data(step, [bind])]
            lines = [f"    {name} = {self.value(name)}" for name in own]
            parts += [f'if {self.words.builtin("hasattr")}(self, "{mark}"):', *lines] if own else []
        kept = []
        for name, value, test in self.outputs(step, text):
            line = f"self.{self.names.of(name)} = {value}"
            kept.append(f"if {test}:\n    {line}" if test else line)
        if step.scope and step.scope[-1] in self.item_wanted and (step.options.join or step.options.foreach):
            kept.append(f"self.{self.item_mark(step.scope[-1])} = self.input")  # a fan-out within it has its own
        if step.options.catch and kept and text:
            text, kept = f"try:\n{indent(text, 4)}\nfinally:\n" + indent("\n".join(kept), 4), []
        return self.awaited("\n".join(part for part in [*parts, text, *kept] if part))

    def item_mark(self, head: str) -> str:
        """The head of a fan-out in; the artifact that keeps the item for its join out."""
        body = [step for step in self.flow.steps if head in step.scope]
        return self.words.mark("item_of_" + self.names.steps[head]) if any("item" in s.writes for s in body) else "item"

    def merged(self, head: str) -> list[str]:
        """The head of a fan-out in; the lines that put its items into order and take over what they left, out."""
        lines = [f"inputs = {self.words.builtin('sorted')}(inputs, key=lambda task: task.index)"]
        if not self.needs.left_open(head):
            return [*lines, "self.merge_artifacts([inputs[-1]])"]
        loop = f"for task in {self.words.builtin('reversed')}(inputs):  # names that the last one did not leave too"
        return [*lines, loop, "    self.merge_artifacts([task])"]

    def joined_text(self, join: Step) -> str:
        """A join in; its text, with the items in order, none that was skipped, by the notebook's names, out."""
        head, text = self.joined(join), self.cell(join)
        lines = self.merged(head)
        skippable = [step for step in self.body(join) if self.needs.may_be_skipped(step)]
        if len(skippable) == len(self.body(join)):
            marks = [f"task.{self.words.mark(f'run_{self.names.steps[step.name]}')}" for step in skippable]
            lines.append(f"inputs = [task for task in inputs if {' or '.join(marks)}]")
            if any(step.scope[-1] != head for step in skippable):
                fix = "give --if to a step below it"
                self.notes.refused(f"an item of {head} may be skipped, and has a fan-out in it", step=head, fix=fix)
        data = {name for step in self.flow.steps for name in step.writes} | {p.name for p in self.flow.parameters}
        named = {name: self.value(name, "task") if name in data else name for name in self.asked(join, text)}
        if head in self.item_wanted:
            named["item"] = f"task.{self.item_mark(head)}"
        given = [f"{name}=lambda task: {value}" for name, value in named.items() if value != f"task.{name}"]
        if given:
            lines.append(f"inputs = [{self.words.helper('Entry')}(task, {', '.join(given)}) for task in inputs]")
        return "\n".join([*lines, self.whole(join, text)])

    def bound(self, bind: Binding) -> str:
        """An input in; the lines that bind its name out."""
        name = self.names.of(bind.name)
        if bind.name in STATES:
            return f"{self.words.module(STATES[bind.name][0])}.{STATES[bind.name][1].format(f'self.{name}')}"
        line = f"{bind.name} = {self.value(bind.name)}"
        return f'if {self.words.builtin("hasattr")}(self, "{name}"):\n    {line}' if self.is_guarded(bind) else line

    def value(self, name: str, task: str = "self") -> str:
        """A data name, and the task that holds it, in; the expression that gives its value in a step out."""
        value = f"{task}.{self.names.of(name)}"
        setting = self.names.settings.get(name)
        if setting is not None:
            given = f"{self.words.helper('as_file')}({setting.default}, {value})" if setting.kind == "file" else ""
            return given or restored(setting, value, self.words)
        if name in self.caught:
            return f"{self.words.helper('caught')}({value})"
        return f"{self.words.module('cloudpickle')}.loads({value})" if name in self.functions else value
