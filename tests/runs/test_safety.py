"""A store is code: nothing but asking for a value reads a pickle; names are refused, or carried without harm."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow.cli import app
from nbflow.errors import NbflowError, NotFoundError, OptionError
from nbflow.flow.notebook import document_of
from nbflow.flow.options import check_name
from nbflow.runs import client, compare, launch
from nbflow.runs.garbage import Policy, clean, plan_cleaning
from nbflow.runs.run_options import RunOptions
from nbflow.store import records
from nbflow.store.index import Index
from nbflow.store.location import open_store, safe_name
from tests.support.kernel import Kernel, NotebookFile
from tests.support.stored import StoredRun

running = pytest.mark.running

TRAP = """%%step trap --card
import pathlib

class Trap:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(MARK),))

caught = Trap()
inside = [1, {"deep": Trap()}]
harmless = 3"""
CELLS = ["%%params\nlr: float = 0.1", "MARK = 'loaded.txt'", TRAP, "%%step after\nsix = harmless * 2"]


@pytest.fixture(autouse=True)
def folder(folder: Path) -> Path:
    Path("demo.ipynb").write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(CELLS)), "demo"))
    return folder


@pytest.fixture
def run(folder: Path) -> nbflow.Run:
    """A run whose values write a file when they are loaded; nothing has loaded them yet."""
    found = nbflow.run("demo.ipynb", tags=("t",))
    assert found.successful, found.error
    assert not (folder / "loaded.txt").exists()
    return found


def shown(value: Any) -> str:
    return repr(value) + (value._repr_html_() or "") if hasattr(value, "_repr_html_") else repr(value)


LOOKS: dict[str, Callable[[nbflow.Run], Any]] = {
    "flow": lambda run: shown(nbflow.Flow("demo")),
    "runs": lambda run: [shown(each) for each in nbflow.Flow("demo").runs("t")],
    "run": lambda run: (shown(run), run.error, run.params, run.tags, run.metadata, run.snapshot, dir(run.data)),
    "steps": lambda run: [(shown(step), step.state, len(step), dir(step.data)) for step in run.steps()],
    "tasks": lambda run: [
        (shown(task), task.stdout, task.outputs, task.metadata, task.reasons, dir(task.data), repr(task.data))
        for step in run.steps() for task in step.tasks
    ],
    "artifacts": lambda run: [
        (shown(one), one.name, one.type, one.shape, one.nbytes, one.preview, one.content_id, one.stored)
        for step in run.steps() for task in step.tasks for one in task.artifacts.values()
    ],
    "locate": lambda run: (shown(client.locate("demo/latest/trap")), shown(client.locate(f"{run.id}/trap/caught"))),
    "notebook": lambda run: run.notebook_with_outputs(),
    "names": lambda run: ("caught" in run.data, "caught" in run["trap"].task.data),
    "inputs": lambda run: run["after"].task.load_inputs(),
    "check": lambda run: launch.check("demo.ipynb"),
    "plan": lambda run: launch.plan("demo.ipynb"),
    "why": lambda run: launch.why("demo.ipynb", "trap", RunOptions(params={"lr": 2})),
    "diff": lambda run: [show(compare.compare(run, run)) for show in (compare.text, compare.as_html)],
    "index": lambda run: Index(run.store).runs(open_store(run.store)),
    "again": lambda run: shown(nbflow.run("demo.ipynb")),
    "gc": lambda run: clean(open_store(run.store), plan_cleaning(open_store(run.store), Policy(keep=5, force=True))),
    "command line": lambda run: [app.main(words) for words in (
        ["runs"], ["runs", "--json"], ["show", "demo/latest"], ["show", "demo/latest/trap"],
        ["logs", "demo/latest/trap"],
        ["check", "demo.ipynb"], ["dag", "demo.ipynb"], ["plan", "demo.ipynb"], ["why", "demo.ipynb", "trap"],
        ["gc", "--dry-run"], ["diff", "demo/latest", "demo/latest"], ["attach", "demo/latest"], ["tag", "demo/latest"],
        ["run", "demo.ipynb"], ["run", "demo.ipynb", "--json"], ["doctor"],
    )],
}  # fmt: skip


@running
def test_nothing_but_asking_for_a_value_loads_it(run: nbflow.Run, folder: Path) -> None:
    mark = folder / "loaded.txt"
    for name, look in LOOKS.items():
        look(run)
        assert not mark.exists(), f"{name} has loaded a value"
    assert run.data.six == 6
    assert not mark.exists(), "another name's group"
    with contextlib.suppress(NbflowError):
        _ = run.data.caught
    assert mark.exists(), "the trap works"


@running
def test_nothing_is_loaded_in_a_kernel_until_it_runs_or_reads_it(run: nbflow.Run, folder: Path) -> None:
    mark = folder / "loaded.txt"
    with Kernel(NotebookFile(folder / "demo.ipynb", {f"c{at}": cell for at, cell in enumerate(CELLS)})) as kernel:
        for line in ("status", "check", "dag", "plan", "why trap", "runs", f"show {run.id}", "gc --dry-run"):
            assert kernel.execute(f"%flow {line}").status == "ok", line
            assert not mark.exists(), line
        assert kernel.execute("%flow run").status == "ok"  # binds what is small, for completion and `%who`
        assert kernel.execute("six").result == "6"
        assert mark.exists(), "the trap works"


# ---------------------------------------------------------------- names

HOSTILE = [
    "../up",
    "..",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "it's",
    'q"q',
    "`id`",
    "a\nb",
    "a\x1b[31mb",
    "a\x00b",
    "-rf",
    ".hidden",
    "a;b",
    "<b>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_step_names_are_refused(name: str) -> None:
    with pytest.raises(OptionError):
        check_name(name)


@pytest.mark.parametrize("name", [*HOSTILE, "ü", "名前", "a b", "con", "x" * 300, "%2e%2e", "~"])
def test_flow_and_run_names_stay_in_their_folder(name: str, folder: Path) -> None:
    store = open_store(folder / "deep" / "store")
    records.write_notebook(store, safe_name(name), name, "{}")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "demo.ipynb"]
    assert all(path.is_relative_to(folder / "deep" / "store") for path in files)
    assert "/" not in safe_name(name)
    assert "\\" not in safe_name(name)
    assert safe_name(name) not in {".", ".."}
    assert records.read_notebook(store, safe_name(name), name) == "{}"


@pytest.mark.parametrize("name", HOSTILE)
def test_asking_for_hostile_names_finds_nothing(name: str, folder: Path) -> None:
    made = StoredRun(folder, ["%%step a\nx = 1"])
    made.execute("a")
    made.end()
    (folder / "store" / "secret.txt").write_text("x")
    for ask in (f"demo/{name}", f"{name}/{made.run}", name):
        with pytest.raises((NotFoundError, ValueError)):
            nbflow.Run(ask, store=made.store.url)
    run = nbflow.Run(f"demo/{made.run}", store=made.store.url)
    with pytest.raises(NotFoundError):
        run[name]
    with pytest.raises((AttributeError, NotFoundError)):
        getattr(run.data, name)
    with pytest.raises((NotFoundError, ValueError)):
        nbflow.Flow(name, store=made.store.url)


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a\nb", "\x1b[31mred", "..", "a\\b"])
def test_a_notebook_cannot_name_its_flow_out_of_the_store(name: str, folder: Path) -> None:
    document = json.loads(Path("demo.ipynb").read_text())
    document["metadata"]["nbflow"] = {"flow": name}
    Path("evil.ipynb").write_text(json.dumps(document))
    with pytest.raises(NbflowError, match="cannot be a flow's name"):
        launch.check("evil.ipynb")


@running
def test_text_of_the_user_cannot_break_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = "<img src=x onerror=alert(1)>"
    cells = [f"%%params\nname: str = {word!r}", f"%%step a\nvalue = name\nraise ValueError({word!r})"]
    Path("page.ipynb").write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "page"))
    run = nbflow.run("page.ipynb", tags=("<b>",))
    parts = [run, run["a"], run["a"].task, nbflow.Flow("page")]
    for part in parts:
        assert "<img" not in part._repr_html_()
        assert "<b>" not in part._repr_html_().replace("<b>page</b>", "").replace("<b>a</b>", "")


@running
def test_text_of_the_user_does_nothing_to_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\x1b[" + "9" * 5000 + "m"
    cells = [f"%%step a\nprint({sequence!r} + 'printed')\nvalue = {sequence!r}\nraise ValueError({sequence!r} + 'why')"]
    Path("page.ipynb").write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "page"))
    codes = [app.main(words) for words in (
        ["run", "page.ipynb"], ["runs"], ["show", "page/latest"], ["show", "page/latest/a"], ["logs", "page/latest/a"],
        ["card", "page/latest/a", "-o", "card.html"], ["runs", "--json"], ["plan", "page.ipynb"],
    )]  # fmt: skip
    assert codes == [1, 0, 0, 0, 0, 0, 0, 0]
    told = "".join(capsys.readouterr())
    run = nbflow.Run("page/latest")
    told += "".join(map(repr, (run, run["a"], run["a"].task, run["a"].task.attempts[0], nbflow.Flow("page"))))
    told += Path("card.html").read_text()
    assert "printed" in told
    assert "ValueError: why" in told
    assert "\x1b]" not in told
    assert "\x1b[2J" not in told
    assert "\x1b[9" not in told
