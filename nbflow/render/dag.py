"""A flow's steps and edges, with states where a run is known → a graph for terminals, and inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbflow.model import WORST_FIRST, Edge, Flow, Frozen, Snapshot, StepOptions, TaskState
from nbflow.render import html, preview, rows
from nbflow.render.layout import Layout, lay_out

NODE_HEIGHT = 38.0
GAP = (18.0, 34.0)
LONGEST = 26
"""Columns of a node's text; the whole of it is in the node's title."""


class DrawnStep(Frozen, frozen=True):
    """One step as it is drawn; `detail` says what is special about it, such as its foreach."""

    name: str
    label: str
    kind: str = "step"
    detail: str = ""
    state: TaskState | None = None


class Graph(Frozen, frozen=True):
    """What is drawn: nodes in document order, edges between them."""

    title: str
    nodes: tuple[DrawnStep, ...]
    edges: tuple[Edge, ...]


def of_flow(flow: Flow, states: Mapping[str, TaskState] | None = None) -> Graph:
    """Return the graph of a flow; `states` are its steps' where known."""
    state_of = states or {}
    flow = rows.of_flow(flow)
    nodes = tuple(
        DrawnStep(
            name=step.name,
            label=step.label or step.name,
            kind=step.kind,
            detail=detail(step.options),
            state=state_of.get(step.name),
        )
        for step in flow.steps
    )
    return Graph(title=flow.name, nodes=nodes, edges=_between(nodes, flow.edges))


def of_snapshot(snapshot: Snapshot) -> Graph:
    """Return the graph of a run's steps with their states."""
    snapshot = rows.of_snapshot(snapshot)
    states: dict[str, set[TaskState]] = {}
    for view in snapshot.tasks:
        states.setdefault(view.task.step, set()).add(view.state)
    names = list(dict.fromkeys([*snapshot.steps, *states]))
    nodes = tuple(
        DrawnStep(
            name=name,
            label=snapshot.labels.get(name) or name,
            kind="cell" if name.startswith("cell:") else "step",
            state=next((state for state in WORST_FIRST if state in states.get(name, ())), "pending"),
        )
        for name in names
    )
    return Graph(title=f"{snapshot.flow} · {snapshot.run}", nodes=nodes, edges=_between(nodes, snapshot.edges))


def detail(options: StepOptions) -> str:
    """Return the options of a step that shape the flow or say where it runs, in a few words."""
    words = []
    if options.foreach:
        words.append(f"foreach {options.foreach.target} in {options.foreach.expr}")
    if options.join:
        words.append(f"join {', '.join(options.join)}")
    if options.condition:
        words.append(f"if {options.condition}")
    if options.until:
        words.append(f"until {options.until}")
    if options.on:
        words.append(f"on {options.on}")
    if options.gpu:
        words.append(f"gpu {options.gpu:g}")
    return ", ".join(words)


def text(graph: Graph, width: int = 0) -> str:
    """Return a graph as text: a line for each step in document order, edges as lines in the margin, and what it reads.

    Edges that others imply are left out of the margin; each step's line names all that it reads. `width` columns, when
    given, clip the lines.
    """
    reads: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        reads.setdefault(edge.to, []).append(edge)
    labels = _short_labels(graph)
    margin = _margin([node.name for node in graph.nodes], _direct(graph))
    room = max((preview.columns(rail) for _, rail in margin), default=0)
    longest = max((preview.columns(_caption(node)) for node in graph.nodes), default=0)
    by_name = {node.name: node for node in graph.nodes}
    lines = []
    for name, rail in margin:
        if name is None:
            lines.append(rail)
            continue
        node = by_name[name]
        readings = "; ".join(_told(edge, labels) for edge in reads.get(name, ()))
        parts = [node.detail and f"[{node.detail}]", readings and f"← {readings}"]
        tail = "  ".join(part for part in parts if part)
        head = f"{preview.pad(rail, room)} {preview.pad(_caption(node), longest) if tail else _caption(node)}"
        lines.append(f"{head}  {tail}".rstrip())
    return "\n".join(preview.clip_line(line, width) if width else line for line in lines)


def svg(graph: Graph) -> str:
    """Return a graph as an `<svg>` element, whose colours come from `html.STYLE` in the same block."""
    texts = {node.name: _lines(node) for node in graph.nodes}
    widths = {name: max(64.0, *(_text_width(line, small) for line, small in lines)) for name, lines in texts.items()}
    pairs = list(dict.fromkeys((edge.frm, edge.to) for edge in graph.edges))
    layout = lay_out([node.name for node in graph.nodes], pairs, widths, NODE_HEIGHT, GAP)
    elements = [_edge(edge, layout, _short_labels(graph)) for edge in graph.edges]
    elements += [
        _node(node, layout.nodes[node.name], widths[node.name], texts[node.name], graph) for node in graph.nodes
    ]
    pad = 3
    width, height = round(layout.width + 2 * pad), round(layout.height + 2 * pad)
    return html.tag(
        "svg",
        html.tag("title", f"{graph.title}: {len(graph.nodes)} steps"),
        *elements,
        xmlns="http://www.w3.org/2000/svg",
        role="group",
        viewBox=f"{-pad} {-pad} {width} {height}",
        width=width,
        height=height,
        cls="nbflow-dag",
    )


def as_html(graph: Graph) -> str:
    """Return a block of HTML with a graph's drawing, which scrolls when it is wider than the page."""
    return html.block(html.tag("div", html.Html(svg(graph)), cls="nbflow-scroll"))


# ---------------------------------------------------------------- SVG


def _lines(node: DrawnStep) -> list[tuple[str, bool]]:
    """Return a node's lines of text, each with whether it is the small one."""
    lines = [(preview.clip(_caption(node), LONGEST), False)]
    if node.detail:
        lines.append((preview.clip(node.detail, LONGEST + 4), True))
    return lines


def _text_width(line: str, small: bool) -> float:
    """Return the pixels that a node needs for a line of text, a little more than most fonts take."""
    return preview.columns(line) * (6.1 if small else 7.3) + 20


def _node(
    node: DrawnStep, at: tuple[float, float], width: float, lines: list[tuple[str, bool]], graph: Graph
) -> html.Html:
    x, y = at
    texts = []
    for number, (line, small) in enumerate(lines):
        drop = 4.3 if len(lines) == 1 else (-2.2, 11.5)[number]
        cls = "nbflow-detail" if small else ""
        texts.append(html.tag("text", line, x=_n(x), y=_n(y + drop), cls=cls))
    box = html.tag("rect", x=_n(x - width / 2), y=_n(y - NODE_HEIGHT / 2), width=_n(width), height=NODE_HEIGHT, rx=6)
    classes = ["nbflow-node", f"nbflow-{node.kind}"] + ([f"nbflow-is-{node.state}"] if node.state else [])
    return html.tag("g", html.tag("title", _described(node, graph)), box, *texts, cls=" ".join(classes), role="img")


def _edge(edge: Edge, layout: Layout, labels: Mapping[str, str]) -> html.Html:
    points = layout.edges.get((edge.frm, edge.to))
    if not points:
        return html.Html("")
    down = points[0][1] < points[-1][1]
    side = 1 if down else -1
    (x, y), *between, (end_x, end_y) = points
    end_y -= side * 5
    path = [f"M{_n(x)} {_n(y)}"]
    for next_x, next_y in [*between, (end_x, end_y)]:
        bend = (next_y - y) / 2
        path.append(f"C{_n(x)} {_n(y + bend)} {_n(next_x)} {_n(next_y - bend)} {_n(next_x)} {_n(next_y)}")
        x, y = next_x, next_y
    tip = f"M{_n(x - 4)} {_n(y)}L{_n(x + 4)} {_n(y)}L{_n(x)} {_n(y + side * 5)}Z"
    title = f"{labels[edge.frm]} → {labels[edge.to]}: {', '.join(edge.names) or edge.why}"
    line, head = html.tag("path", d=" ".join(path)), html.tag("path", d=tip, cls="nbflow-arrow")
    # the head stands outside the group whose paths are lines
    group = html.tag("g", html.tag("title", title), line, cls="nbflow-edge" + ("" if edge.names else " nbflow-order"))
    return html.join((group, head))


def _described(node: DrawnStep, graph: Graph) -> str:
    """Return what a screen reader says of a node."""
    labels = _short_labels(graph)
    readings = [_told(edge, labels) for edge in graph.edges if edge.to == node.name]
    parts = [node.label, node.state or "", node.detail, f"reads {'; '.join(readings)}" if readings else ""]
    return "; ".join(part for part in parts if part)


def _n(number: float) -> str:
    """Return a coordinate's shortest text, to a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0")


# ---------------------------------------------------------------- text


def _caption(node: DrawnStep) -> str:
    return f"{preview.mark(node.state)} {node.label}" if node.state else node.label


def _short_labels(graph: Graph) -> dict[str, str]:
    """Return what a graph's nodes are called inside a sentence: `cell 3` for `cell 3: df`."""
    return {node.name: node.label if node.kind == "step" else node.label.partition(":")[0] for node in graph.nodes}


def _told(edge: Edge, labels: Mapping[str, str]) -> str:
    """Return an edge as words: `X, y from features`, `after features`, or `after features (files)`."""
    source = labels.get(edge.frm, edge.frm)
    if edge.names:
        return f"{', '.join(edge.names)} from {source}"
    return f"after {source}{' (files)' if edge.why == 'files' else ''}"


def _between(nodes: Sequence[DrawnStep], edges: Sequence[Edge]) -> tuple[Edge, ...]:
    """Return the edges whose both ends are drawn."""
    names = {node.name for node in nodes}
    return tuple(edge for edge in edges if edge.frm in names and edge.to in names and edge.frm != edge.to)


def _direct(graph: Graph) -> dict[str, list[str]]:
    """Return for each node the sources that no other of its sources already needs, in document order."""
    place = {node.name: number for number, node in enumerate(graph.nodes)}
    sources: dict[str, set[str]] = {node.name: set() for node in graph.nodes}
    for edge in graph.edges:
        if place[edge.frm] < place[edge.to]:
            sources[edge.to].add(edge.frm)
    behind: dict[str, set[str]] = {}
    for node in graph.nodes:
        behind[node.name] = sources[node.name].union(*(behind[source] for source in sources[node.name]))
    return {
        name: sorted(
            (one for one in all_sources if not any(one in behind[other] for other in all_sources)),
            key=place.__getitem__,
        )
        for name, all_sources in sources.items()
    }


def _margin(names: Sequence[str], sources: Mapping[str, Sequence[str]]) -> list[tuple[str | None, str]]:
    """Return the lines of a drawing: a node's name, or None for a line of edges only, and its margin.

    Each column carries the edge of one step until its last reader has been drawn.
    """
    readers = {name: sum(name in group for group in sources.values()) for name in names}
    open_columns: list[str | None] = []
    lines: list[tuple[str | None, str]] = []
    for name in names:
        leading = [open_columns.index(source) for source in sources[name]]
        for source in sources[name]:
            readers[source] -= 1
        closing = [column for column in leading if readers[open_columns[column] or ""] == 0]
        if closing:
            at = min(closing)
        else:
            at = open_columns.index(None) if None in open_columns else len(open_columns)
            if at == len(open_columns):
                open_columns.append(None)
        if leading != [at] and leading:
            lines.append((None, _join_line(open_columns, leading, closing, at)))
        for column in closing:
            open_columns[column] = None
        open_columns[at] = name
        rail = " ".join(
            "●" if column == at else "│" if open_for else " " for column, open_for in enumerate(open_columns)
        )
        lines.append((name, rail.rstrip()))
        if readers[name] == 0:
            open_columns[at] = None
        while open_columns and open_columns[-1] is None:
            open_columns.pop()
    return lines


def _join_line(columns: Sequence[str | None], leading: Sequence[int], closing: Sequence[int], at: int) -> str:
    """Return the line above a node where the columns `joined` lead to its own, `at`, and those of `closing` end."""
    ends = {*leading, at}
    first, last = min(ends), max(ends)
    cells = []
    for column, source in enumerate(columns):
        up = source is not None
        down = (up and column not in closing) or column == at
        left, right = first < column <= last, first <= column < last
        if column not in ends and up and left:
            cells.append("│")  # passes behind the line that runs across
        else:
            cells.append(_CORNERS[up and (column in ends or not left), down, left, right])
        cells.append("─" if right else " ")
    return "".join(cells).rstrip()


_CORNERS: Mapping[tuple[bool, bool, bool, bool], str] = {
    (up, down, left, right): mark
    for mark, sides in {
        " ": "", "│": "ud", "─": "lr", "╭": "dr", "╮": "dl", "╰": "ur", "╯": "ul", "├": "udr", "┤": "udl", "┬": "dlr",
        "┴": "ulr", "┼": "udlr", "╵": "u", "╷": "d", "╴": "l", "╶": "r",
    }.items()
    for up, down, left, right in [("u" in sides, "d" in sides, "l" in sides, "r" in sides)]
}  # fmt: skip
