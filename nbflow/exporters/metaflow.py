"""A flow → a Metaflow FlowSpec that reads as if written by hand.

The notebook's text becomes docstrings and comments, definitions go to the top of the file, each cell becomes a step
that takes its inputs from `self` and leaves its outputs there. The parts, each importing only from those after it:
`metaflow_layout` (the graph), `metaflow_steps` (a step's body), `metaflow_names`.
"""

from __future__ import annotations

import json
import math
import re

from nbflow.exporters.cell_text import as_comment, docstring, environment_variables, indent
from nbflow.exporters.definitions import Needs, with_classes
from nbflow.exporters.exporter import Environment, Notes, Options, TextExporter
from nbflow.exporters.identifiers import GeneratedImports
from nbflow.exporters.metaflow_layout import SpecLayout, SpecStep
from nbflow.exporters.metaflow_steps import Names, StepTexts
from nbflow.exporters.module_head import HELPERS as TOP_HELPERS
from nbflow.exporters.module_head import Top, text_below
from nbflow.exporters.parameters import default_of
from nbflow.flow.late_options import filled
from nbflow.flow.options import PLACEHOLDER
from nbflow.flow.parameters import literal_of
from nbflow.model import Flow, Parameter, Step

WORDS = ("kubernetes", "batch", "pypi")
OURS = frozenset(
    "FlowSpec Parameter IncludeFile JSONType step retry timeout catch resources card secrets environment".split()
) | {*WORDS}
NO_COUNTERPART = {
    "retry_on": "Metaflow's @retry takes every error", "once": "Metaflow may run it again", "serial": "",
    "no_cache": "", "workers": "`run --max-workers` limits all steps together", "expires": "", "pure": "", "here": "",
    "on": "`--with kubernetes` says where", "env": "`--with pypi` writes what the notebook imports",
}  # fmt: skip
CAUGHT = '''\
def caught(failure):
    """What @catch has kept, with the names that the notebook knows; None where nothing failed."""
    if not hasattr(failure, "exception"):
        return failure
    kind = failure.type.rpartition(".")[2]
    return types.SimpleNamespace(type=kind, message=failure.exception, traceback=failure.stacktrace)'''
HELPERS = {**TOP_HELPERS, "caught": (CAUGHT, frozenset({"types"}))}


class MetaflowExporter(TextExporter):
    """`--to metaflow`; words: `kubernetes`, `batch`, `pypi`."""

    target, words = "Metaflow", WORDS

    def write(self, flow: Flow, options: Options, environment: Environment, notes: Notes) -> str:
        """Return a flow's FlowSpec file."""
        _refuse_branches(flow, notes)
        return _SpecFile(with_classes(_with_values(flow, notes)), environment, options, notes).text()


def _refuse_branches(flow: Flow, notes: Notes) -> None:
    """Refuse joins of branches: steps are written one after another, so that each sees what the last one left."""
    for step in flow.steps:
        if step.options.join and not any(other.scope for other in flow.steps if other.name in step.options.join):
            notes.refused(
                f"--join of {step.label} joins branches, which are written one after another", step=step.name,
                cell=step.cell, line=1, fix="give what both leave names of their own, and leave --join out",
            )  # fmt: skip


def _with_values(flow: Flow, notes: Notes) -> Flow:
    """Return a flow whose options hold its parameters' defaults: a decorator is made before there are any others."""
    for step in flow.steps:
        for key, text in step.options.late:
            names = sorted({match[1] for match in PLACEHOLDER.finditer(text)})
            notes.changed(
                f"--{key} {text} of {step.label} has the value that {', '.join(names)} has in the notebook now",
                step=step.name, cell=step.cell,
            )  # fmt: skip
    return filled(flow, {parameter.name: literal_of(parameter.default) for parameter in flow.parameters})


class _SpecFile:
    """One FlowSpec file in the making."""

    def __init__(self, flow: Flow, environment: Environment, options: Options, notes: Notes) -> None:
        self.flow, self.environment, self.options, self.notes = flow, environment, options, notes
        self.needs, self.names = Needs(flow, notes), Names(flow, notes)
        self.words = GeneratedImports(flow, self.names, HELPERS)
        self.texts = StepTexts(flow, self.needs, self.names, self.words, notes, environment.unstored)
        self.layout = SpecLayout(flow, self.needs, self.names, self.texts, notes)
        self.top = Top(flow, self.needs, self.texts)
        self.used = {"FlowSpec", "step"}  # of metaflow
        names_in_use = self.needs.last.keys() | {*self.names.steps.values()} | {p.name for p in flow.parameters}
        self.prefix = "metaflow." if OURS & names_in_use else ""

    def text(self) -> str:
        """Return the whole file."""
        parameters, computed = self._parameters()
        steps = "\n\n".join(indent(self._step(node), 4) for node in self._nodes(computed))
        first = docstring(self.top.title.partition("\n")[0])
        body = "\n\n".join(part for part in [indent(first, 4), indent("\n".join(parameters), 4), steps] if part)
        base = ""
        if "pypi" in self.options.words:
            packages = {name: version for name, version in self.environment.distributions.values() if version}
            base = f"@{self.prefix}pypi_base(python={self.environment.python!r}, packages={packages!r})\n"
            self.used.add("pypi_base")
        written = f"{base}class {self.names.flow}({self.prefix}FlowSpec):\n{body}"
        definitions = self.top.definitions()  # after the steps: they say which modules and helpers they need
        used = ", ".join(sorted(self.used, key=lambda word: (not word[0].isupper(), word)))
        imports = self.top.import_lines("import metaflow" if self.prefix else f"from metaflow import {used}")
        head = f"{docstring(self.top.title)}\n\n{imports}"
        self.texts.note_losses(NO_COUNTERPART)
        self.top.note_scratch()
        return "\n\n\n".join([head, *definitions, written, f'if __name__ == "__main__":\n    {self.names.flow}()\n'])

    def _nodes(self, computed: list[str]) -> list[SpecStep]:
        """Return every step of the file: the notebook's first and last are `start` and `end` if they are called so."""
        entry, nodes, below = self.layout.entry, self.layout.nodes, text_below(self.flow)
        if entry.plain and not computed and nodes[0].is_called("start"):
            nodes[0].name = "start"
        else:
            nodes.insert(
                0, SpecStep("start", doc=entry.doc, text="\n".join([*computed, *entry.before]), call=entry.call)
            )
        last, ends = nodes[-1], [node for node in nodes if "self.end" in re.findall(r"[\w.]+", node.call)]
        if last.is_called("end") and ends == [last] and not last.join and last.call == "self.end":
            for node in nodes:
                node.call = re.sub(rf"self\.{last.name}\b", "self.end", node.call)
            last.name, last.call = "end", ""
        else:
            nodes.append(SpecStep("end", doc=below, text="" if below else "pass"))
        return nodes

    def _parameters(self) -> tuple[list[str], list[str]]:
        """Return the lines of parameters, and those by which `start` computes what depends on other parameters."""
        lines, computed = list[str](), list[str]()
        for cell in self.flow.notebook.cells:
            mine = [p for p in self.flow.parameters if p.cell == cell.id]
            lines += [as_comment(self.top.text_above(cell))] if mine and self.top.text_above(cell) else []
            lines += [self._parameter(p) for p in mine if p.name in self.names.settings]
            for p in (p for p in mine if p.name in self.names.inside):
                value = self.texts.expression(p.default or "", {other.name for other in self.flow.parameters})
                computed.append(f"self.{self.names.of(p.name)} = {value}")
                self.notes.lost(f"{p.name} cannot be set from outside: {self.names.inside[p.name]}", cell=cell.id)
        return lines, computed

    def _parameter(self, p: Parameter) -> str:
        name, setting = self.names.of(p.name), self.names.settings[p.name]
        words = [f'"{name}"']
        if setting.kind == "file":
            words.append("is_text=False")
            self.notes.changed(
                f"the file {p.name} travels with the run, and steps open a copy", cell=p.cell, name=p.name
            )
        else:
            words.append(f"type={f'{self.prefix}JSONType' if setting.kind == 'json' else setting.kind}")
        if setting.note:
            self.notes.changed(f"{p.name}: {setting.note}", cell=p.cell, name=p.name)
        kind = "IncludeFile" if setting.kind == "file" else "Parameter"
        self.used |= {kind, *(["JSONType"] if setting.kind == "json" else [])}
        if setting.default is None:
            words.append(f"required={not setting.optional}")
        else:
            default = default_of(setting, self.words)
            words.append(f"default={default}" if setting.literal else f"default=lambda context: {default}")
        words += [f"help={json.dumps(p.help, ensure_ascii=False)}"] if p.help else []
        return f"{name} = {self.prefix}{kind}({', '.join(words)})"

    def _step(self, node: SpecStep) -> str:
        markdown = self.top.text_above(self.needs.cells[node.step.cell]) if node.step is not None else node.doc
        lines = [*(self._decorators(node.step) if node.step is not None else []), f"@{self.prefix}step"]
        lines.append(f"def {node.name}(self{', inputs' if node.join else ''}):")
        text = "\n".join(part for part in [docstring(markdown, 8), node.text] if part)
        lines += [indent(text, 4)] if text else []
        return "\n".join([*lines, f"    self.next({node.call})"] if node.call else lines)

    def _decorators(self, step: Step) -> list[str]:
        options, decorators = step.options, []
        if options.nodes > 1:
            self.notes.refused(f"--nodes of {step.label}: @parallel works in another way", step=step.name)
        if options.retry:
            decorators.append(
                f"retry(times={options.retry}, minutes_between_retries={math.ceil(options.backoff / 60)})"
            )
        decorators += [f'catch(var="{self.names.of(options.catch)}")'] if options.catch else []
        decorators += [f"timeout(seconds={math.ceil(options.timeout)})"] if options.timeout else []
        sizes = {"cpu": math.ceil(options.cpu or 0), "gpu": math.ceil(options.gpu),
                 "memory": math.ceil((options.memory or 0) / 1e6)}  # fmt: skip
        amounts = ", ".join(f"{name}={value}" for name, value in sizes.items() if value)
        decorators += [f"resources({amounts})"] if amounts else []
        decorators += [word for word in ("kubernetes", "batch") if word in self.options.words]
        decorators += ["card"] if options.card else []
        if options.secret:
            decorators.append(f"secrets(sources={list(options.secret)!r})")
            where = "the backend that METAFLOW_DEFAULT_SECRETS_BACKEND_TYPE names"
            self.notes.changed(f"{', '.join(options.secret)} of {step.label} come from {where}", step=step.name)
        if options.timeout and options.catch:
            text = f"{options.catch} of {step.label} is Metaflow's own error where time is up"
            self.notes.changed(text, step=step.name, cell=step.cell, name=options.catch)
        if options.pip:
            pins = [re.match(r"\s*([\w.\-]+(?:\[.*?\])?)\s*(?:==)?\s*(.*)", word) for word in options.pip]
            decorators.append(f"pypi(packages={ {pin[1]: pin[2] for pin in pins if pin} })")
        above = [self.flow.definitions[order] for order in step.definitions]
        variables = {name: value for d in above for name, value in environment_variables(d.source).items()}
        decorators += [f"environment(vars={variables!r})"] if variables else []
        self.used |= {word.partition("(")[0] for word in decorators}
        return [f"@{self.prefix}{word}" for word in decorators]
