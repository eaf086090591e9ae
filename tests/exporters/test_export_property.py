"""Generated flows: exported, run by Metaflow, every artifact equals nbflow's own.

NBFLOW_EXPORT_FLOWS says how many (default 4), NBFLOW_EXPORT_SEED where they begin. Every second one is wide: with
parameters, a file, classes, closures, a helper module, awaits and magics besides the structures of the language.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import nbflow
from nbflow.errors import PlanError
from nbflow.exporters.exporter import Environment, Options
from nbflow.exporters.metaflow import MetaflowExporter
from nbflow.exporters.script import ScriptExporter
from nbflow.runs import exporting
from tests.conformance.exporter import flow_of
from tests.support.exported import compare_export, write_files, write_notebook
from tests.support.flows import WIDE_FILES, generate, wide

COUNT = int(os.environ.get("NBFLOW_EXPORT_FLOWS", "4"))
FIRST = int(os.environ.get("NBFLOW_EXPORT_SEED", "1"))


@pytest.mark.export
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_generated_flows_leave_the_same(seed: int, tmp_path: Path) -> None:
    cells = wide(seed, 6) if seed % 2 else generate(seed, caught_options=False)  # Metaflow's @catch covers neither
    write_files(WIDE_FILES, tmp_path)
    refused = exporting.export(write_notebook(cells, tmp_path / "made.ipynb"), "metaflow", check=True).refused
    if not refused and not empty_lists(tmp_path / "made.ipynb"):
        found, text = compare_export(cells, tmp_path)
        assert found == [], "\n".join(["\n-- ".join(cells), *found, text])


def empty_lists(path: Path) -> bool:
    """Whether a fan-out of a notebook has no items, on which Metaflow's foreach fails, as `--check` tells."""
    run = nbflow.run(path, store=str(path.parent / "store"))
    heads = {step.name for step in nbflow.runs.launch.check(path).steps if step.options.foreach is not None}
    return any(not step.tasks for step in run.steps() if step.name in heads)


@pytest.mark.parametrize("kind", [generate, wide])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + 2 * COUNT))
def test_generated_flows_are_graphs_that_metaflow_takes(seed: int, kind: Callable[[int, int], list[str]]) -> None:
    """Metaflow's own rules, without starting it: each step is reached, names are free, splits are joined."""
    cells = {f"c{at}": (source, "") for at, source in enumerate(kind(seed, 14))}
    flow, environment, options = flow_of(cells), Environment(python="3.11"), Options(file="made.py")
    try:
        text = MetaflowExporter().export(flow, environment, options)["made.py"]
    except PlanError as error:
        refusals = [finding for finding in error.findings if finding.level == "error"]
        assert refusals
        assert all(finding.fix or finding.code != "refused" for finding in refusals)
        return
    assert broken_rules(text) == [], text
    script = ScriptExporter().export(flow, environment, options)["made.py"]
    compile(script, "made.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def broken_rules(text: str) -> list[str]:
    """A FlowSpec's text in; which of Metaflow's rules on graphs it breaks out."""
    (flow,) = (
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and "FlowSpec" in "".join(map(ast.unparse, node.bases))
    )
    steps = {node.name: node for node in flow.body if isinstance(node, ast.FunctionDef)}
    following: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for name, step in steps.items():
        last = step.body[-1]
        call = last.value if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) else None
        parts = [*ast.walk(call)] if call is not None and ast.unparse(call.func) == "self.next" else []
        following[name] = [part.attr for part in parts if isinstance(part, ast.Attribute) and part.attr != "next"]
        words = {keyword.arg for keyword in call.keywords} if parts and call is not None else set()
        join = len(step.args.args) == 2
        split = "foreach" in words or (len(following[name]) > 1 and "condition" not in words)
        kinds[name] = "switch" if "condition" in words else "split" if split else "join" if join else "plain"
        if join and kinds[name] != "join":
            return [f"{name} joins and splits"]
    found = [f"{name} goes to {other}" for name, others in following.items() for other in others if other not in steps]
    if found:
        return found
    reached, queue = set(), [("start", ())]
    while queue:
        name, open_splits = queue.pop()
        if (name, open_splits) in reached:
            continue
        reached.add((name, open_splits))
        if kinds[name] == "split":
            open_splits = (*open_splits, name)
        if kinds[name] == "join":
            if not open_splits:
                found.append(f"{name} joins nothing")
                continue
            open_splits = open_splits[:-1]
        if name == "end" and open_splits:
            found.append(f"the end is reached within {open_splits}")
        if kinds[name] == "switch":
            found += [f"{name} switches to the join {other}" for other in following[name] if kinds[other] == "join"]
        queue += [(other, open_splits) for other in following[name]]
    depths: dict[str, set[tuple[str, ...]]] = {}
    for name, open_splits in reached:
        depths.setdefault(name, set()).add(open_splits)
    found += [f"{name} is reached at several depths" for name, places in depths.items() if len(places) > 1]
    return found + [f"{name} is never reached" for name in steps if name not in depths]
