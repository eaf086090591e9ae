"""One step's cell as the body of a Metaflow step: its inputs from `self`, the cell, its outputs into `self`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nbflow.exporters.interface import Notes
from nbflow.exporters.metaflow_names import Names
from nbflow.exporters.needs import Needs
from nbflow.exporters.settings import restored
from nbflow.exporters.steps import OWN_NAMES, STATES, PlainSteps
from nbflow.exporters.words import Words
from nbflow.model import Binding, Flow, Step


class StepTexts(PlainSteps):
    """Bodies of Metaflow's steps."""

    target, item = "Metaflow", "self.input"
    own_names = OWN_NAMES | {"self": "Metaflow's own"}

    def __init__(
        self, flow: Flow, needs: Needs, names: Names, words: Words, notes: Notes, known_gone: Collection[str]
    ) -> None:
        super().__init__(flow, needs, words, notes, known_gone)
        self.names = names
        self.caught = {step.options.catch for step in flow.steps if step.options.catch}

    def whole(self, step: Step, text: str | None = None, before: Sequence[str] = ()) -> str:
        """A step, and its text where that is not its cell, in; inputs bound, the cell, outputs kept, out."""
        text = self.cell(step) if text is None else text
        item = [f"{step.options.foreach.target} = self.input"] if step.options.foreach is not None else []
        parts = [*before, *item, *self.ahead(step, step.bindings, text)]
        if step.options.until is not None:  # a turn takes from the one before it what no step above has written
            mark = self.words.mark(f"{self.names.steps[step.name]}_turns")
            own = [bind.name for bind in step.bindings if bind.name in step.writes and not self.data(step, [bind])]
            lines = [f"    {name} = {self.value(name)}" for name in own]
            parts += [f'if {self.words.builtin("hasattr")}(self, "{mark}"):', *lines] if own else []
        kept = [(self.kept(name, value), test) for name, value, test in self.outputs(step, text)]
        if self.keeps_item(step):
            kept.append((f"self.{self.item_mark(step.scope[-1])} = self.input", ""))
        return self.framed(step, parts, text, kept)

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
        marks = [f"task.{self.words.mark(f'run_{self.names.steps[step.name]}')}" for step in self.one_of(join)]
        lines += [f"inputs = [task for task in inputs if {' or '.join(marks)}]"] if marks else []
        return self.whole(join, text, [*lines, *self.entries(join, text)])

    def bound(self, bind: Binding) -> str:
        """An input in; the lines that bind its name out."""
        if bind.name in STATES:
            return self.state_put(bind.name, self.value(bind.name))
        line = f"{bind.name} = {self.value(bind.name)}"
        return f"if {self.is_kept(bind.name)}:\n    {line}" if self.is_guarded(bind) else line

    def is_kept(self, name: str) -> str:
        """A data name in; the test whether a step has left it out."""
        return f'{self.words.builtin("hasattr")}(self, "{self.names.of(name)}")'

    def kept(self, name: str, value: str) -> str:
        """A data name and an expression in; the line that leaves it to later steps out."""
        return f"self.{self.names.of(name)} = {value}"

    def value(self, name: str, task: str = "self") -> str:
        """A data name, and the task that holds it, in; the expression that gives its value in a step out."""
        value = f"{task}.{self.names.of(name)}"
        setting = self.names.settings.get(name)
        if setting is not None:
            return restored(setting, value, self.words)
        if name in self.caught:
            return f"{self.words.helper('caught')}({value})"
        return f"{self.words.module('cloudpickle')}.loads({value})" if name in self.functions else value
