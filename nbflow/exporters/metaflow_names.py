"""Names of steps, artifacts, parameters and the class in Metaflow; what it reserves or cannot spell is changed and told."""

from __future__ import annotations

import keyword
import re
import unicodedata

from nbflow.exporters.interface import Notes
from nbflow.model import Flow

ATTRIBUTES = frozenset("cmd foreach_stack index input merge_artifacts name next script_name".split())
"""What a FlowSpec has already: neither a step nor an artifact can be called so."""

RUN_OPTIONS = frozenset(
    "params with tag namespace obj tags decospecs run_id_file max_num_splits max_workers max_log_size user_namespace"
    " run_id task_id runner_attribute_file help".split()
)
"""What `python flow.py run` understands already: no parameter can be called so."""

STATES = {"<random>": "random_state", "<numpy.random>": "numpy_random_state", "<torch>": "torch_random_state"}


class Names:
    """A flow's names as Metaflow takes them."""

    def __init__(self, flow: Flow, notes: Notes) -> None:
        self.parameters = {parameter.name for parameter in flow.parameters}
        self.artifacts: dict[str, str] = dict(STATES)
        for name in sorted({name for step in flow.steps for name in step.writes} | self.parameters):
            taken = name in ATTRIBUTES or (name in self.parameters and name in RUN_OPTIONS)
            if not name.startswith("<"):
                self.artifacts[name] = f"{name}_" if taken else name
            if taken:
                what = "parameter" if name in self.parameters else "artifact"
                notes.changed(f"the {what} {name} is called {name}_: Metaflow has a {name} of its own", name=name)
        self.taken = {*ATTRIBUTES, *self.artifacts.values(), "start", "end", *keyword.kwlist}
        self.steps: dict[str, str] = {}
        for step in flow.steps:
            self.steps[step.name] = self.free(f"cell_{step.position}" if step.kind == "cell" else step.name)
            if self.steps[step.name] != step.name and step.kind == "step":
                notes.changed(
                    f"the step {step.name} is called {self.steps[step.name]}", step=step.name, name=self.steps[step.name]
                )
        words = [word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", _ascii(flow.name)) if word]
        stem = "".join(words).removesuffix("Flow").lstrip("0123456789") or "Notebook"
        self.flow = f"{stem}Flow"

    def free(self, word: str) -> str:
        """A name for a step in; one that Metaflow takes and that nothing else bears out."""
        plain = re.sub(r"[^a-z0-9]+", "_", _ascii(word).lower()).strip("_") or "step"
        plain = plain if plain[0].isalpha() else f"step_{plain}"
        names = [plain, f"{plain}_step", *(f"{plain}_step{number}" for number in range(2, 1000))]
        found = next(name for name in names if name not in self.taken)
        self.taken.add(found)
        return found


def _ascii(word: str) -> str:
    return unicodedata.normalize("NFKD", word.replace("ß", "ss")).encode("ascii", "ignore").decode()
