"""Names of steps, artifacts, parameters and the class in Metaflow; what it reserves or cannot spell is changed."""

from __future__ import annotations

from nbflow.exporters.interface import Notes
from nbflow.exporters.settings import setting_of
from nbflow.exporters.spelling import Spelling, class_name
from nbflow.exporters.steps import STATE_NAMES
from nbflow.model import Flow

ATTRIBUTES = frozenset("cmd foreach_stack index input merge_artifacts name next script_name".split())
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
        self.artifacts = dict(STATE_NAMES)
        for name in sorted({name for step in flow.steps for name in step.writes} | names):
            if name in ATTRIBUTES or name in ("start", "end") or (name in names and name in RUN_OPTIONS | TYPES):
                self.artifacts[name] = f"{name}_"
                what = "parameter" if name in names else "artifact"
                notes.changed(f"the {what} {name} is called {name}_: {name} is Metaflow's own", name=name)
        super().__init__(
            {*ATTRIBUTES, "start", "end", "metaflow", *names, *(self.of(n) for s in flow.steps for n in s.writes)}
        )
        self.steps: dict[str, str] = {}
        for step in flow.steps:
            name = self.steps[step.name] = self.free(f"cell_{step.position}" if step.kind == "cell" else step.name)
            if name != step.name and step.kind == "step" and step.name not in ("start", "end"):
                notes.changed(f"the step {step.name} is called {name}", step=step.name, name=name)
        kinds = ("Flow", "FlowSpec", "NotebookFlow")
        defined = {name for d in flow.definitions for name in d.names}
        self.flow = next(name for kind in kinds if (name := class_name(flow.name, kind)) not in defined)

    def of(self, name: str) -> str:
        """A data name in; the artifact's name out."""
        return self.artifacts.get(name, name)
