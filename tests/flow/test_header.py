"""A cell's header: what counts as one, and what is refused, is the same in the kernel, in runs and in `check`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nbflow
from nbflow.analysis.lines import header_of, misplaced_header
from nbflow.flow.notebook import document_of, parse_percent
from nbflow.flow.percent import comment_magics, uncomment_magics
from nbflow.kernel.magics import hoist, transform
from nbflow.runs import launch
from tests.support.by_hand import Start

RECOGNISED = {
    "a comment behind": "%%step a  # why it is here\ny = k / 2",
    "first line": "%%step a\ny = k / 2",
    "below empty lines": "\n  \n%%step a\ny = k / 2",
    "below a comment": "# halves\n%%step a\ny = k / 2",
    "below comments and empty lines": "# halves\n\n#  of k\n\n%%step a\ny = k / 2",
    "as a comment": "# %%step a\ny = k / 2",
    "as a comment below one": "# halves\n# %%step a\ny = k / 2",
    "what it was before above it": "# %%step old --retry 2\n%%step a\ny = k / 2",
    "what it was before below it": "%%step a\n# %%step old --retry 2\ny = k / 2",
    "a cell magic below": "# halves\n%%step a\n\n%%time\ny = k / 2",
    "text that looks like one": "%%step a\ntext = '''\n%%step b\n# %%step c\n'''\ny = k / 2",
    "a comment that is a sentence": "%%step a\nw = 2\n# %%step is what begins a step\ny = k / w",
    "a comment in a block": "%%step a\nif k:\n    # %%step b\n    y = k / 2",
}

REFUSED = {
    "below an import": ("import math\n%%step a\ny = k", 2, "`%%step a` stands below code"),
    "below set-up's own words": ("x = 1\n\n%%setup\nimport math", 3, "`%%setup` stands below code"),
    "below a magic": ("%config InlineBackend.figure_format = 'png'\n%%step a\ny = k", 2, "stands below code"),
    "below a command": ("!echo 'it is'\n%%params\nlr: float = 0.1", 2, "`%%params` stands below code"),
    "below %%time": ("%%time\n%%step a\ny = k", 2, "stands below code"),
    "indented": ("  %%step a\n  y = k", 1, "is indented"),
    "indented below a comment": ("# halves\n\t%%step a\ny = k", 2, "is indented"),
    "in a block": ("if k:\n    %%step a\n    y = k", 2, "stands below code"),
    "two headers": ("%%step a\n%%step b\ny = k", 2, "`%%step b` stands below `%%step a`: a cell has one header"),
    "two steps in one cell": ("%%step a\ny = k\n\n%%step b\nz = y", 4, "a cell has one header"),
    "two steps as comments": ("# %%step a\ny = k\n# %%step b --retry 2\nz = y", 3, "a cell has one header"),
    "a comment below code": ("y = k\n# %%step b\nz = y", 2, "`%%step b` stands below code"),
    "one per cent sign": ("%step a\ny = k", 1, "`%step a` is no header"),
}

LEFT_ALONE = {
    "a file's text": "%%writefile other.py\n# %%step a\nx = 1\n%%step b",
    "another language": "%%bash\necho '%%step a'\n",
    "text": "help_text = '''\n%%step a\n'''",
    "a sentence": "x = 1\n# %%setup of the plot\ny = 2",
    "help": "%%step?",
    "a remainder": "!echo\nparams = 4\nrest = (9\n        %params)",
}


# ---------------------------------------------------------------- the lines


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_header_is_the_first_line_that_is_neither_empty_nor_a_comment(name: str) -> None:
    source = RECOGNISED[name]
    header = header_of(source.split("\n"))
    assert header is not None
    assert (header.kind, header.rest) == ("step", "a")
    assert misplaced_header(source) is None


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_place_is_refused(name: str) -> None:
    source, line, why = REFUSED[name]
    found = misplaced_header(source)
    assert found is not None
    assert (found.number, why in found.why) == (line, True), found
    assert found.fix


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_text_that_means_no_step_is_left_alone(name: str) -> None:
    source = LEFT_ALONE[name]
    assert misplaced_header(source) is None
    assert header_of(source.split("\n")) is None


@pytest.mark.parametrize("name", RECOGNISED)
def test_lines_keep_their_numbers_in_the_kernel(name: str) -> None:
    lines = RECOGNISED[name].splitlines(keepends=True)
    made = "".join(transform(hoist(lines))).splitlines()
    assert made[0] == "get_ipython().nbflow_enter('step', 'a')"
    if "%%time" not in RECOGNISED[name]:
        assert made[-1] == lines[-1]
        assert len(made) == len(lines)


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_percent_file_says_the_same(name: str) -> None:
    source = RECOGNISED[name]
    (cell,) = parse_percent(f"# %%\n{comment_magics(source)}\n")
    header = header_of(cell.source.split("\n"))
    assert header is not None
    assert (header.kind, header.rest) == ("step", "a")
    assert comment_magics(cell.source) == comment_magics(source).strip("\n")


def test_a_header_that_was_stays_a_comment_in_a_percent_file() -> None:
    source = "# %%step old\n%%step a\n%%bash\necho '# %%step b'"
    assert comment_magics(source) == "# # %%step old\n# %%step a\n# %%bash\n# echo '# %%step b'"
    assert uncomment_magics(comment_magics(source)) == source


def test_cells_of_a_percent_file_that_lack_their_mark_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo.py"
    path.write_text("# %%step a\nx = 1\n\n# %%step b\ny = x\n")
    (finding,) = launch.check(path).findings
    assert (finding.code, finding.level, finding.line) == ("misplaced-header", "error", 4)
    assert "a line `# %%` begins one" in (finding.fix or "")


# ---------------------------------------------------------------- runs and check


def write(folder: Path, *cells: str) -> Path:
    path = folder / "flow.ipynb"
    path.write_text(document_of([(f"c{at}", source) for at, source in enumerate(cells, start=1)], "flow"))
    return path


@pytest.mark.running
def test_a_run_knows_every_header(tmp_path: Path) -> None:
    cells = [
        source.replace("step a", f"step s{at}").replace("y =", f"y{at} =")
        for at, source in enumerate(RECOGNISED.values())
    ]
    path = write(tmp_path, "k = 8", *cells)
    assert [each for each in launch.check(path).findings if each.level == "error"] == []
    run = nbflow.run(path)
    assert run.status == "done", run.error
    assert [getattr(run.data, f"y{at}") for at in range(len(cells))] == [4.0] * len(cells)
    assert sum(step.name.startswith("s") for step in run.steps()) == len(cells)


@pytest.mark.parametrize("name", REFUSED)
def test_check_names_cell_line_and_fix(tmp_path: Path, name: str) -> None:
    source, line, why = REFUSED[name]
    path = write(tmp_path, "k = 8", source, "%%step other\nz = k")
    errors = [each for each in launch.check(path).findings if each.level == "error"]
    assert [(each.code, each.cell, each.line) for each in errors] == [("misplaced-header", "c2", line)]
    assert why in errors[0].message
    assert errors[0].fix
    with pytest.raises(nbflow.PlanError, match=re.escape(why)):
        nbflow.plan(path)


@pytest.mark.running
def test_nothing_runs_where_a_header_is_misplaced(tmp_path: Path) -> None:
    path = write(tmp_path, "%%step other\nopen('ran', 'w').close()", "import math\n%%step a\ny = 1")
    command = [sys.executable, "-m", "nbflow", "run", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert ended.returncode == 2
    assert "`%%step a` stands below code" in ended.stderr
    assert "line 2" in ended.stderr
    assert "fix: move it to the top" in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_findings_at_a_header_name_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path, "%%step a\nx = 1", "# off\n%%step c --if False\nw = 1", "# again\n\n%%step a\ny = 1",
        "\n%%step b --gpus 1\nz = 1",
    )  # fmt: skip
    found = [(each.code, each.cell, each.line) for each in launch.check(path).findings]
    assert sorted(found) == [("duplicate-step", "c3", 3), ("option", "c4", 2), ("unreachable", "c2", 2)]


# ---------------------------------------------------------------- by hand


@pytest.mark.running
def test_the_kernel_knows_every_header(start: Start) -> None:
    kernel = start({"k": "k = 8"})
    kernel.ok("k")
    for at, (name, source) in enumerate(RECOGNISED.items()):
        executed = kernel.execute(source.replace("step a", f"step s{at}"), f"cell-{at}")
        assert executed.status == "ok", (name, executed.text)
        assert kernel.value("y") == "4.0", name
    kernel.execute("%flow status")
    assert len([name for name in kernel.execute("%flow dag").text.split() if name.startswith("s")]) >= len(RECOGNISED)


@pytest.mark.running
def test_the_kernel_refuses_before_anything_of_the_cell_runs(start: Start) -> None:
    kernel = start({"k": "k = 8"})
    kernel.ok("k")
    for at, (name, (source, line, why)) in enumerate(REFUSED.items()):
        executed = kernel.execute(source.replace("y = k", "ran = y = k"), f"cell-{at}")
        assert executed.status == "error", name
        assert why in executed.traceback, name
        assert f"line {line}" in executed.traceback, name
        assert "fix: " in executed.traceback
        assert "Traceback" not in executed.traceback
    assert kernel.value("'ran' in globals()") == "False"
    for name, source in LEFT_ALONE.items():
        assert kernel.execute(source, f"alone-{abs(hash(name))}").status == "ok", name


@pytest.mark.running
def test_tracebacks_below_a_late_header_show_the_users_lines(start: Start) -> None:
    source = "# what for\n\n%%step fails\na = 1\nb = a / 0\n"
    kernel = start({"fails": source})
    shown = kernel.run("fails").traceback
    assert "----> 5 b = a / 0" in shown
    assert "# what for" in shown
    assert "#%%step fails" in shown
    run = nbflow.run(kernel.notebook.path)
    error = run["fails"].task.error
    assert error is not None
    assert error.line == 5


@pytest.mark.running
def test_a_tag_counts_beside_control_lines_and_its_mistakes_are_told(start: Start) -> None:
    kernel = start({"both": "%flow\nx = 1", "bad": "y = 1", "wrong": "z = 1\n%%step b\nw = 1"})
    kernel.notebook.tags.update(both=["step:both"], bad=["step:bad --gpus 1"], wrong=["step:wrong"])
    kernel.notebook.save()
    tags = {"both": ["step:both"], "bad": ["step:bad --gpus 1"], "wrong": ["step:wrong"]}
    said = {name: kernel.execute(kernel.notebook.cells[name], name, metadata={"tags": tags[name]}) for name in tags}
    assert said["both"].status == "ok", said["both"].text
    assert "both" in kernel.execute("%flow dag").text
    assert "unknown option --gpus" in said["bad"].traceback
    assert "stands below code" in said["wrong"].traceback
    codes = [(each.cell, each.code) for each in launch.check(kernel.notebook.path).findings if each.level == "error"]
    assert codes == [("bad", "option"), ("wrong", "misplaced-header")]
    assert kernel.value("[name for name in ('y', 'z', 'w') if name in globals()]") == "[]"


# ---------------------------------------------------------------- conditions in quotes


CONDITIONS = {
    '--if "x > 5"': "write `--if x > 5`, without quotes",
    "--until 'x > 5' --max 3": "write `--until x > 5`, without quotes",
    "--if ('x > ' '5')": "write `--if x > 5`, without quotes",
    "--until f'{x} > 5'": "without quotes",
    "--if ''": "without quotes",
}


@pytest.mark.parametrize("options", CONDITIONS)
def test_a_condition_in_quotes_is_refused_with_what_to_write(tmp_path: Path, options: str) -> None:
    path = write(tmp_path, "%%step a\nx = 1", f"%%step b {options}\nx = x + 1")
    (finding,) = [each for each in launch.check(path).findings if each.level == "error"]
    assert (finding.code, finding.cell, finding.line) == ("option", "c2", 1)
    assert "is a string" in finding.message
    assert CONDITIONS[options] in (finding.fix or "")
    with pytest.raises(nbflow.PlanError, match="is a string"):
        nbflow.run(path)


@pytest.mark.running
def test_a_condition_in_quotes_is_refused_by_hand(start: Start) -> None:
    kernel = start({"a": "%%step a\nx = 1", "b": '%%step b --if "x > 5"\nran = True'})
    kernel.ok("a")
    executed = kernel.run("b")
    assert executed.status == "error"
    assert "fix: write `--if x > 5`, without quotes" in executed.traceback
    assert kernel.value("'ran' in globals()") == "False"


def test_strings_within_conditions_are_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "%%step a\nmode = 'fast'", "%%step b --if mode == 'fast'\ny = 1")
    assert [each for each in launch.check(path).findings if each.level == "error"] == []


def test_a_mark_in_quotes_begins_no_comment() -> None:
    header = header_of(["%%step a --if name == '# 1' # the first", "x = 1"])
    assert header is not None
    assert header.rest == "a --if name == '# 1'"
