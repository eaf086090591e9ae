"""What stands above the steps in a Python file: title, imports, helpers, the notebook's definitions with their text."""

from __future__ import annotations

from nbflow.errors import NotebookError
from nbflow.exporters.cell_text import as_comment, environment_variables, is_for_show
from nbflow.exporters.definitions import Needs
from nbflow.exporters.python_steps import PlainSteps
from nbflow.flow.notebook import read_document
from nbflow.jsonable import text
from nbflow.model import Cell, Definition, Flow

DISPLAY = "display = print  # the notebook's display()"
FRAME = '''\
def frame(inputs, names):
    """Return a table of the numbers and texts that the items of a fan-out left."""
    rows = [{name: getattr(item, name) for name in names if hasattr(item, name)} for item in inputs]
    rows = [{name: value for name, value in row.items() if pandas.api.types.is_scalar(value)} for row in rows]
    return pandas.DataFrame(rows, index=pandas.Index(list(range(len(rows))), name="index"))'''
AS_FILE = '''\
def as_file(name, content):
    """Return the path of a file that holds this content under this name."""
    if content is None:
        return None
    path = pathlib.Path(tempfile.mkdtemp()) / pathlib.Path(name).name
    path.write_bytes(content)
    return str(path)'''
ENTRY = '''\
class Entry:
    """What one item of a fan-out left, by the notebook's names where the target has others, or keeps another form."""

    def __init__(self, task, **given):
        self.task, self.given = task, given

    def __getattr__(self, name):
        return self.given[name](self.task) if name in self.given else getattr(self.task, name)'''
CONFIG = '''\
class Config(dict):
    """A table whose keys are attributes, too."""

    def __getitem__(self, name):
        value = super().__getitem__(name)
        return Config(value) if isinstance(value, dict) else value

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)'''
HELPERS = {
    "Config": (CONFIG, frozenset[str]()),
    "display": (DISPLAY, frozenset[str]()),
    "frame": (FRAME, frozenset({"pandas"})),
    "as_file": (AS_FILE, frozenset({"pathlib", "tempfile"})),
    "Entry": (ENTRY, frozenset[str]()),
}
"""Name -> text, and the modules that it needs."""


class Top:
    """A file's top; asked for after the steps' texts, which say what they need."""

    def __init__(self, flow: Flow, needs: Needs, texts: PlainSteps) -> None:
        self.flow, self.needs, self.texts = flow, needs, texts
        self.title, self._above = self._read_title()
        tops = [flow.definitions[order] for order in needs.tops if needs.alike[order] == order]
        self.tops = [d for d in tops if not self._is_ours(d)]
        setup = (d for d in self.tops if d.kind == "setup" and not is_for_show(d.source))
        first = min((d.order for d in setup), default=len(flow.definitions))
        self.imports = [d for d in self.tops if d.order < first and d.source.startswith(("import ", "from "))]

    def text_above(self, cell: Cell) -> str:
        """Return the Markdown above a cell that belongs to it, and not to the whole."""
        return self._above.get(cell.id, cell.markdown)

    def import_lines(self, own: str) -> str:
        """Return all import lines, those of the target and of generated lines first."""
        lines = [*self.texts.words.imports(), *(d.source.strip() for d in self.imports), own]
        return "\n".join(sorted(dict.fromkeys(lines), key=lambda line: not line.startswith("from __future__")))

    def definitions(self) -> list[str]:
        """Return helpers, then the notebook's definitions and set-up, with the text above their cells as comments."""
        texts = self.texts.words.texts()
        last, after_block = "", False
        for d in self.tops:
            text = (
                ""
                if d in self.imports or environment_variables(d.source)
                else self.texts.plain(d.source, d.cell, d.line)
            )
            if not text.strip():
                continue
            cell = self.needs.cells[d.cell]
            comment = as_comment(self.text_above(cell)) if cell.id != last and cell.kind != "step" else ""
            text = "\n".join(part for part in [comment, text.strip("\n")] if part)
            block = d.source.startswith(("def ", "class ", "@", "async "))
            if last == d.cell and not block and not after_block:
                texts[-1] = f"{texts[-1]}\n{text}"
            else:
                texts.append(text)
            last, after_block = d.cell, block
        return texts

    def note_scratch(self) -> None:
        """Note which cells are left out because no step needs them."""
        used = {step.cell for step in self.flow.steps} | {d.cell for d in self.tops}
        used |= {d.cell for step in self.flow.steps for d in self.needs.inlined(step)}
        for cell in self.flow.notebook.cells:
            if cell.kind == "plain" and cell.id not in used:
                self.texts.notes.lost(f"cell {cell.position}: no step needs it", cell=cell.id)

    def _is_ours(self, d: Definition) -> bool:
        """Return whether a definition imports from nbflow, which the target does not have."""
        ours = [name for name, origin in d.origins.items() if origin.split(".")[0] == "nbflow"]
        for name in ours:
            if d.origins[name] != "nbflow.File":
                self.texts.notes.refused(
                    f"{d.origins[name]} is nbflow's own", cell=d.cell, line=d.line, name=name,
                    fix="take what the step needs as a parameter or as data",
                )  # fmt: skip
        return bool(ours)

    def _read_title(self) -> tuple[str, dict[str, str]]:
        """Return the notebook's title, and what of its text is left for the cell below it."""
        first = next((cell for cell in self.flow.notebook.cells if cell.markdown), None)
        if first is None or first.position > 1:
            return f"The notebook {self.flow.name}.", {}
        blocks = first.markdown.split("\n\n")
        at = next((at for at, block in enumerate(blocks[1:], start=1) if block.startswith("#")), len(blocks))
        at = len(blocks) if first.kind in ("control", "empty") else at
        return "\n\n".join(blocks[:at]), {first.id: "\n\n".join(blocks[at:])}


def text_below(flow: Flow) -> str:
    """Return the text below a flow's last code cell."""
    try:
        cells = read_document(flow.notebook.document, flow.name)["cells"]
    except NotebookError:
        return ""
    last = max((at for at, cell in enumerate(cells) if cell["cell_type"] == "code"), default=-1)
    return "\n\n".join(text(cell["source"]) for cell in cells[last + 1 :] if cell["cell_type"] == "markdown")
