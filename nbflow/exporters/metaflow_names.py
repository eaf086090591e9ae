"""Names of steps, artifacts, parameters and the class in Metaflow; what it reserves or cannot spell is changed."""

from __future__ import annotations

from nbflow.exporters.interface import Notes
from nbflow.exporters.settings import setting_of
from nbflow.exporters.spelling import Spelling, class_name
from nbflow.exporters.steps import STATE_NAMES
from nbflow.model import Flow

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
    """A flow's names as Metaflow takes them; its parameters' settings, and of those that cannot be set, why."""

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
