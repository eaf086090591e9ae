"""What modules beside a notebook do is read from their texts: nothing of them is run."""

from __future__ import annotations

from pathlib import Path

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow, Notebook, OwnModule
from nbflow.store.own_modules import with_modules

TEXT = """
import time, uuid
from pathlib import Path

RATE = 2
KEY = uuid.uuid4().hex
jobs = []


def register(function):
    jobs.append(function)
    return function


def named(word):
    def mark(function):
        jobs.append((word, function))
        return function

    return mark


def timed(function):
    def call(*given):
        start = time.time()
        return function(*given), time.time() - start

    return call


def key():
    def make():
        return uuid.uuid4().hex

    return make()


class Job:
    def __init__(self):
        jobs.append(self)

    def run(self):
        return time.time()


class Idle:
    def run(self):
        jobs.append(time.time())
"""


def notebook(folder: Path, *cells: str) -> Notebook:
    raw = [RawCell(f"c{at}", text) for at, text in enumerate(cells)]
    return with_modules(parse_cells(raw, name="n", folder=str(folder)))


def flow(folder: Path, *cells: str) -> Flow:
    return build_flow(notebook(folder, *cells), all_cells=True)


def test_what_its_text_says(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TEXT)
    (module,) = notebook(tmp_path, "import tasks, json", "from tasks import key").modules
    assert module == OwnModule(
        "tasks",
        acts=("Job", "Job()", "key", "key()", "named()", "register", "register()", "timed()"),
        defined=("Idle", "Job", "Path", "key", "named", "register", "time", "timed", "uuid"),
        computed=("KEY",),
    )


def test_one_that_code_writes_may_be_anything(tmp_path: Path) -> None:
    cells = ("open('made.py', 'w').write('x = 1')", "import made")
    assert notebook(tmp_path, *cells).modules == (OwnModule("made"),)
    assert notebook(tmp_path, "%%writefile made.py\nx = 1\n", "import made").modules == (OwnModule("made"),)
    assert notebook(tmp_path, "import json, made").modules == ()


def test_what_a_module_holds_is_data(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TEXT)
    cells = {
        "rate = tasks.RATE": True, "double = tasks.RATE * 2": True, "rate = RATE": True, "n = tasks.Job.count": True,
        "run = tasks.register": False, "Kind = tasks.Job": False, "n = 3": False,
    }  # fmt: skip
    for text, is_data in cells.items():
        steps = flow(tmp_path, "import tasks\nfrom tasks import RATE", text).steps
        assert [step.source for step in steps] == ([text] if is_data else []), text


def test_a_decorator_that_registers_is_called_once(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TEXT)
    cells = {
        "@tasks.register\ndef f(): pass": True, "@tasks.named('a')\nclass A: pass": True,
        "@jobs.add\ndef f(): pass": True,
        "@tasks.timed\ndef f(): pass": False, "class A(tasks.Idle): pass": False,
        "class A:\n    job = tasks.Job()": True,
    }  # fmt: skip
    for text, is_once in cells.items():
        steps = flow(tmp_path, "import tasks\nfrom tasks import jobs", text).steps
        assert [step.source for step in steps] == ([text] if is_once else []), text


def test_one_whose_text_nobody_knows_may_register(tmp_path: Path) -> None:
    cells = ("open('made.py', 'w').write('')", "import made", "@made.take\ndef f(): pass")
    assert [step.cell for step in flow(tmp_path, *cells).steps] == ["c0", "c2"]


def test_a_plain_cell_that_registers_belongs_to_the_flow(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TEXT)
    cells = ("import tasks", "@tasks.register\ndef f(): pass", "%%step last\nn = len(tasks.jobs)")
    assert [step.cell for step in build_flow(notebook(tmp_path, *cells)).steps] == ["c1", "c2"]


def test_what_each_process_has_another_one_of_is_said(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TEXT)
    cells = ("import tasks", "a = [tasks.KEY]", "b = [tasks.KEY]")
    assert [each.code for each in flow(tmp_path, *cells).findings] == ["module-state"]
    assert not flow(tmp_path, *cells[:2], "b = [tasks.RATE]").findings
