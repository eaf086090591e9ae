"""Steps that touch the same files: shown as edges, learnt from runs, checked after each; what a failure takes along."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from nbflow.runs import launch

pytestmark = [pytest.mark.running, pytest.mark.usefixtures("folder")]

SAVE = """from pathlib import Path
def save(name, value):
    Path("out").mkdir(exist_ok=True)
    (Path("out") / f"{name}.json").write_text(str(value))"""


def write(*cells: str) -> Path:
    path = Path("files.ipynb")
    path.write_text(document_of(((f"c{at}", cell) for at, cell in enumerate(cells)), "files"))
    return path


def order(path: Path) -> list[tuple[str, str]]:
    """Return the edges by files that `dag` and `plan` show."""
    return [(edge.frm, edge.to) for edge in launch.check(path).edges if edge.why == "files"]


def states(run: nbflow.Run) -> dict[str, str]:
    return {step.name: step.state for step in run.steps()}


def codes(run: nbflow.Run) -> list[str]:
    return [finding.code for finding in run.snapshot.findings]


def test_two_branches_that_save_through_one_helper_run_side_by_side_from_the_second_run_on() -> None:
    path = write(SAVE, "%%step a\nsave('a', 1)\nx = 1", "%%step b\nsave('b', 2)\ny = 2")
    assert order(path) == [("a", "b")]
    run = nbflow.run(path)
    assert run.successful
    assert [(edge.frm, edge.to, edge.why) for edge in run.snapshot.edges] == [("a", "b", "files")]
    assert order(path) == []
    assert codes(nbflow.run(path, fresh=True)) == []
    assert order(path) == []


def test_an_edited_helper_is_asked_anew() -> None:
    path = write(SAVE, "%%step a\nsave('a', 1)\nx = 1", "%%step b\nsave('b', 2)\ny = 2")
    nbflow.run(path)
    path = write(SAVE.replace("{name}", "all"), "%%step a\nsave('a', 1)\nx = 1", "%%step b\nsave('b', 2)\ny = 2")
    assert order(path) == [("a", "b")]
    nbflow.run(path)
    assert order(path) == [("a", "b")], "it is the same file"


def test_steps_whose_text_hides_that_they_touch_one_file_wait_before_they_write_and_run_again_where_they_have_read(
    tmp_path: Path,
) -> None:
    """Step b reads what a writes, before it does: a waits for a sign, which b may not give before a has ended."""
    signs = tmp_path / "signs"
    signs.mkdir()
    Path("tools.py").write_text(
        "import os, time\n"
        f"SIGN = {str(signs / 'read')!r}\n"
        "def put():\n"
        "    for _ in range(75):\n"
        "        if os.path.exists(SIGN): break\n"
        "        time.sleep(0.02)\n"
        "    open('kv.txt', 'w').write('new')\n"
        "def get():\n"
        "    text = open('kv.txt').read() if os.path.exists('kv.txt') else 'nothing'\n"
        "    open(SIGN, 'w').close()\n"
        "    return text\n"
    )
    path = write("import tools", "%%step a\ntools.put()\nx = 1", "%%step b\ny = tools.get()")
    assert order(path) == []
    run = nbflow.run(path)
    (finding,) = (finding for finding in run.snapshot.findings if finding.code == "file-order")
    assert (finding.step, finding.name, finding.level) == ("b", "kv.txt", "note")
    assert run.data.y == "new"
    assert order(path) == [("a", "b")]
    run = nbflow.run(path)
    assert run.data.y == "new"
    assert codes(run) == []
    assert states(nbflow.run(path)) == {"a": "reused", "b": "reused"}


def test_what_has_had_an_effect_is_not_executed_again_for_having_come_too_early() -> None:
    Path("tools.py").write_text("def note(text):\n    open('log.txt', 'a').write(text)\n    return text\n")
    path = write("import tools", *(f"%%step {name}\n{name}x = tools.note('{name}')" for name in "abcd"))
    for _ in range(3):
        nbflow.run(path)
        assert sorted(Path("log.txt").read_text()) == ["a", "b", "c", "d"]


def test_a_failure_takes_along_only_who_reads_what_the_failed_step_writes() -> None:
    path = write(
        SAVE,
        "%%step a\nsave('a', 1)\nx = 1 / 0",
        "%%step b\nsave('b', 2)\ny = 2",
        "%%step lines\nopen('log.txt', 'w').write('1')\n1 / 0",
        "%%step more\nopen('log.txt', 'a').write('2')\nw = 1",
        "%%step reads\nz = open('log.txt').read()",
    )
    run = nbflow.run(path, workers=2)
    assert run.status == "failed"
    assert states(run) == {"a": "failed", "b": "done", "lines": "failed", "more": "cancelled", "reads": "cancelled"}


def test_what_is_settled_does_not_read_its_file_again_once_a_step_below_has_written_it() -> None:
    """The edited cell turns out to change a class: the flow is understood anew, and all is looked up again."""
    top = "import json\nclass Tracker:\n    n = 0\n    def note(self, v):\n        Tracker.n += 1\nt = Tracker()"
    cells = [
        top,
        "%%step begin\njson.dump({'step': 1}, open('state.json', 'w'))\nk = [1]",
        "%%step first\na = json.load(open('state.json'))['step']",
        "%%step more\nt.note(5)\nd = json.load(open('state.json'))\njson.dump({'step': 2}, open('state.json', 'w'))",
        "%%step second\nb = json.load(open('state.json'))['step']",
        "%%step end\nc = Tracker.n",
    ]
    for value in (5, 6, 7):
        run = nbflow.run(write(*(cell.replace("note(5)", f"note({value})") for cell in cells)))
        assert (run.data.a, run.data.b, run.data.c) == (1, 2, 1), value
