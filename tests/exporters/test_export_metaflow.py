"""`export --to metaflow`: golden files, names, refusals; run by Metaflow itself, every artifact equals nbflow's own."""
# ruff: noqa: E501, Q003
# Cells are written as one line each, as long as they are.

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import nbflow
from nbflow.errors import PlanError
from nbflow.exporters.exporter import Environment, Exporter, Options
from nbflow.exporters.metaflow import MetaflowExporter
from nbflow.flow.notebook import document_of
from nbflow.runs import exporting
from tests.conformance.exporter import CELLS, ExporterConformance, flow_of
from tests.support.exported import collect, compare_export, metaflow, problems, run_metaflow, write_notebook
from tests.support.places import ROOT, TESTS

GOLDEN = TESTS / "golden"


class TestMetaflowExporter(ExporterConformance):
    def exporter(self) -> Exporter:
        return MetaflowExporter()

    def run(self, folder: Path) -> Mapping[str, Any]:
        (end,) = (left for left in run_metaflow(folder / "barrels.py") if left.step == "end")
        return end.values

    def test_nothing_of_nbflow_is_needed(self) -> None:
        assert "nbflow" not in self.export()[self.options.file]


# ---------------------------------------------------------------- what the text looks like


def test_golden_files(tmp_path: Path) -> None:
    """The quickstart, the example and a flow with every structure, as text; NBFLOW_GOLDEN=1 writes them anew."""
    everything = write_notebook(FLOWS["everything"].cells, tmp_path / "everything.ipynb")
    cases = {
        "quickstart_metaflow.py": (ROOT / "examples" / "quickstart.ipynb", "metaflow"),
        "quickstart_script.py": (ROOT / "examples" / "quickstart.ipynb", "script"),
        "export_metaflow.py": (ROOT / "examples" / "export.ipynb", "metaflow"),
        "everything_metaflow.py": (everything, "metaflow"),
    }
    different = []
    for name, (path, target) in cases.items():
        exporting.export(path, target, tmp_path / name)
        text = (tmp_path / name).read_text()
        if os.environ.get("NBFLOW_GOLDEN"):
            (GOLDEN / name).write_text(text)
        different += [name] if text != (GOLDEN / name).read_text() else []
    assert different == []


def exported(cells: Sequence[str], **words: Any) -> tuple[str, list[str]]:
    """Return the cells' text, empty where they are refused, and what is told about them."""
    flow = flow_of({f"c{at}": (source, "") for at, source in enumerate(cells)}, "made")
    options = Options(file="made.py", words=tuple(words.get("words", ())))
    environment = words.get("environment", Environment(python="3.11.7"))
    text, findings = "", ()
    try:
        files = MetaflowExporter().export(flow, environment, options)
        text, findings = files["made.py"], files.findings
    except PlanError as error:
        findings = error.findings
    return text, [line for finding in findings for line in exporting.told(finding)]


REFUSED = {
    "bash": (["%%step a\n%%bash\necho 1"], "no counterpart"),
    "a magic within a block": (["%%step a\nx = 1\nif x:\n    !ls"], "no counterpart"),
    "get_ipython": (["%%step a\nget_ipython().run_line_magic('who', '')"], "get_ipython"),
    "self": (["%%step a\nself = 1\nx = self"], "self"),
    "mangled": (["%%step a\n__x = 1\ny = __x"], "__x"),
    "until with catch": (["x = 0", "%%step a --until x > 1 --catch e\nx += 1"], "@catch takes no switch"),
    "if on a join": (["%%step a --foreach i in [1]\ny = i", "%%step b --join a --if 1 > 0\nz = 1"], "on the join"),
    "an item kept": (["%%step a --foreach i in [1]\ny = i", "%%step b --join a\nbest = inputs[0]", "%%step c\nz = best.y"], "best is an item"),
    "a generator": (["%%step a\ng = (i for i in range(3))", "%%step b\nx = list(g)"], "g is a generator"),
    "nodes": (["%%step a --nodes 2\nx = 1"], "--nodes"),
    "random state in a fan-out": (["import random", "%%step s\nrandom.seed(1)", "%%step a --foreach i in [1, 2]\ny = random.random()"], "random state"),
    "a default from a rewritten name": (["%%step a\nk = 1", "def f(x=k):\n    return x", "%%step b\nk = 2", "%%step c\ny = f() + k"], "rewritten"),
    "nbflow's current": (["from nbflow import current", "%%step a\nx = current.run"], "nbflow's own"),
    "attributes of a class": (["class C:\n    n = 0\n    def hit(self):\n        C.n += 1", "%%step a\nc = C()\nc.hit()", "%%step b\ny = c.n"], "attributes of C"),
    "an older artifact behind a definition": (["%%step a\nn = 5", "n = 0", "%%step b\nm = 1", "%%step c --if m > 1\nn = 7", "%%step d\nq = n"], "defined again"),
    "an item that leaves a name alone": (["%%step s\nodd = 0", "%%step a --foreach x in [1, 2]\nif x == 1:\n    odd = 5", "%%step j --join a\nn = len(inputs)", "%%step b\nz = odd"], "leaves it alone"),
    "a list that may be missing": (["%%step s\nk = 0", "%%step a --foreach x in [1] --if k\nys = [x]", "%%step b --foreach y in ys\nz = y", "%%step c --join b\nn = len(inputs)", "%%step d --join c\nm = len(inputs)"], "reads ys, which may be missing"),
    "rewritten among the steps of a fan-out": (["%%step a\nx = 1", "%%step b --foreach i in [1, 2]\ny = i + x", "%%step w\nx = 5", "%%step c\nz = y + x"], "rewrites x"),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(cells: list[str], words: str) -> None:
    text, told = exported(cells)
    assert text == "", text
    assert any(line.startswith("refused") and words in line for line in told), told


def test_names_that_are_reserved_or_cannot_be_spelt_are_changed_and_listed() -> None:
    text, told = exported(["%%params\ntags: str = 'x'", "%%step Load-Data\nindex = 1", "%%step index\nname = index + len(tags)",
                           "%%step über\nweiß = name", "%%step weiß\nx = weiß", "%%step x\ny = x"])  # fmt: skip
    compile(text, "made.py", "exec")
    for line in (
        "changed: the parameter tags is called tags_: tags is Metaflow's own",
        "changed: the artifact index is called index_: index is Metaflow's own",
        "changed: the artifact name is called name_: name is Metaflow's own",
        "changed: the step Load-Data is called load_data (step Load-Data)",
        "changed: the step index is called index_step (step index)",
        "changed: the step über is called uber (step über)",
        "changed: the step weiß is called weiss (step weiß)",
        "changed: the step x is called x_step (step x)",
    ):
        assert line in told, "\n".join(told)


def test_what_is_lost_is_told() -> None:
    _, told = exported(
        [
            "%matplotlib inline",
            "unused = [1]",
            "%%step a --workers 2 --retry 1 --retry-on ValueError --once\n%timeit 1\nx = 1\nwith open('f', 'w') as out:\n    pass",
        ]
    )
    losses = " ".join(line for line in told if line.startswith("lost"))
    for word in ("%matplotlib", "cell 2: no step needs it", "--workers", "--retry-on", "--once", "%timeit", "out of a"):
        assert word in losses, (word, told)


def test_decorators() -> None:
    cells = [
        "%env MODE=fast",
        '%%step a --retry 2 --backoff 90s --timeout 1m --cpu 1.5 --gpu 1 --memory 2G --card --secret KEY --catch error --pip "x==1"\ny = 1',
    ]
    environment = Environment(python="3.11.7", distributions={"sklearn": ("scikit-learn", "1.9")})
    text, _ = exported(cells, words=("kubernetes", "pypi"), environment=environment)
    for line in (
        "@pypi_base(python='3.11.7', packages={'scikit-learn': '1.9'})", "@retry(times=2, minutes_between_retries=2)",
        '@catch(var="error")', "@timeout(seconds=60)", "@resources(cpu=2, gpu=1, memory=2000)", "@kubernetes", "@card",
        "@secrets(sources=['KEY'])", "@pypi(packages={'x': '1'})", "@environment(vars={'MODE': 'fast'})",
    ):  # fmt: skip
        assert line in text, text
    compile(text, "made.py", "exec")


def test_configs_are_parameters_and_options_have_the_value_of_now() -> None:
    cells = [
        "%%config\nlimit = '90s'\nmodel = {'layers': 3, 'part': {'n': 1}}",
        "%%step a --timeout {limit} --cpu {model[part][n]}\nx = model.layers + model.part.n",
    ]
    text, told = exported(cells)
    for line in (
        """model = Parameter("model", type=JSONType, default='{"layers": 3, "part": {"n": 1}}')""", "class Config(dict):",
        "model = Config(self.model)", "@timeout(seconds=90)", "@resources(cpu=1)",
    ):  # fmt: skip
        assert line in text, text
    for line in (
        "--timeout {limit} of a has the value that limit",
        "--cpu {model[part][n]} of a has the value that model",
    ):
        assert line in " ".join(told), told
    compile(text, "made.py", "exec")


@pytest.mark.parametrize("cells", [
    ["def step(x):\n    return x + 1", "%%step a\ny = step(1)"], ["%%step step\nx = 1", "%%step b\ny = x"],
    ["%%params\ncard: int = 1", "%%step a\nx = card"],
], ids=["function", "step", "parameter"])  # fmt: skip
def test_what_is_named_like_a_decorator_is_no_trouble(cells: list[str]) -> None:
    text, _ = exported(cells)
    assert "import metaflow" in text
    assert "@metaflow.step" in text


TEXTS = {
    "a class called like the flow": (["class MadeFlow:\n    pass", "%%step a\nx = 1"], "class MadeFlowSpec(FlowSpec):"),
    "a module's name of its own": (["from datetime import date", "%%params\nday: date = date(2024, 1, 2)", "%%step a\nx = day"], "import datetime"),
    "a module's name taken": (["from datetime import date, datetime", "%%params\nday: date = date(2024, 1, 2)", "%%step a\nx = day"], "datetime_module.date.fromisoformat(self.day)"),
    "a builtin's name taken": (["%%step s\nsorted = [1]", "%%step a --foreach x in [1]\ny = x", "%%step b --join a\nz = sorted"], "inputs = builtins.sorted("),
    "a mark's name taken": (["%%step s\nrun_a = 1", "%%step a --if run_a\nx = 1"], 'condition="run_a_step"'),
    "one item's mark taken": (["%%step a --foreach item in [1]\nitem = 2", "%%step b --join a\nz = inputs[0].item"], "item=lambda task: task.item_of_a"),
    "names of items": (["%%step a --foreach x in [1]\nname = x", "%%step b --join a\nz = [i.name for i in inputs]"], "Entry(task, name=lambda task: task.name_)"),
    "constants of items": (["k = 3", "%%step a --foreach x in [1]\ny = x + k", "%%step b --join a\nz = [i.k for i in inputs]"], "k=lambda task: k"),
    "skipped items": (["k = 3", "%%step a --foreach x in [1] --if x\ny = 1", "%%step b --join a\nz = len(inputs)"], "if task.run_a]"),
    "names of earlier items": (["%%step a --foreach x in [1, 0]\nif x:\n    y = x", "%%step b --join a\nz = len(inputs)"], "in reversed(inputs)"),
    "turns over a constant": (["n = 0", "%%step a --until n > 3\nn = n + 1"], 'if hasattr(self, "a_turns"):\n            n = self.n'),
    "an older constant in a condition": (["k = 1", "%%step a --if k > 1\nx = 1", "k = 2", "%%step b\ny = k"], "k = 1\n        self.run_a = bool(k > 1)"),
    "steps that touch one file": (["%%step a\nopen('o', 'w').write('1')", "%%step b\nt = open('o').read()", "%%step c\nz = 1"], "self.next(self.a, self.c)"),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "words"), TEXTS.values(), ids=TEXTS)
def test_the_text(cells: list[str], words: str) -> None:
    text, told = exported(cells)
    compile(text, "made.py", "exec")
    assert words in text, (told, text)


def test_a_star_import_that_a_later_one_hides(tmp_path: Path) -> None:
    """No function may hold one: the step imports the names that it reads."""
    cells = {
        "m": "from math import *",
        "a": "%%step a\nx = sqrt(pi)",
        "c": "from cmath import *",
        "b": "%%step b\ny = sqrt(x)",
    }
    path = tmp_path / "made.ipynb"
    path.write_text(document_of(cells.items(), "made"))
    exporting.export(path, "metaflow", tmp_path / "made.py")
    text = (tmp_path / "made.py").read_text()
    compile(text, "made.py", "exec")
    assert "        from math import pi, sqrt\n\n        x = sqrt(pi)" in text


SETTINGS = {
    "p: int = 3": ('Parameter("p", type=int, default=3)', "y = self.p"),
    "p = 'a'": ('Parameter("p", type=str, default=\'a\')', "y = self.p"),
    "p: float": ('Parameter("p", type=float, required=True)', "y = self.p"),
    "p: int | None = None": ('Parameter("p", type=int, default=None)', "y = self.p"),
    "p: Optional[date] = None": ('Parameter("p", type=str, default=None)', "y = self.p and datetime.date.fromisoformat(self.p)"),
    "p: Literal['u', 'v'] = 'u'": ('Parameter("p", type=str, default=\'u\')', "y = self.p"),
    "p: Path = Path('a')": ('Parameter("p", type=str, default=lambda context: str(Path(\'a\')))', "y = pathlib.Path(self.p)"),
    "p: set = {'b', 'a'}": ("""Parameter("p", type=JSONType, default='["a", "b"]')""", "y = set(self.p)"),
    "p = None": ("""Parameter("p", type=JSONType, default='null')""", "y = self.p"),
    "p: File = 'a.csv'": ("""IncludeFile("p", is_text=False, default='a.csv')""", "y = as_file('a.csv', self.p)"),
    "p: Decimal = Decimal('1')": ("", "self.p = Decimal('1')"),
    "p = {1: 2}": ("", "self.p = {1: 2}"),
    "p: list[date] = []": ("", "self.p = []"),
}  # fmt: skip


@pytest.mark.parametrize("line", SETTINGS)
def test_a_parameter(line: str) -> None:
    """How it is declared, and how steps take it; what cannot be set from outside is told."""
    declared, taken = SETTINGS[line]
    imports = "from datetime import date\nfrom decimal import Decimal\nfrom pathlib import Path\nfrom typing import Literal, Optional"
    text, told = exported([imports, f"%%params\n{line}", "%%step a\nx = p"])
    compile(text, "made.py", "exec")
    assert f"p = {declared}" in text if declared else any("cannot be set from outside" in one for one in told), text
    assert taken.replace("y = ", "p = ") in text, text


# ---------------------------------------------------------------- run by Metaflow


@dataclass(frozen=True)
class Case:
    """A notebook, parameters to run it with, and files that lie beside it."""

    cells: Sequence[str | tuple[str, str]]
    params: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


FLOWS = {
    "everything": Case([
        ("markdown", "# Everything\n\nEach structure of the language once."),
        "%load_ext nbflow",
        "import math\nfrom dataclasses import dataclass",
        ("markdown", "## Words\n\nA class and a function that reads a name which is rewritten later."),
        "SCALE = 2\n\n\n@dataclass\nclass Point:\n    x: int\n    y: int = 0\n\n    def moved(self):\n        return Point(self.x + SCALE, self.y)\n\n\ndef scaled(values):\n    return [rate * value for value in values]",
        ("markdown", "## Parameters"),
        "%%params\nlr: float = 0.1  # how fast\nlevels: list = [1, 2]\nhalf = lr / 2",
        ("markdown", "Read by hand."),
        "%%step load\nxs = [3, 1]\nrate = 2.0\npoint = Point(1)",
        "%%step left\ntwice = scaled(xs)\nk = 1",
        "%%step right\nthrice = [3 * x for x in xs]\nk = 2",
        "rate = 10.0",
        "%%step both\nten = scaled(twice) + thrice + [k, lr, half]",
        "SCALE = 5",
        "%%step move\npoint = point.moved()",
        ("markdown", "## For each"),
        "%%step outer --foreach x in xs\nws = list(range(x))\nn = x * levels[0]",
        "%%step inner --foreach w in ws\nv = w * 10 + n",
        "%%step inner_sum --join inner\nsub = sum(one.v for one in inputs)",
        "%%step outer_sum --join inner_sum\nsubs = [(one.item, one.index, one.sub) for one in inputs]\nbest = max(inputs, key=lambda one: one.sub)\ntop = best.sub",
        "%%step tune --if top > 100\ntop = -1\nextra = 1",
        "%%step use_extra\ny = extra + 1",
        "%%step grow --until top > 40 --max 5\ntop = top + 30",
        "%%step risky --catch error\npart = 1\nbroken = 1 / (top - top)",
        "%%step told\nsaid = None if error is None else (error.type, error.message), part",
        "total = 0",
        "%%step walk --foreach x in xs\ntotal += x\nsquare = x * x",
        "%%step walked --join walk\nsquares = [one.square for one in inputs]",
        "%%step end\nlast = total, squares, top, math.sqrt(4), point.x",
        ("markdown", "That was everything."),
    ], params={"lr": 0.2, "levels": [4]}),
    "items": Case([
        "k = 3\n\n\ndef adder(by):\n    def add(v):\n        return v + by\n    return add",
        "%%step a --foreach x in [1, 2, 3] --if x != 3\nname = f'n{x}'\nnext = x * k\nf = adder(x)",
        "%%step b --join a\nr = [(i.name, i.next, i.k, i.item, i.index, i.f(1)) for i in inputs]\nlast = x, name",
        "n = 0",
        "%%step c --until n > 2\nn = n + 1",
        "total = 0",
        "%%step d --foreach i, item in enumerate([5, 6])\ntotal += item\nitem = -1",
        "%%step e --join d\nt = [(one.item, one.total) for one in inputs]",
    ]),
    "text": Case([
        "import helper_mod\nfrom helper_mod import Thing\nimport random\nimport functools",
        "%env MODE=fast\n%matplotlib inline",
        "%%setup\nimport os\nimport sqlite3\n\nconn = sqlite3.connect(':memory:')",
        "%%params\ndata: File = 'shop.csv'\nword: str = 'a \"b\" ü'",
        ("markdown", "# A \"\"\"quoted\"\"\" text\n\nwith \\alpha."),
        "%%step load-data.v2\nquery = '''\nselect *\n  from t\n'''\nmode = os.environ['MODE'], conn.execute('select 1').fetchone()\nrows = open(data).read().splitlines()\nrandom.seed(3)\nfirst = random.random()",
        "%%step überblick\nimport asyncio\n\nasync def get(i):\n    await asyncio.sleep(0)\n    return i\n\ngot = await asyncio.gather(*[get(i) for i in range(3)])\ndraw = random.random()",
        "def maker(k):\n    def add(v):\n        return v + k\n    return add\n\n\ndef shown(x):\n    return f'{x!r} {SUFFIX}'\n\nSUFFIX = 'one'",
        "%%step made\nadd = maker(3)\npicks = {'add': add, 'sq': lambda v: v * v}\none = shown(word)",
        "SUFFIX = 'two'",
        "%%time\nplain = len(query) + helper_mod.twice(3)",
        "%%step class\n!echo hi {plain}\n%time t = plain\nindex = t\nwith open('out.txt', 'w') as out:\n    out.write('x')\ndisplay(index)\nthing = Thing(1)\nlines = (row for row in rows)\nkept = list(lines)\ntwo = shown(word)",
        "%%step last\nname = index, picks['add'](1), picks['sq'](3), thing.v, kept\nitems = [word]\nitems.append(two)\nfor i in []:\n    never = i\nfinal = random.random()",
    ], files={"shop.csv": "a,b\n1,2\n", "helper_mod.py": "def twice(x):\n    return 2 * x\n\n\nclass Thing:\n    def __init__(self, v):\n        self.v = v\n"}),
}  # fmt: skip


@pytest.mark.export
@pytest.mark.parametrize("name", FLOWS)
def test_every_artifact_is_nbflows_own(name: str, tmp_path: Path) -> None:
    case = FLOWS[name]
    found, text = compare_export(case.cells, tmp_path, params=case.params, files=case.files)
    assert found == [], "\n".join(found) + "\n" + text


@pytest.mark.export
@pytest.mark.timeout(300)  # a dozen processes, each of which loads scikit-learn
def test_the_quickstart(tmp_path: Path) -> None:
    path = Path(shutil.copy2(ROOT / "examples" / "quickstart.ipynb", tmp_path / "quickstart.ipynb"))
    exporting.export(path, "metaflow", tmp_path / "flow.py")
    run = nbflow.run(path, store=str(tmp_path / "store"), params={"trees": 5})
    left = run_metaflow(tmp_path / "flow.py", "--trees", "5")
    assert problems(run, nbflow.runs.launch.check(path), left) == []


@pytest.mark.export
def test_the_example_writes_its_flow_from_the_notebook(tmp_path: Path) -> None:
    """Run cell by cell in a kernel, `%flow export` included; Metaflow leaves what the notebook's own flow leaves."""
    path = Path(shutil.copy2(ROOT / "examples" / "export.ipynb", tmp_path / "export.ipynb"))
    document = nbformat.read(path, as_version=4)
    NotebookClient(
        document, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = {cell["id"]: str(cell.get("outputs")) for cell in document.cells}
    assert "best of choose" in shown["check"]
    assert "bikes_flow.py" in shown["write"]
    run = nbflow.run(path, store=str(tmp_path / ".nbflow"))
    left = run_metaflow(tmp_path / "bikes_flow.py")
    assert problems(run, nbflow.runs.launch.check(path), left, ["best"]) == []
    (end,) = (one for one in left if one.step == "end")
    assert end.values["said"] in shown["report"]


@pytest.mark.export
def test_resume_and_check(tmp_path: Path) -> None:
    """A failed run is resumed by Metaflow after the file was mended; `check` finds nothing."""
    cells = ["%%step a --foreach x in [1, 2]\ny = x", "%%step b --join a\nz = sum(one.y for one in inputs)",
             "import os", "%%step c\nassert os.path.exists('mended'), 'not yet'\nw = z + 1"]  # fmt: skip
    path = write_notebook(cells, tmp_path / "made.ipynb")
    exporting.export(path, "metaflow", tmp_path / "flow.py")
    assert metaflow(tmp_path / "flow.py", "check").returncode == 0
    failed = metaflow(tmp_path / "flow.py", "run", "--run-id-file", "first.txt")
    assert failed.returncode != 0
    assert "not yet" in failed.stdout + failed.stderr
    (tmp_path / "mended").touch()
    again = metaflow(
        tmp_path / "flow.py",
        "resume",
        "--run-id-file",
        "run.txt",
        "--origin-run-id",
        (tmp_path / "first.txt").read_text(),
    )
    assert again.returncode == 0, again.stdout + again.stderr
    (end,) = (left for left in collect(tmp_path / "flow.py", (tmp_path / "run.txt").read_text()) if left.step == "end")
    assert end.values["w"] == 4


def test_conformance_cells_are_a_flow() -> None:
    assert [step.name for step in flow_of(CELLS).steps if step.kind == "step"] == [
        "load",
        "volume",
        "total",
        "low",
        "tell",
    ]
