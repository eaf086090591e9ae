"""Drawings of runs, flows and artifacts: words for people, markup that is escaped, graphs that keep their promises."""

from __future__ import annotations

import itertools
import json
import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from nbflow.flow.options import parse_header
from nbflow.model import (
    Change,
    Edge,
    Finding,
    Manifest,
    Plan,
    PlannedPlace,
    PlanTask,
    Snapshot,
    StepOptions,
    TaskChanged,
    TaskFailure,
    TaskId,
    TaskOutput,
    TaskView,
)
from nbflow.render import dag, html, json_lines, layout, listing, preview, table

NASTY = '<script>alert("1")</script>&\'"'


FOLDED = Snapshot(
    run="r", flow="f", status="done", started_at=0.0, steps=("load", "cell:a", "read", "cell:b"),
    labels={"load": "load", "cell:a": "cell 2: last", "read": "read", "cell:b": "cell 4"}, folded=("cell:a", "cell:b"),
    tasks=tuple(TaskView(task=TaskId(step=name), state="done") for name in ("load", "cell:a", "read", "cell:b")),
)  # fmt: skip


def told(snapshot: Snapshot) -> list[str]:
    return [f"{row.label}: {row.state}" for row in table.rows(snapshot)]


def test_plain_cells_that_may_change_something_are_one_row() -> None:
    assert told(FOLDED) == ["load: done", "2 plain cells, none change data: done", "read: done"]
    edge = Edge(frm="cell:a", to="read", names=("xs",))
    assert told(msgspec.structs.replace(FOLDED, edges=(edge,)))[1] == "2 plain cells, 1 changes data: done"
    seen = Finding(code="mutation", message="", step="cell:b")
    assert told(msgspec.structs.replace(FOLDED, edges=(edge,), findings=(seen,)))[1].startswith("2 plain cells, 2 ch")
    assert [row.step for row in table.rows(FOLDED, fold=False)] == list(FOLDED.steps)


def test_nobody_knows_what_plain_cells_change_while_they_run() -> None:
    views = tuple(msgspec.structs.replace(view, state="running") for view in FOLDED.tasks)
    running = msgspec.structs.replace(FOLDED, status="running", tasks=views)
    assert told(running)[1] == "2 plain cells: running"


def test_a_plain_cell_that_fails_has_its_own_row() -> None:
    views = (*FOLDED.tasks[:3], msgspec.structs.replace(FOLDED.tasks[3], state="failed"))
    failed = msgspec.structs.replace(FOLDED, status="failed", tasks=views)
    assert told(failed) == ["load: done", "cell 2: last: done", "read: done", "cell 4: failed"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0, "0 ms"), (0.0124, "12 ms"), (0.9996, "1.0 s"), (3.21, "3.2 s"), (59.96, "1 min 00 s"),
     (245, "4 min 05 s"), (7620, "2 h 07 min"), (-3, "0 ms")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert preview.duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (4210, "4.2 kB"), (99_960, "100 kB"), (1_300_000_000, "1.3 GB"),
     (5 * 10**15, "5000.0 TB")],
)  # fmt: skip
def test_sizes(nbytes: int, text: str) -> None:
    assert preview.size(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "just now"), (300, "5 min ago"), (10800, "3 h ago"), (86400 * 12, "12 days ago")]
)
def test_ages(seconds: float, text: str) -> None:
    assert preview.age(seconds) == text


def test_clip_counts_columns_not_characters() -> None:
    assert preview.clip("abc  \n def", 20) == "abc def"
    assert preview.clip("abcdef", 4) == "abc…"
    assert preview.columns("日本") == 4
    assert preview.columns(preview.clip("日本語日本語", 7)) <= 7
    assert preview.grid([("日", "x"), ("ab", "y")]) == ["日  x", "ab  y"]


def view(step: str, state: Any, index: tuple[int, ...] = (), turn: int | None = None, **more: Any) -> TaskView:
    return TaskView(task=TaskId(step=step, index=index, turn=turn), state=state, **more)


def snapshot(*tasks: TaskView, **more: Any) -> Snapshot:
    facts: dict[str, Any] = {
        "run": "r1",
        "flow": "f",
        "status": "running",
        "started_at": 100.0,
        "steps": (),
        "labels": {},
    }
    return Snapshot(**(facts | more), tasks=tasks)


FAILED = TaskFailure(type="ValueError", message=f"bad {NASTY}\nsecond line", cell="4", line=12)


def test_rows_say_what_matters() -> None:
    seen = snapshot(
        view("load", "reused", elapsed=None, reasons=(("reused", "from r0, 3 h old"),)),
        view("clean", "done", elapsed=1.23, reasons=(("code", "line 2 changed"),)),
        view("first", "done", elapsed=1.23, reasons=(("new", "it has not run before"),)),
        view("train", "done", (0,), started_at=101.0, elapsed=3.0),
        view("train", "failed", (1,), started_at=102.0, elapsed=4.0, failure=FAILED, attempt=2),
        view("train", "running", (2,), started_at=102.0, elapsed=8.0),
        view("loop", "running", turn=0), view("loop", "running", turn=1),
        steps=("load", "clean", "first", "train", "loop", "plot"), labels={"plot": "cell 9: fig"},
    )  # fmt: skip
    found = {row.step: row for row in table.rows(seen)}
    assert found["load"].note == "from r0, 3 h old"
    assert found["clean"].note == "line 2 changed"
    assert found["first"].note == ""
    assert (found["train"].state, found["train"].count, found["train"].elapsed) == ("failed", "2/3, 1 failed", 9.0)
    assert found["train"].note.startswith("attempt 2: ValueError: bad <script>")
    assert "second line" not in found["train"].note
    assert found["loop"].count == "2 turns"
    assert (found["plot"].label, found["plot"].state) == ("cell 9: fig", "pending")


def test_an_error_leads_to_its_cell() -> None:
    failure = TaskFailure(type="OSError", message="x", cell="3f0b-9c", line=2)
    seen = snapshot(view("train", "failed", failure=failure), steps=("train",), status="failed")
    seen = msgspec.structs.replace(seen, cells={"3f0b-9c": 7})
    known = table.RunHints(notebook="my book.ipynb")
    assert "OSError: x (cell 7, line 2)" in table.text(seen, known=known)
    link = balanced(table.as_html(seen, known=known)).find(".//a")
    assert link is not None
    assert (link.get("href"), link.text) == ("my%20book.ipynb#cell-id=3f0b-9c", "cell 7, line 2")
    assert "<a" not in table.as_html(seen, known=table.RunHints())


def test_long_tables_can_be_filtered() -> None:
    few, many = (snapshot(*(view(f"s{n}", "done") for n in range(count)), status="done") for count in (3, html.MANY))
    assert "<input" not in table.as_html(few)
    assert table.as_html(many).count("<input") == 1
    assert "<input" not in table.as_html(snapshot(*many.tasks))  # one that is drawn again would lose its words


def test_text_table() -> None:
    seen = snapshot(
        view("load", "done", elapsed=0.012),
        view("train", "failed", elapsed=75.0, failure=TaskFailure(type="OSError", message="x")),
        status="failed", finished_at=176.0, error="train: OSError: x", steps=("load", "train"),
        findings=(Finding(code="mutation", message="clean changed df", step="clean", cell="3", line=4, fix="copy it"),),
    )  # fmt: skip
    assert table.text(seen).splitlines() == [
        "f · r1 · failed after 1 min 16 s",
        "  ✓ load   done    12 ms",
        "  ✗ train  failed  1 min 15 s  OSError: x",
        "warning: clean changed df",
        "  where: step clean, cell 3, line 4",
        "  fix: copy it",
    ]
    assert max(map(len, table.text(seen, width=20).splitlines())) <= 20
    assert table.summary(table.counts(seen)) == "1 failed, 1 done"


def test_lost_runs_say_what_to_do() -> None:
    assert "resume it" in table.text(snapshot(status="lost"))


def balanced(markup: str) -> ET.Element:
    """Parsed as XML: every tag closed, every attribute quoted, nothing of the user's became markup."""
    return ET.fromstring(markup)


def test_html_is_well_formed_and_escaped() -> None:
    seen = snapshot(
        view(NASTY, "failed", failure=FAILED, elapsed=1.0), flow=NASTY, status="failed", error=NASTY, finished_at=101.0,
        steps=(NASTY,), labels={NASTY: NASTY}, findings=(Finding(code="x", message=NASTY, fix=NASTY),),
    )  # fmt: skip
    one = Manifest(name=NASTY, type=NASTY, group=0, preview=NASTY, nbytes=3, shape=(2, 3))
    row = listing.ListedRun(
        flow=NASTY, run=NASTY, status="failed", started_at=1.0, elapsed=2.0, tasks="1", tags=(NASTY,), note=NASTY
    )
    for markup in (
        table.as_html(seen, 102.0), dag.as_html(dag.of_snapshot(seen)), listing.artifacts_html(NASTY, [one]),
        listing.runs_html(NASTY, [row], 10.0),
    ):  # fmt: skip
        tree = balanced(markup)
        assert tree.attrib == {"class": "nbflow"}
        assert not list(tree.iter("script"))
        assert NASTY in "".join(tree.itertext())


def test_html_has_one_style_and_no_fixed_text_colour() -> None:
    markup = table.as_html(snapshot(view("a", "done"), steps=("a",)))
    assert markup.count("<style>") == 1
    assert not re.search(r"(?<!-)color:\s*(#|black|white|rgb)", html.STYLE)
    assert html.table(("a", "b"), [("1", ""), ("2", "")]).count("<th") == 2  # <thead and one <th: empty columns go


def test_listing_of_artifacts() -> None:
    text = listing.artifacts_text(
        [
            Manifest(name="df", type="pandas.DataFrame", group=0, nbytes=4800, shape=(150, 4), preview="a b\n1 2"),
            Manifest(name="gen", type="generator", group=-1, error="cannot pickle 'generator' object"),
        ]
    )
    assert text.splitlines() == [
        "  df   pandas.DataFrame  150 x 4  4.8 kB  a b 1 2",
        "  gen  generator                          not stored: cannot pickle 'generator' object",
    ]
    assert listing.runs_text([], 0) == "no runs"


# ---------------------------------------------------------------- graphs


def graph(edges: list[tuple[str, str]], names: list[str] | None = None, **nodes: dag.DrawnStep) -> dag.Graph:
    names = names or list(dict.fromkeys(itertools.chain(*edges)))
    drawn = tuple(nodes.get(name) or dag.DrawnStep(name=name, label=name) for name in names)
    return dag.Graph(title="g", nodes=drawn, edges=tuple(Edge(frm=a, to=b, names=("x",)) for a, b in edges))


def test_text_graph() -> None:
    drawn = graph([("load", "clean"), ("clean", "a"), ("clean", "b"), ("a", "pick"), ("b", "pick"), ("load", "pick")])
    assert dag.text(drawn).splitlines() == [
        "●   load",
        "●   clean  ← x from load",
        "├─╮",
        "│ ● a      ← x from clean",
        "● │ b      ← x from clean",
        "├─╯",
        "●   pick   ← x from a; x from b; x from load",
    ]


def random_graph(seed: int, size: int) -> dag.Graph:
    pick = random.Random(seed)
    names = [f"s{number}" for number in range(size)]
    edges = {
        (names[pick.randrange(max(0, number - 9), number)], names[number])
        for number in range(1, size)
        for _ in range(pick.choice([0, 1, 1, 2, 3]))
    }
    return graph(sorted(edges), names)


@pytest.mark.parametrize("seed", range(30))
def test_text_graph_connects_what_reads(seed: int) -> None:
    """Follow the lines of the margin downwards: from each node exactly those that it feeds directly are reached."""
    drawn = random_graph(seed, 25)
    names = {node.name for node in drawn.nodes}
    text = dag.text(drawn).splitlines()
    assert [word for line in text for word in line.split("←")[0].split() if word in names] == [
        node.name for node in drawn.nodes
    ]
    sides = {"│": "ud", "─": "lr", "╭": "dr", "╮": "dl", "╰": "ur", "╯": "ul", "├": "udr",
             "┤": "udl", "┬": "dlr", "┴": "ulr", "┼": "udlr"}  # fmt: skip
    cells = {(y, x): char for y, line in enumerate(text) for x, char in enumerate(line.split("s")[0]) if char != " "}
    for (y, x), char in cells.items():
        here = sides.get(char, "")
        # a line that leaves a cell arrives in the next one (at a node, or at a line that goes back up)
        if "d" in here:
            assert cells.get((y + 1, x)) == "●" or "u" in sides.get(cells.get((y + 1, x), ""), ""), (y, x, text)
        if "u" in here:
            assert cells.get((y - 1, x)) == "●" or "d" in sides.get(cells.get((y - 1, x), ""), ""), (y, x, text)


def laid(names: list[str], edges: list[tuple[str, str]], wide: float = 90.0) -> layout.Layout:
    return layout.lay_out(names, edges, dict.fromkeys(names, wide), 38.0, (18.0, 34.0))


def check_places(names: list[str], edges: list[tuple[str, str]]) -> layout.Layout:
    """Lay a graph out: nodes apart and within the frame, sources above, edges from border to border."""
    found = laid(names, edges)
    assert list(found.nodes) == names
    rows: dict[float, list[float]] = {}
    for x, y in found.nodes.values():
        rows.setdefault(y, []).append(x)
        assert x - 45 + 1e-6 >= 0
        assert x + 45 <= found.width + 1e-6
        assert 19 <= y <= found.height - 19
    for row in rows.values():
        assert len(row) <= layout.WIDEST
        assert all(right - left >= 90 + 18 - 1e-6 for left, right in itertools.pairwise(sorted(row)))
    assert all(below - above >= 38 + 34 - 1e-6 for above, below in itertools.pairwise(sorted(rows)))
    assert found.edges.keys() == set(edges)
    for (a, b), points in found.edges.items():
        (ax, ay), (bx, by) = found.nodes[a], found.nodes[b]
        assert ay < by
        assert (points[0], points[-1]) == ((ax, ay + 19), (bx, by - 19))
        assert all(above[1] < below[1] for above, below in itertools.pairwise(points))
        assert all(0 <= x <= found.width for x, _ in points)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_layout_keeps_nodes_apart_and_edges_downward(seed: int) -> None:
    drawn = random_graph(seed, 60)
    check_places([node.name for node in drawn.nodes], [(edge.frm, edge.to) for edge in drawn.edges])


SHAPES: dict[str, Callable[[int], list[tuple[int, int]]]] = {
    "chain": lambda count: [(at, at + 1) for at in range(count - 1)],
    "one that all read": lambda count: [(at - 1, at) for at in range(1, count)] + [(0, at) for at in range(2, count)],
    "fan-out and join": lambda count: [end for at in range(1, count - 1) for end in ((0, at), (at, count - 1))],
    "layers of forty": lambda count: [
        end for at in range(40, count) for end in ((at - 40, at), ((at * 7919) % 40 + at // 40 * 40 - 40, at))
    ],
    "chain, each with one far below": lambda count: (
        [(at, at + 1) for at in range(count - 1)] + [(at, count // 2 + at) for at in range(count // 2)]
    ),
    "nothing": lambda count: [],
}


@pytest.mark.parametrize("count", [0, 1, 8, 150, 1200])  # more than Python's frames
@pytest.mark.parametrize("shape", SHAPES)
def test_layout_of_any_shape_and_size(shape: str, count: int) -> None:
    names = [f"s{at}" for at in range(count)]
    edges = list(dict.fromkeys((f"s{a}", f"s{b}") for a, b in SHAPES[shape](count) if a != b))
    found = check_places(names, edges)
    assert found == laid(names, edges)
    # a page is sent every point: what many edges have in common must not cost for each of them
    assert sum(map(len, found.edges.values())) <= 10 * (len(edges) + 1)
    assert found.width <= 4 * layout.WIDEST * (90 + 18)


def test_layout_draws_chains_and_trunks_straight() -> None:
    names = [f"s{number}" for number in range(60)]
    chain = list(itertools.pairwise(names))
    assert len({x for x, _ in laid(names, chain).nodes.values()}) == 1
    found = laid(names, [*chain, *(("s0", name) for name in names[2:])])
    trunks = {points[1][0] for (a, b), points in found.edges.items() if len(points) > 2}
    assert len(trunks) == 1
    assert all(len(points) in (2, 4) for points in found.edges.values())


def test_layout_leaves_out_edges_to_nowhere_to_oneself_and_twice() -> None:
    found = laid(["a", "b"], [("a", "b"), ("a", "b"), ("a", "a"), ("a", "gone"), ("gone", "b")])
    assert list(found.edges) == [("a", "b")]


def test_layout_tells_an_edge_that_leads_up_from_its_source() -> None:
    found = laid(["a", "b"], [("b", "a")])
    assert found.nodes["a"][1] < found.nodes["b"][1]
    assert found.edges["b", "a"][0][1] == found.nodes["b"][1] - 19
    assert found.edges["b", "a"][-1][1] == found.nodes["a"][1] + 19


def test_svg_names_everything_for_screen_readers() -> None:
    drawn = graph(
        [("load", "train")],
        train=dag.DrawnStep(name="train", label="train", detail="foreach d in [2, 4]", state="failed"),
    )
    tree = balanced(dag.svg(drawn))
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in tree.iter(f"{space}title")]
    assert titles[0] == "g: 2 steps"
    assert "train; failed; foreach d in [2, 4]; reads x from load" in titles
    assert "load → train: x" in titles
    assert tree.attrib["role"] == "group"
    assert dag.text(graph([])) == ""
    balanced(dag.svg(graph([])))


def test_svg_survives_edges_that_go_up_and_long_names() -> None:
    drawn = graph([("a", "b"), ("b", "a")], ["a", "b"], a=dag.DrawnStep(name="a", label="a" * 90))
    balanced(dag.svg(drawn))
    assert dag.text(drawn)


def test_details_of_options() -> None:
    _, options = parse_header("train --foreach d in [2, 4] --gpu 1 --on ray://box:1")
    assert dag.detail(options) == "foreach d in [2, 4], on ray://box:1, gpu 1"
    assert dag.detail(StepOptions()) == ""


# ---------------------------------------------------------------- --json


def test_json_lines() -> None:
    event = TaskChanged(
        task=TaskId(step="a", index=(1,)), state="failed", at=5.0, attempt=2, reasons=(("code", "line 2 changed"),),
        failure=FAILED, elapsed=0.5,
    )  # fmt: skip
    told = json.loads(json_lines.line("task", event.at, "r1", json_lines.task(event)))
    assert told["v"] == 1
    assert (told["t"], told["run"], told["kind"]) == (5.0, "r1", "task")
    assert (told["step"], told["index"], told["attempt"], told["state"]) == ("a", [1], 2, "failed")
    assert told["reasons"] == [{"code": "code", "what": "line 2 changed"}]
    assert (told["error"]["type"], told["elapsed"]) == ("ValueError", 0.5)
    assert "reused_from" not in told
    piece = TaskOutput(task=TaskId(step="a"), output={"output_type": "stream", "name": "stdout", "text": "\n"}, at=1.0)
    text = json_lines.line("output", 1.0, "r1", json_lines.output(piece))
    assert "\n" not in text
    assert json.loads(text)["text"] == "\n"
    plan = Plan(flow="f", tasks=(PlanTask(step="a", index=None, action="run"),))
    assert json_lines.plan(plan) == {"tasks": [{"step": "a", "index": None, "action": "run", "reasons": []}]}
    seen = snapshot(view("a", "done"), view("b", "caught"), status="done", finished_at=101.5)
    assert json_lines.summary(seen, "/s") == {
        "flow": "f", "run": "r1", "status": "done", "elapsed": 1.5, "store": "/s",
        "counts": {"done": 1, "reused": 0, "failed": 0, "caught": 1, "skipped": 0, "cancelled": 0},
    }  # fmt: skip
    assert json.loads(json_lines.line("output", 1.0, None, {"data": object()}))["data"].startswith("<object")


def test_plan_text() -> None:
    plan = Plan(flow="f", tasks=(
        PlanTask(step="a", index=(), action="reuse", reasons=(("reused", "from r0, 3 h old"),)),
        PlanTask(step="b", index=None, action="run", reasons=(("input", "a runs"),)),
        PlanTask(step="c", index=(1, 0), action="run"),
    ))  # fmt: skip
    lines = ["plan of f", "  ↺ a      reuse  from r0, 3 h old", "  ○ b/*    run    a runs", "  ○ c/1.0  run"]
    assert table.plan_text(plan).splitlines() == lines
    places = (
        PlannedPlace(
            place="ray://a:1", run=12, reuse=1, upload=38_000_000, seconds=240.0, too_small=("b is too small",)
        ),
        PlannedPlace(place="ssh://b", run=1, reuse=0, sends_more=True, seconds=2.0, takes_longer=True),
        PlannedPlace(place="ssh://c", run=2, reuse=0, upload=1200, sends_more=True),
        PlannedPlace(place="local", run=0, reuse=3),
    )
    assert table.plan_text(msgspec.structs.replace(plan, places=places)).splitlines() == [
        *lines,
        "  ray://a:1: 12 tasks run, 1 is reused; 38.0 MB to send; about 4 min 00 s",
        "    b is too small",
        "  ssh://b: 1 task runs, 0 are reused; what is sent is not known yet; at least about 2.0 s",
        "  ssh://c: 2 tasks run, 0 are reused; at least 1.2 kB to send; how long it takes is not known yet",
        "  local: 0 tasks run, 3 are reused",
    ]
    assert Change(code="code", what="w").what == "w"
