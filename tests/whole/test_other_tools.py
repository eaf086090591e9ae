"""Notebooks of other tools, unchanged: what their tags and formats say is what a plain run makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nbflow
from nbflow import reference
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells, read_notebook
from nbflow.flow.percent import read_percent
from nbflow.model import Flow, StepOptions
from nbflow.runs import launch
from tests.support.equality import compare
from tests.support.kernel import Kernel, NotebookFile
from tests.support.nursery import Nursery
from tests.support.plain import run_plainly


@dataclass(frozen=True)
class Tagged:
    """A notebook's cells as (source, tags), and the names that its run has to leave as a plain kernel leaves them."""

    cells: list[tuple[str, list[str]]]
    names: list[str]
    caught: frozenset[str] = field(default_factory=frozenset)


KALE = [
    ("import random, math\nrandom.seed(7)", ["imports"]),
    ("import statistics", []),
    ("N = 20\nrate = 0.5", ["pipeline-parameters"]),
    ("def draw(n):\n    return [random.randint(1, 9) for _ in range(n)]", ["functions"]),
    ("xs = draw(N)", ["block:sample", "limit:nvidia.com/gpu:2", "limit:memory:4Gi", "cache:enabled"]),
    ("ys = [x * rate for x in xs]", []),
    ("ys.sort()\nwith open('n.txt', 'w') as file:\n    file.write(str(len(ys)))", []),
    ("m = statistics.mean(ys)", ["step:mean", "prev:sample"]),
    ("top = max(xs)", ["step:top", "prev:sample"]),
    ("from pathlib import Path\nboth = (m, top, Path('n.txt').read_text())", ["step:end", "prev:mean", "prev:top"]),
    ("last = math.floor(both[0]) + 1\nprint(last)", []),
    ("print(m)\nprint(top)", ["pipeline-metrics"]),
]

NOTEBOOKS: dict[str, Tagged] = {
    "Kale": Tagged(KALE, ["N", "rate", "xs", "ys", "m", "top", "both", "last"]),
    "Kale's candies": Tagged([
        ("import random", ["imports"]),
        ("CANDIES = 20", ["pipeline-parameters"]),
        ("random.seed(3)", ["imports"]),
        ("def get_handful(left):\n    return random.randint(1, left) if left else 0", ["functions"]),
        ("print(f'{CANDIES} candies')", ["step:sack"]),
        ("kid1 = get_handful(CANDIES)", ["step:kid1", "prev:sack"]),
        ("kid2 = get_handful(CANDIES - kid1)", ["step:kid2", "prev:kid1"]),
        ("rest = CANDIES - kid1 - kid2", []),
        ("print(rest)", ["pipeline-metrics"]),
    ], ["kid1", "kid2", "rest"]),
    "a papermill output": Tagged([
        ("alpha = 0.1\nn = 3", ["parameters"]),
        ("# Parameters\nalpha = 1\nn = 5\nextra = {'a': [1]}\n", ["injected-parameters"]),
        ("%%step a\nx = alpha * n\nprint(x)", ["hide-input"]),
        ("%%step b\ny = x + extra['a'][0]", ["hide-output", "remove-cell"]),
    ], ["alpha", "n", "extra", "x", "y"]),
    "cells that are meant to fail": Tagged([
        ("a = 1", []),
        ("b = a + 1\nxs = [b]\n1 / 0\nb = 9", ["raises-exception"]),
        ("%%step c\nd = b + 1 + len(xs)\nprint(d)", []),
        ("%%step e\nf = d + 1\nraise ValueError('shown')", ["raises-exception"]),
        ("raise RuntimeError('never')", ["skip-execution"]),
        ("%%step never\nd = 100", ["skip-execution"]),
        ("int('x')", ["raises-exception"]),
        ("%%step z\nk = f + 1", []),
    ], ["b", "xs", "d", "f", "k"], frozenset({"cell:c1", "e"})),
    "a Ploomber task": Tagged([
        ("from pathlib import Path", []),
        ("upstream = ['raw']\nproduct = None", ["parameters"]),
        ("# Parameters\nupstream = {'raw': {'data': 'raw.txt'}}\nproduct = {'nb': 'n.ipynb', 'data': 'out.txt'}",
         ["injected-parameters"]),
        ("count = Path(upstream['raw']['data']).write_text('4 5')", []),
        ("%%step clean\nwords = Path(upstream['raw']['data']).read_text().split()", []),
        ("%%step write\nsize = Path(product['data']).write_text('-'.join(words))", []),
        ("%%step check\nseen = Path(product['data']).read_text()", []),
    ], ["upstream", "product", "count", "words", "size", "seen"]),
}  # fmt: skip


def written(notebook: Tagged, path: Path) -> NotebookFile:
    file = NotebookFile(path, {f"c{at}": source for at, (source, _) in enumerate(notebook.cells)})
    file.tags = {f"c{at}": tags for at, (_, tags) in enumerate(notebook.cells)}
    file.save()
    return file


def assert_equal(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    comparison = compare(dict(expected), dict(found))
    assert not comparison.differences, comparison.differences


@pytest.mark.notebooks
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_leaves_what_a_plain_kernel_leaves(
    name: str, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    notebook = NOTEBOOKS[name]
    path = written(notebook, tmp_path / "other.ipynb").path
    plain = run_plainly(path, tmp_path / "plain", manager=nursery.manager()).values
    expected = {each: plain[each] for each in notebook.names}
    own = reference.run(path)
    assert_equal(expected, {each: own[each] for each in notebook.names})
    for again in (False, True):
        run = nbflow.run(path)
        assert run.successful, run.error
        assert_equal(expected, {each: getattr(run.data, each) for each in notebook.names})
        states = {step.name: step.state for step in run.steps()}
        assert {each for each, state in states.items() if state == "caught"} == notebook.caught
        if again and not notebook.caught:
            assert {*states.values()} == {"reused"}, states


@pytest.mark.notebooks
@pytest.mark.parametrize("name", [name for name, each in NOTEBOOKS.items() if not each.caught])
def test_it_leaves_the_same_by_hand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    notebook = NOTEBOOKS[name]
    file = written(notebook, tmp_path / "other.ipynb")
    expected = reference.run(file.path)
    with Kernel(file) as kernel:
        kernel.ok(*file.cells)
        for each in notebook.names:
            assert kernel.value(each) == repr(expected[each])


@pytest.mark.notebooks
def test_a_cell_that_is_meant_to_fail_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    file = written(NOTEBOOKS["cells that are meant to fail"], tmp_path / "other.ipynb")
    with Kernel(file) as kernel:
        kernel.ok("c0")
        assert kernel.run("c1").ename == "ZeroDivisionError"
        assert "caught" in kernel.ok("c2", "c3").text
        kernel.ok("c7")
        assert kernel.value("(b, d, f, k)") == "(2, 4, 5, 6)"


# ---------------------------------------------------------------- what tags say


def flow_of(cells: list[tuple[str, list[str]]]) -> Flow:
    raw = [RawCell(f"c{at}", source, tuple(tags)) for at, (source, tags) in enumerate(cells)]
    return build_flow(parse_cells(raw, name="tags", folder="/nowhere"))


def test_kales_steps() -> None:
    flow = flow_of(KALE)
    assert not [finding for finding in flow.findings if finding.level == "error"]
    steps = {step.name: step for step in flow.steps if step.kind == "step"}
    assert [*steps] == ["sample", "sample.2", "sample.3", "mean", "top", "end", "end.2", "pipeline-metrics"]
    assert [(name, step.follows) for name, step in steps.items() if step.follows] == [
        ("sample.2", "sample"), ("sample.3", "sample.2"), ("end.2", "end"),
    ]  # fmt: skip
    assert steps["mean"].options.after == ("sample.3",)
    assert steps["sample"].options == StepOptions(gpu=2, memory=4 * 2**30, at_most=True)
    assert [parameter.name for parameter in flow.parameters] == ["N", "rate"]


@pytest.mark.parametrize(
    ("tags", "options"),
    [
        (["limit:cpu:500m"], StepOptions(cpu=0.5, at_most=True)),
        (
            ["limit:amd.com/gpu:1", "cache:disabled", "report:enabled"],
            StepOptions(gpu=1, no_cache=True, card=True, at_most=True),
        ),
        (["limit:ephemeral-storage:1Gi", "image:python", "label:a:b", "annotation:a:b"], StepOptions()),
    ],
)
def test_what_kales_other_tags_ask_for(tags: list[str], options: StepOptions) -> None:
    assert flow_of([("import math", ["imports"]), ("x = 1", ["step:a", *tags])]).step("a").options == options


def test_a_limit_that_says_no_amount_is_named() -> None:
    (finding,) = flow_of([("import math", ["imports"]), ("x = 1", ["step:a", "limit:cpu:many"])]).findings
    assert "'limit:cpu:many' says no amount" in finding.message


def test_a_cell_without_a_tag_is_plain_where_the_tags_are_nbflows() -> None:
    flow = flow_of([("x = [1]", ["step:a"]), ("y = [x]", []), ("z = y", ["step:b", "skip"])])
    assert [step.name for step in flow.steps] == ["a", "cell:c1", "b"]


def test_an_injected_value_counts_and_keeps_the_declared_type() -> None:
    cells = [
        ("%%params\nlr: float = 0.1  # rate\nwhere = ['a']", []),
        ("lr = 1\nwhere = {'a': 1}", ["injected-parameters"]),
    ]
    flow = flow_of([*cells, ("%%step a\nx = lr", [])])
    assert not flow.findings
    assert [(p.name, p.annotation, p.default, p.help) for p in flow.parameters] == [
        ("lr", "float", "1", "rate"), ("where", "dict", "{'a': 1}", ""),
    ]  # fmt: skip


def test_a_limit_is_no_need(tmp_path: Path) -> None:
    cells = [("import math", ["imports"]), ("x = 1", ["step:a", "limit:cpu:4000", "limit:memory:4000T"])]
    path = written(Tagged(cells, []), tmp_path / "big.ipynb").path
    assert [row.action for row in nbflow.plan(path).tasks] == ["run"]


# ---------------------------------------------------------------- other formats

VS_CODE = """\
#!/usr/bin/env python
import math
#%% load
xs = [1, 2, 3]
#%% [markdown]
# # Title
# text
# %%% a cell within
# %%step total
total = sum(xs)  #%% no marker
# In[3]:
print(total)
# <codecell>
#%%step last
last = math.sqrt(total)
"""


def test_cells_of_vs_code_and_nbconvert() -> None:
    cells = read_percent(VS_CODE)
    assert [(cell.kind, cell.source.split("\n")[-1]) for cell in cells] == [
        ("code", "import math"), ("code", "xs = [1, 2, 3]"), ("markdown", "text"),
        ("code", "total = sum(xs)  #%% no marker"), ("code", "print(total)"), ("code", "last = math.sqrt(total)"),
    ]  # fmt: skip
    ours = "# ---\n# jupyter:\n# ---\n# %%\nx = 1\n# In[2]:\n#%% a comment\n"
    assert [cell.source for cell in read_percent(ours)] == ["x = 1\n# In[2]:\n#%% a comment"]


@pytest.mark.running
def test_a_script_of_vs_code_runs(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(VS_CODE)
    run = nbflow.run(path)
    assert (run.data.last, run.data.total) == (reference.run(path)["last"], 6)


def old_format(sources: list[str]) -> dict[str, Any]:
    """A document as IPython 1 wrote it."""
    cells: list[dict[str, Any]] = [{"cell_type": "heading", "level": 1, "metadata": {}, "source": ["Old"]}]
    cells += [
        {"cell_type": "code", "collapsed": False, "input": source.splitlines(keepends=True), "language": "python",
         "metadata": {}, "prompt_number": 1,
         "outputs": [{"output_type": "pyout", "prompt_number": 1, "text": ["3"], "metadata": {}}]}
        for source in sources
    ]  # fmt: skip
    return {
        "metadata": {"name": ""},
        "nbformat": 3,
        "nbformat_minor": 0,
        "worksheets": [{"metadata": {}, "cells": cells}],
    }


@pytest.mark.running
@pytest.mark.parametrize("version", [3, 4])
def test_a_notebook_whose_cells_have_no_ids_runs_and_is_reused(version: int, tmp_path: Path) -> None:
    sources = ["import math\nxs = [1, 2]\nxs.append(3)", "%%step a\ny = math.fsum(xs)", "%%step b\nz = y + 1"]
    cells = [{"cell_type": "code", "source": source, "metadata": {}, "outputs": []} for source in sources]
    new = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 1}
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old_format(sources) if version == 3 else new))
    assert [cell.id for cell in read_notebook(path).cells] == ["1", "2", "3"]
    assert [step.name for step in launch.check(path).steps] == ["cell:1", "a", "b"]
    for state in ("done", "reused"):
        run = nbflow.run(path)
        assert ({step.state for step in run.steps()}, run.data.z) == ({state}, 7.0)
