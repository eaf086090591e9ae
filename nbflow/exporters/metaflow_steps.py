"""One step's cell as the body of a Metaflow step: its inputs from `self`, the cell, its outputs into `self`."""

from __future__ import annotations

from collections.abc import Collection

from nbflow.exporters.interface import Notes
from nbflow.exporters.metaflow_names import Names
from nbflow.exporters.needs import Needs
from nbflow.exporters.steps import OWN_NAMES, STATES, PlainSteps, text_in, type_name
from nbflow.exporters.text import indent
from nbflow.model import Binding, Flow, Step

CONVERSIONS = {
    "File": ("as_file", "as_file({default}, {value})"), "tuple": ("", "tuple({value})"), "set": ("", "set({value})"),
    "Path": ("pathlib", "pathlib.Path({value})"), "date": ("datetime", "datetime.date.fromisoformat({value})"),
    "datetime": ("datetime", "datetime.datetime.fromisoformat({value})"),
}  # fmt: skip
"""A parameter's type -> what has to be imported or defined, and how its value is made of what Metaflow keeps."""


class StepTexts(PlainSteps):
    """Bodies of Metaflow's steps."""

    target = "Metaflow"
    own_names = OWN_NAMES | {"self": "Metaflow's own"}

    def __init__(self, flow: Flow, needs: Needs, names: Names, notes: Notes, known_gone: Collection[str]) -> None:
        super().__init__(flow, needs, notes, known_gone)
        self.names = names
        self.parameters = {p.name: p for p in flow.parameters if p.name not in names.computed}
        self.caught = {step.options.catch for step in flow.steps if step.options.catch}

    def whole(self, step: Step, text: str | None = None) -> str:
        """A step, and its text where that is not its cell, in; inputs bound, the cell, outputs kept, out."""
        text = self.cell(step) if text is None else text
        parts = self.ahead(step, step.bindings, text)
        if step.targets and step.options.foreach is not None:
            line = f"{step.options.foreach.target} = self.input"
            parts.insert(1 if parts and parts[0].startswith("global ") else 0, line)
        kept = []
        for name, value, test in self.outputs(step, text):
            line = f"self.{self.names.of(name)} = {value}"
            kept.append(f"if {test}:\n    {line}" if test else line)
        if f"item:{step.name}" in self.wanted and "item" not in step.writes:
            kept.append("self.item = self.input")
        if step.options.catch and kept and text:
            text, kept = f"try:\n{indent(text, 4)}\nfinally:\n" + indent("\n".join(kept), 4), []
        return self.awaited("\n".join(part for part in [*parts, text, *kept] if part))

    def bound(self, bind: Binding) -> str:
        """An input in; the lines that bind its name out."""
        name = self.names.of(bind.name)
        if bind.name in STATES:
            self.wanted.add(STATES[bind.name][0])
            return STATES[bind.name][1].format(f"self.{name}")
        line = f"{bind.name} = {self.value(bind.name)}"
        return f'if hasattr(self, "{name}"):\n    {line}' if self.is_guarded(bind) else line

    def value(self, name: str) -> str:
        """A data name in; the expression that gives its value in a step out."""
        value = f"self.{self.names.of(name)}"
        if name in self.parameters and type_name(self.parameters[name]) in CONVERSIONS:
            need, form = CONVERSIONS[type_name(self.parameters[name])]
            self.wanted |= {need} - {""}
            return form.format(value=value, default=text_in(self.parameters[name]))
        for names, need, call in (
            (self.caught, "caught", "caught"),
            (self.functions, "cloudpickle", "cloudpickle.loads"),
        ):
            if name in names:
                self.wanted.add(need)
                return f"{call}({value})"
        return value
