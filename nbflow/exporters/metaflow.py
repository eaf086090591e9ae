"""A flow → a Metaflow FlowSpec that reads as if written by hand.

The notebook's text becomes docstrings and comments, definitions go to the top of the file, each cell becomes a step that
takes its inputs from `self` and leaves its outputs there. The parts, each importing only from those after it:
`metaflow_layout` (the graph), `metaflow_steps` (a step's body), `metaflow_names`.
"""

from __future__ import annotations

import ast
import math

from nbflow.exporters.interface import Environment, Notes, Options, flow_problems
from nbflow.exporters.metaflow_layout import Layout, Node
from nbflow.exporters.metaflow_names import Names
from nbflow.exporters.metaflow_steps import StepTexts, type_name
from nbflow.exporters.needs import Needs
from nbflow.exporters.text import as_comment, docstring, environment_variables, indent, plain_python
from nbflow.model import Definition, Finding, Flow, Parameter, Step

TYPES = {"int": "int", "float": "float", "str": "str", "bool": "bool", "Path": "str", "date": "str", "datetime": "str"}
JSON = frozenset("list dict tuple set Any object List Dict Tuple".split())
NO_COUNTERPART = {
    "retry_on": "Metaflow's @retry takes every error", "once": "Metaflow may run it again", "serial": "items run side by side",
    "workers": "`run --max-workers` limits all steps together", "no_cache": "", "expires": "", "pure": "", "here": "",
    "on": "`run --with kubernetes` says where", "env": "`--with pypi` writes what the notebook imports",
}  # fmt: skip
HELPERS = {
    "display": "display = print  # the notebook's display()",
    "caught": '''def caught(failure):
    """What @catch has kept, with the names that the notebook knows; None where nothing failed."""
    if failure is None or not hasattr(failure, "exception"):
        return failure
    return types.SimpleNamespace(
        type=failure.type.rpartition(".")[2], message=failure.exception, traceback=failure.stacktrace
    )''',
    "as_file": '''def as_file(name, content):
    """The content of an included file in, the path of a file that holds it out."""
    path = pathlib.Path(tempfile.mkdtemp()) / pathlib.Path(name).name
    path.write_bytes(content)
    return str(path)''',
    "frame": '''def frame(inputs, names):
    """The items of a fan-out in, a table of the numbers and texts that they left out."""
    rows = [{name: getattr(item, name) for name in names if hasattr(item, name)} for item in inputs]
    rows = [{name: value for name, value in row.items() if value is None or pandas.api.types.is_scalar(value)} for row in rows]
    return pandas.DataFrame(rows, index=pandas.Index(range(len(rows)), name="index"))''',
}
NEEDED_BY = {"caught": {"types"}, "as_file": {"pathlib", "tempfile"}, "frame": {"pandas"}}


class MetaflowExporter:
    """`--to metaflow`; words: `kubernetes`, `batch`, `pypi`."""

    def export(self, flow: Flow, environment: Environment, options: Options) -> dict[str, str]:
        """A flow in; its file, and helper modules if it is to lie elsewhere, out; PlanError for what it cannot hold."""
        text, notes = _write(flow, environment, options)
        notes.raise_refused("Metaflow")
        return {**({} if environment.beside else environment.modules), options.file: text}

    def check(self, flow: Flow, environment: Environment, options: Options) -> tuple[Finding, ...]:
        """A flow in; what Metaflow cannot hold, what is lost and what changes, out."""
        return tuple(_write(flow, environment, options)[1].findings)


def _write(flow: Flow, environment: Environment, options: Options) -> tuple[str, Notes]:
    notes = Notes()
    notes.findings.extend(flow_problems(flow))
    if notes.findings:
        return "", notes
    file = _File(flow, environment, options, notes)
    text = file.text()
    file.note_losses()
    return text, notes


class _File:
    """One FlowSpec file in the making."""

    def __init__(self, flow: Flow, environment: Environment, options: Options, notes: Notes) -> None:
        self.flow, self.environment, self.options, self.notes = flow, environment, options, notes
        self.needs, self.names = Needs(flow, notes), Names(flow, notes)
        self.texts = StepTexts(flow, self.needs, self.names, notes)
        self.used = {"FlowSpec", "step"}  # of metaflow
        self.layout = Layout(flow, self.needs, self.names, self.texts, notes)
        clash = set(self.needs.last) & {"FlowSpec", "Parameter", "IncludeFile", "JSONType", "step", "retry", "timeout", "catch",
                                        "resources", "card", "secrets", "environment", "kubernetes", "batch", "pypi"}  # fmt: skip
        self.prefix = "metaflow." if clash else ""
        self.title, self.above = _title(flow)

    def text(self) -> str:
        """The whole file."""
        start, parameters = self._parameters()
        nodes = [start, *self.layout.nodes, Node("end", doc=(below := _below(self.flow)), text="" if below else "pass")]
        steps = "\n\n".join(indent(self._step(node), 4) for node in nodes)
        head = [docstring(self.title.partition("\n")[0])]
        body = "\n\n".join(part for part in [indent("\n".join(head), 4), indent("\n".join(parameters), 4), steps] if part)
        base = ""
        if "pypi" in self.options.words:
            packages = {name: version for name, version in self.environment.distributions.values() if version}
            base = f"@{self.prefix}pypi_base(python={self.environment.python!r}, packages={packages!r})\n"
            self.used.add("pypi_base")
        written = f"{base}class {self.names.flow}({self.prefix}FlowSpec):\n{body}"
        definitions = self._definitions()  # after the steps: they say which modules and helpers they need
        tail = f'if __name__ == "__main__":\n    {self.names.flow}()\n'
        return "\n\n\n".join(part for part in [self._head(), *definitions, written, tail] if part)

    # ------------------------------------------------------------ above the class

    def _head(self) -> str:
        imports = [d.source for d in self._tops() if self._is_import(d)]
        bound = set(self.needs.last)
        own = self.texts.wanted | {need for word in self.texts.wanted for need in NEEDED_BY.get(word, ())}
        modules = sorted(word for word in own if ":" not in word and word not in HELPERS and word not in bound)
        mine = "import metaflow" if self.prefix else f"from metaflow import {', '.join(sorted(self.used, key=lambda word: (not word[0].isupper(), word)))}"
        lines = dict.fromkeys([*(f"import {module}" for module in modules), *imports, mine])
        future = [line for line in lines if line.startswith("from __future__")]
        return "\n\n".join(["\n".join([docstring(self.title), *future]), "\n".join(line for line in lines if line not in future)])

    def _tops(self) -> list[Definition]:
        """The definitions of the file's top, each once."""
        return [self.flow.definitions[order] for order in self.needs.tops if self.needs.alike[order] == order]

    def _is_import(self, d: Definition) -> bool:
        """Whether a definition is an import that can stand above everything else."""
        setup = [other.order for other in self._tops() if other.kind == "setup"]
        return d.source.startswith(("import ", "from ")) and "\n" not in d.source.rstrip(")") and d.order < min([*setup, d.order + 1])

    def _definitions(self) -> list[str]:
        """Helpers, then the notebook's definitions and set-up, with the text above their cells as comments."""
        found = [text for name, text in HELPERS.items() if name in self.texts.wanted]
        last = None
        for d in self._tops():
            plain = plain_python(d.source, self.flow.writers)
            if plain is None and not environment_variables(d.source):
                self.notes.refused(f"{d.source.splitlines()[0]!r} has no counterpart outside of IPython", cell=d.cell, line=d.line)
            if self._is_import(d) or plain is None or not plain[0].strip():
                if plain is not None and not plain[0].strip():
                    self.notes.lost(f"{d.source.strip()} in cell {d.position}", cell=d.cell)
                continue
            cell = self.needs.cells[d.cell]
            comment = as_comment(self.above.get(cell.id, cell.markdown)) if cell.id != last and cell.kind != "step" else ""
            text = "\n".join(part for part in [comment, plain[0].strip("\n")] if part)
            short = last == d.cell and found and not d.source.startswith(("def ", "class ", "@", "async "))
            found[-1:] = [f"{found[-1]}\n{text}"] if short else [*found[-1:], text]
            last = d.cell
        return found

    # ------------------------------------------------------------ parameters

    def _parameters(self) -> tuple[Node, list[str]]:
        """The `start` step, which computes what is no plain parameter, and the lines of the others."""
        lines: list[str] = []
        computed: list[str] = []
        for cell in (cell for cell in self.flow.notebook.cells if cell.kind == "params"):
            lines += [as_comment(self.above.get(cell.id, cell.markdown))] if cell.markdown else []
            for parameter in (p for p in self.flow.parameters if p.cell == cell.id):
                lines.append(self._parameter(parameter))
        entry = self.layout.entry
        text = "\n".join([*computed, *entry.before])
        return Node("start", doc=entry.doc, text=text, call=entry.call), [line for line in lines if line]

    def _parameter(self, p: Parameter) -> str:
        name, kind = self.names.artifacts[p.name], type_name(p)
        words = [f'"{name}"']
        if kind == "File":
            self.used.add("IncludeFile")
            words.append("is_text=False")
            self.notes.changed(f"the file {p.name} travels with the run; steps open a copy of it", cell=p.cell, name=p.name)
        else:
            self.used |= {"Parameter"} | ({"JSONType"} if kind in JSON else set())
            words.append(f"type={f'{self.prefix}JSONType' if kind in JSON else TYPES.get(kind, 'str')}")
        words.append("required=True" if p.default is None else f"default={self._default(p, kind)}")
        words += [f"help={p.help!r}"] if p.help else []
        return f"{name} = {self.prefix}{'IncludeFile' if kind == 'File' else 'Parameter'}({', '.join(words)})"

    def _default(self, p: Parameter, kind: str) -> str:
        assert p.default is not None  # noqa: S101  # asked for parameters with a default only
        try:
            value = ast.literal_eval(p.default)
        except (ValueError, TypeError, SyntaxError):
            return f"lambda context: {p.default}"
        if kind in JSON:
            import json

            return repr(json.dumps(list(value) if isinstance(value, set | tuple) else value))
        return p.default

    # ------------------------------------------------------------ steps

    def _step(self, node: Node) -> str:
        markdown = self.above.get(node.step.cell, node.doc) if node.step is not None else node.doc
        lines = [*(self._decorators(node.step) if node.step is not None else []), f"@{self.prefix}step"]
        lines.append(f"def {node.name}(self{', inputs' if node.join else ''}):")
        text = "\n".join(part for part in [docstring(markdown, 8), node.text] if part)
        lines += [indent(text, 4)] if text else []
        return "\n".join([*lines, f"    self.next({node.call})"] if node.call else lines)

    def _decorators(self, step: Step) -> list[str]:
        options, found = step.options, []
        if options.retry:
            found.append(f"retry(times={options.retry}, minutes_between_retries={options.backoff / 60:g})")
        if options.catch:
            found.append(f'catch(var="{self.names.artifacts[options.catch]}")')
        if options.timeout:
            found.append(f"timeout(seconds={math.ceil(options.timeout)})")
        sizes = {"cpu": options.cpu and math.ceil(options.cpu), "gpu": math.ceil(options.gpu) or None,
                 "memory": options.memory and math.ceil(options.memory / 1e6)}  # fmt: skip
        asked = ", ".join(f"{name}={value}" for name, value in sizes.items() if value)
        found += [f"resources({asked})"] if asked else []
        found += [word for word in ("kubernetes", "batch") if word in self.options.words]
        found += ["card"] if options.card else []
        found += [f"secrets(sources={list(options.secret)!r})"] if options.secret else []
        if options.pip:
            found.append(f"pypi(packages={dict(_pinned(word) for word in options.pip)!r})")
        variables = {k: v for order in step.definitions for k, v in environment_variables(self.flow.definitions[order].source).items()}
        found += [f"environment(vars={variables!r})"] if variables else []
        self.used |= {word.partition("(")[0] for word in found}
        return [f"@{self.prefix}{word}" for word in found]

    # ------------------------------------------------------------ what is lost

    def note_losses(self) -> None:
        """Options without a counterpart, cells that no step needs."""
        for step in self.flow.steps:
            for name, why in NO_COUNTERPART.items():
                if getattr(step.options, name):
                    word = name.replace("_", "-")
                    self.notes.lost(f"--{word} of {step.label}{': ' + why if why else ''}", step=step.name, cell=step.cell)
            if step.options.nodes > 1:
                self.notes.refused(f"--nodes of {step.label}: Metaflow's @parallel hands out work in its own way", step=step.name)
        used = {step.cell for step in self.flow.steps} | {d.cell for d in self._tops()}
        used |= {d.cell for step in self.flow.steps for d in self.needs.inlined(step)}
        for cell in self.flow.notebook.cells:
            if cell.kind == "plain" and cell.id not in used:
                self.notes.lost(f"cell {cell.position}: no step needs it", cell=cell.id)


def _pinned(word: str) -> tuple[str, str]:
    name, _, version = word.partition("==")
    return name.strip(), version.strip()


def _title(flow: Flow) -> tuple[str, dict[str, str]]:
    """A flow in; its title and, for the cell below that, what of its text is left, out."""
    first = next((cell for cell in flow.notebook.cells if cell.markdown), None)
    if first is None or first.position > 1:
        return f"The notebook {flow.name}.", {}
    blocks = first.markdown.split("\n\n")
    at = next((at for at, block in enumerate(blocks[1:], start=1) if block.startswith("#")), len(blocks))
    alone = first.kind in ("control", "empty")
    return "\n\n".join(blocks if alone else blocks[:at]), {first.id: "" if alone else "\n\n".join(blocks[at:])}


def _below(flow: Flow) -> str:
    """A flow in; the text below its last code cell out."""
    import json

    try:
        cells = json.loads(flow.notebook.document)["cells"]
    except (ValueError, KeyError, TypeError):
        return ""
    last = max((at for at, cell in enumerate(cells) if cell.get("cell_type") == "code"), default=-1)
    texts = (cell.get("source", "") for cell in cells[last + 1 :] if cell.get("cell_type") == "markdown")
    return "\n\n".join("".join(text) if isinstance(text, list) else text for text in texts)
