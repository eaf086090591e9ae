"""One step's cell as the body of a Metaflow step: its inputs from `self`, the cell, its outputs into `self`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nbflow.exporters.definitions import Needs
from nbflow.exporters.exporter import Notes
from nbflow.exporters.identifiers import GeneratedImports, Spelling, class_name
from nbflow.exporters.parameters import restored, setting_of
from nbflow.exporters.python_steps import OWN_NAMES, STATE_NAMES, STATES, PlainSteps
from nbflow.model import Binding, Flow, Step

RESERVED = frozenset("start end cmd foreach_stack index input merge_artifacts name next script_name".split())
"""What a FlowSpec has already: neither a step nor an artifact can be called so."""

RUN_OPTIONS = frozenset(
    "params with tag namespace obj tags decospecs run_id_file max_num_splits max_workers max_log_size user_namespace"
    " run_id task_id runner_attribute_file help".split()
)
"""What `python flow.py run` understands already: no parameter can be called so."""

TYPES = frozenset("int float bool str".split())
"""What the lines of parameters name."""


class Names(Spelling):
    """A flow's names as Metaflow takes them; its parameters' settings, and why some of them cannot be set."""

    def __init__(self, flow: Flow, notes: Notes) -> None:
        names = {parameter.name for parameter in flow.parameters}
        settings = {p.name: setting_of(p, names) for p in flow.parameters}
        self.inside = {name: setting.inside for name, setting in settings.items() if setting.inside}
        self.settings = {name: setting for name, setting in settings.items() if not setting.inside}
        data = {name for step in flow.steps for name in step.writes}
        super().__init__({*RESERVED, "metaflow", *names, *data})
        self.names |= STATE_NAMES
        self.renamed(data - names, RESERVED, notes, "artifact", "Metaflow")
        self.renamed(names, RESERVED | RUN_OPTIONS | TYPES, notes, "parameter", "Metaflow")
        self.taken |= {self.of(name) for name in data}
        self.steps: dict[str, str] = {}
        for step in flow.steps:
            name = self.steps[step.name] = self.free(f"cell_{step.position}" if step.kind == "cell" else step.name)
            if name != step.name and step.kind == "step" and step.name not in ("start", "end"):
                notes.changed(f"the step {step.name} is called {name}", step=step.name, name=name)
        kinds = ("Flow", "FlowSpec", "NotebookFlow")
        defined = {name for d in flow.definitions for name in d.names}
        self.flow = next(name for kind in kinds if (name := class_name(flow.name, kind)) not in defined)


class StepTexts(PlainSteps):
    """Bodies of Metaflow's steps."""

    target, item = "Metaflow", "self.input"
    own_names = OWN_NAMES | {"self": "Metaflow's own"}

    def __init__(
        self, flow: Flow, needs: Needs, names: Names, words: GeneratedImports, notes: Notes, known_gone: Collection[str]
    ) -> None:
        super().__init__(flow, needs, words, notes, known_gone)
        self.names = names
        self.caught = {step.options.catch for step in flow.steps if step.options.catch}

    def whole(self, step: Step, text: str | None = None, before: Sequence[str] = ()) -> str:
        """Return a step's inputs bound, its cell (or the text in its place), and its outputs kept."""
        text = self.cell(step) if text is None else text
        item = [f"{step.options.foreach.target} = self.input"] if step.options.foreach is not None else []
        parts = [*before, *item, *self.ahead(step, step.bindings, text)]
        if step.options.until is not None:  # a turn takes from the one before it what no step above has written
            mark = self.words.mark(f"{self.names.steps[step.name]}_turns")
            own = [bind.name for bind in step.bindings if bind.name in step.writes and not self.data(step, [bind])]
            lines = [f"    {name} = {self.value(name)}" for name in own]
            parts += [f'if {self.words.builtin("hasattr")}(self, "{mark}"):', *lines] if own else []
        outputs = [(self.kept(name, value), test) for name, value, test in self.outputs(step, text)]
        if self.keeps_item(step):
            outputs.append((f"self.{self.item_mark(step.scope[-1])} = self.input", ""))
        return self.framed(step, parts, text, outputs)

    def merged(self, head: str) -> list[str]:
        """Return the lines that put a fan-out's items into order and take over what they left."""
        lines = [f"inputs = {self.words.builtin('sorted')}(inputs, key=lambda task: task.index)"]
        if not self.needs.left_open(head):
            return [*lines, "self.merge_artifacts([inputs[-1]])"]
        loop = f"for task in {self.words.builtin('reversed')}(inputs):  # names that the last one did not leave too"
        return [*lines, loop, "    self.merge_artifacts([task])"]

    def joined_text(self, join: Step) -> str:
        """Return a join's text, with the items in order, none that was skipped, by the notebook's names."""
        head, text = self.joined(join), self.cell(join)
        lines = self.merged(head)
        marks = [f"task.{self.words.mark(f'run_{self.names.steps[step.name]}')}" for step in self.one_of(join)]
        lines += [f"inputs = [task for task in inputs if {' or '.join(marks)}]"] if marks else []
        return self.whole(join, text, [*lines, *self.entries(join, text)])

    def bound(self, bind: Binding) -> str:
        """Return the lines that bind an input's name."""
        if bind.name in STATES:
            return self.state_put(bind.name, self.value(bind.name))
        line = f"{bind.name} = {self.value(bind.name)}"
        return f"if {self.is_kept(bind.name)}:\n    {line}" if self.is_guarded(bind) else line

    def is_kept(self, name: str) -> str:
        """Return the test whether a step has left a data name."""
        return f'{self.words.builtin("hasattr")}(self, "{self.names.of(name)}")'

    def kept(self, name: str, value: str) -> str:
        """Return the line that leaves an expression to later steps under a data name."""
        return f"self.{self.names.of(name)} = {value}"

    def value(self, name: str, task: str = "self") -> str:
        """Return the expression that gives a data name's value in a step, of the task that holds it."""
        value = f"{task}.{self.names.of(name)}"
        setting = self.names.settings.get(name)
        if setting is not None:
            return restored(setting, value, self.words)
        if name in self.caught:
            return f"{self.words.helper('caught')}({value})"
        return f"{self.words.module('cloudpickle')}.loads({value})" if name in self.functions else value
