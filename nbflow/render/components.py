"""Parts of cards: users' values as HTML and text, escaped at once; a value that cannot be shown becomes an error."""

from __future__ import annotations

import base64
import datetime as dt
import io
import itertools
import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from nbflow import model
from nbflow.jsonable import jsonable
from nbflow.model import Frozen
from nbflow.render import html, preview, sanitize
from nbflow.render.html import Html, tag
from nbflow.store.serialize.describe import describe
from nbflow.tracebacks import text_of


def words(spec: Mapping[str, Any]) -> str:
    """Return a specification's mark and fields in a line."""
    mark = spec.get("mark", "")
    kind = mark.get("type", "") if isinstance(mark, Mapping) else str(mark)
    axes = [f"{name}: {one['field']}" for name, one in (spec.get("encoding") or {}).items() if "field" in (one or {})]
    return f"Vega-Lite chart ({', '.join(part for part in (kind, *axes) if part)}), shown as data"


def rows(spec: Mapping[str, Any]) -> Any:
    """Return the rows that stand in a specification, None where its data is elsewhere."""
    data = spec.get("data") or {}
    dataset = (spec.get("datasets") or {}).get(data.get("name"))
    return data.get("values") or dataset


CELL = 120
"""Columns of text that a cell may take."""


class Cells(Frozen, frozen=True):
    """Cells as text or components; `numbers` are the columns to align to the right, `note` says what is left out."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str | Component, ...], ...]
    numbers: frozenset[int] = frozenset()
    note: str = ""


def grid_of(data: Any, rows: int = 20, columns: int = 20) -> Cells:
    """Return the first cells of a pandas, polars or Arrow table, a list of dicts, a dict of columns or rows.

    Raise TypeError for what is no table. Only what is shown is converted.
    """
    root = type(data).__module__.partition(".")[0]
    if root == "pandas":
        return _pandas(data, rows, columns)
    if root == "polars":
        frame = data.to_frame() if not hasattr(data, "columns") else data
        frame = frame.collect() if hasattr(frame, "collect") else frame
        return _grid(frame.columns, frame.head(rows).rows(), frame.height, columns)
    if root == "pyarrow":
        names = list(data.schema.names)
        body = data.slice(0, rows).to_pylist()
        return _grid(names, [tuple(row[name] for name in names) for row in body], data.num_rows, columns)
    if isinstance(data, Mapping):
        values = {name: list(itertools.islice(column, rows)) for name, column in data.items()}
        height = max((len(column) for column in data.values()), default=0)
        return _grid(list(values), list(itertools.zip_longest(*values.values(), fillvalue="")), height, columns)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise TypeError(
            f"a {type(data).__name__} is not a table: pass a data frame, a list of dicts or a dict of columns"
        )
    return _of_rows(data, rows, columns)


def _of_rows(data: Iterable[Any], rows: int, columns: int) -> Cells:
    height = len(data) if isinstance(data, Sequence) else None
    first = list(itertools.islice(data, rows))
    if first and all(isinstance(row, Mapping) for row in first):
        names = list(dict.fromkeys(name for row in first for name in row))
        return _grid(names, [tuple(row.get(name, "") for name in names) for row in first], height, columns)
    lines = [tuple(row) if isinstance(row, Iterable) and not isinstance(row, str | bytes) else (row,) for row in first]
    width = max(map(len, lines), default=0)
    return _grid([""] * width, [line + ("",) * (width - len(line)) for line in lines], height, columns)


def _pandas(data: Any, rows: int, columns: int) -> Cells:
    frame = data.to_frame() if data.ndim == 1 and hasattr(data, "to_frame") else data
    height, width = frame.shape
    corner = frame.iloc[:rows, :columns]
    plain = str(type(frame.index).__name__) == "RangeIndex" and frame.index.name is None
    names = [_name(name) for name in corner.columns]
    body = [tuple(row) for row in corner.itertuples(index=False, name=None)]
    if not plain:
        # the index says what a row is about
        names = [_name(frame.index.name or ""), *names]
        body = [(_name(label), *row) for label, row in zip(corner.index, body, strict=True)]
    return _grid(names, body, height, columns + 1, width)


def _name(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _grid(
    names: Sequence[Any], body: Sequence[Sequence[Any]], height: int | None, columns: int, width: int | None = None
) -> Cells:
    heads = names[:columns]
    wide = len(names) if width is None else width
    numbers = frozenset(
        at for at in range(len(heads)) if body and all(_is_number(row[at]) or row[at] is None for row in body)
    )
    note = ""
    if (height is not None and height > len(body)) or wide > columns:
        note = f"{len(body):,} of {len(body) if height is None else height:,} rows"
        note += f", {len(heads)} of {wide:,} columns" if wide > columns else f", {wide} columns"
    cells = tuple(tuple(_cell(value) for value in row[:columns]) for row in body)
    return Cells(heads=tuple(map(_name, heads)), rows=cells, numbers=numbers, note=note)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and hasattr(value, "__add__") and not isinstance(value, bool)


def _cell(value: Any) -> str | Component:
    if value is None:
        return ""
    if isinstance(value, Component):
        return value
    if hasattr(value, "savefig"):  # a figure
        return Image(value)
    if _is_number(value) and not isinstance(value, int):
        return f"{float(value):.6g}"
    return preview.clip(str(value), CELL)


LARGEST = 1_000_000
"""Characters of HTML that one part may take."""
TEXT_LARGEST = 20_000
IMAGE_SIDE = 1600
JSON_ITEMS = 1000
JSON_DEPTH = 8
SPECIFICATION = 400_000
"""Characters of a chart's specification that a card may hold."""


class Drawn(model.Frozen, frozen=True):
    """A part of a card as it is shown: HTML without anything that could run, and plain text."""

    html: str
    text: str = ""


class Component:
    """What every part has in common: it is drawn when it is made, and once more when it is updated."""

    def __init__(self, draw: Callable[[], Drawn]) -> None:
        self._changed: Callable[[], None] = _nobody
        self._draw: Callable[[], Drawn] | None = draw
        self.drawn = guarded(draw)

    def update(self, *content: Any, **options: Any) -> None:
        """Show something else in the same place; takes what the component itself takes."""
        self._become(type(self)(*content, **options))

    def _become(self, other: Component) -> None:
        other._changed = self._changed_within  # its inner parts report to it from now on
        self._draw = lambda: other.drawn
        self.drawn = other.drawn
        self._changed()

    def _holding(self, inner: Iterable[Component]) -> None:
        """Be drawn again whenever a component within this one is updated."""
        for each in inner:
            each.watched(self._changed_within)

    def _of(self, parts: Iterable[Any], joined: Callable[[list[Drawn]], Drawn]) -> Callable[[], Drawn]:
        """Return what draws parts together, each of them as it is by then."""
        components: list[Component] = []

        def draw() -> Drawn:
            if not components:
                components.extend(map(component_of, parts))
                self._holding(components)
            return joined([part.drawn for part in components])

        return draw

    def _changed_within(self) -> None:
        if self._draw is not None:
            self.drawn = guarded(self._draw)
            self._changed()

    def watched(self, changed: Callable[[], None]) -> Self:
        """Call `changed` after each update."""
        self._changed = changed
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_changed": _nobody, "_draw": None}

    def _repr_html_(self) -> str:
        return html.block(Html(self.drawn.html))

    def __repr__(self) -> str:
        return self.drawn.text or f"<{type(self).__name__}>"


def _nobody() -> None:
    """Do nothing: no card holds the component."""


def guarded(draw: Callable[[], Drawn]) -> Drawn:
    """Return what draws a value of the user's, or the error that it ended with; never raises."""
    try:
        part = draw()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a value's own methods run here, and a card must not harm its task
        return failed(error)
    if len(part.html) > LARGEST:
        size = preview.size(len(part.html))
        note = f"left out: it is {size} large, and a part of a card holds {preview.size(LARGEST)} at most"
        return Drawn(html=tag("p", note, cls="nbflow-note"), text=f"[{note}]")
    return Drawn(html=part.html, text=_cut(part.text))


def failed(error: BaseException) -> Drawn:
    """Return what drawing a value ended with as a part of the card."""
    text = f"{type(error).__name__}: {text_of(error)}"
    return Drawn(
        html=tag("p", f"could not be shown: {text}", cls="nbflow-note nbflow-failed"),
        text=f"[could not be shown: {text}]",
    )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LARGEST else text[:TEXT_LARGEST] + "\n[…]"


def _titled(title: str, content: Html, text: str) -> Drawn:
    if not title:
        return Drawn(html=content, text=text)
    return Drawn(html=tag("figure", tag("figcaption", title), content), text=f"{title}\n{text}")


# ---------------------------------------------------------------- text


class Markdown(Component):
    """Text in Markdown (CommonMark and tables); HTML in it is shown as text, images must be `data:` URIs."""

    def __init__(self, text: str) -> None:
        super().__init__(lambda: _markdown(str(text)))


def _markdown(text: str) -> Drawn:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return Drawn(html=tag("div", sanitize.clean(reader.render(text)), cls="nbflow-text"), text=text)


class Code(Component):
    """Source text, as it is; `language` is said above it."""

    def __init__(self, source: str, language: str = "") -> None:
        super().__init__(lambda: _code(str(source), language))


def _code(source: str, language: str) -> Drawn:
    return _titled(language, tag("pre", tag("code", source)), source)


class Error(Component):
    """An exception, or a message and its traceback."""

    def __init__(self, error: BaseException | str, traceback: str = "", *, title: str = "") -> None:
        super().__init__(lambda: _error(error, traceback, title))


def _error(error: BaseException | str, trace: str, title: str) -> Drawn:
    text = str(error)
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text_of(error)}"
        trace = trace or "".join(traceback.format_exception(error))
    content = [tag("p", text, cls="nbflow-failed")]
    if trace:
        content.append(tag("details", tag("summary", "traceback"), tag("pre", sanitize.coloured(trace))))
    return _titled(title, html.join(content), "\n".join(part for part in (text, sanitize.plain(trace)) if part))


# ---------------------------------------------------------------- numbers


class ValueBox(Component):
    """One number or word that matters; `change` stands below it, in green when it begins with +, in red with -."""

    def __init__(self, value: object, title: str = "", change: object = "") -> None:
        super().__init__(lambda: _box(value, title, change))


def _box(value: object, title: str, change: object) -> Drawn:
    text = f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
    difference = f"{change:+.4g}" if isinstance(change, int | float) and not isinstance(change, bool) else str(change)
    parts = [tag("div", title, cls="nbflow-dim")] if title else []
    parts.append(tag("div", preview.clip(text, 60), cls="nbflow-value"))
    if difference:
        better = "good" if difference[0] == "+" else "bad" if difference[0] in "-−" else "dim"
        parts.append(tag("div", difference, cls=f"nbflow-{better}"))
    return Drawn(
        html=tag("div", *parts, cls="nbflow-box"), text=" ".join(part for part in (title, text, difference) if part)
    )


class Progress(Component):
    """How much of something is done: `update(value)` moves it. Without `max` only the value is known."""

    def __init__(self, max: float | None = None, label: str = "", value: float = 0, unit: str = "") -> None:  # noqa: A002
        self.max, self.label, self.value, self.unit = max, label, value, unit
        super().__init__(lambda: _progress(value, max, label, unit))

    def update(self, value: float | None = None, *, label: str | None = None, max: float | None = None) -> None:  # noqa: A002
        """Move on to a value; the label and the maximum stay unless they are given."""
        self.value = self.value if value is None else value
        self.label = self.label if label is None else label
        self.max = self.max if max is None else max
        self._become(Progress(self.max, self.label, self.value, self.unit))

    def increment(self, amount: float = 1) -> None:
        """Move on by an amount."""
        self.update(self.value + amount)


def _progress(value: float, most: float | None, label: str, unit: str) -> Drawn:
    if not most:
        text = f"{value:g}{f' {unit}' if unit else ''}"
        return Drawn(html=tag("p", tag("span", label, cls="nbflow-dim"), " ", text), text=f"{label} {text}".strip())
    share = min(1.0, max(0.0, float(value) / float(most)))
    text = f"{value:g} of {most:g}{f' {unit}' if unit else ''} ({share:.0%})"
    bar = tag("div", tag("div", "", style=f"width:{share:.1%}"), cls="nbflow-bar")
    head = tag("div", tag("span", label), tag("span", text, cls="nbflow-dim"), cls="nbflow-ends")
    full = round(share * 20)
    return Drawn(
        html=tag("div", head, bar, cls="nbflow-progress"),
        text=f"{label} {'█' * full}{'░' * (20 - full)} {text}".strip(),
    )


# ---------------------------------------------------------------- tables and data


class Table(Component):
    """Rows and columns of a pandas, polars or Arrow table, a list of dicts, a dict of columns or a list of rows.

    Only the first `rows` and `columns` are shown, and how many there are.
    """

    def __init__(self, data: Any, *, rows: int = 20, columns: int = 20, title: str = "") -> None:
        cells: list[Cells] = []

        def draw() -> Drawn:
            if not cells:
                cells.append(grid_of(data, rows, columns))
                self._holding(each for row in cells[0].rows for each in row if isinstance(each, Component))
            return table(cells[0], title)

        super().__init__(draw)


def table(grid: Cells, title: str = "") -> Drawn:
    """Return cells of text as a table."""
    heads = [
        tag("th", head, scope="col", cls="nbflow-number" if at in grid.numbers else "")
        for at, head in enumerate(grid.heads)
    ]
    numbers = [("nbflow-number" if at in grid.numbers else "") for at in range(len(grid.heads))]
    body = [
        tag("tr", *(tag("td", _within(cell), cls=kind) for cell, kind in zip(row, numbers, strict=False)))
        for row in grid.rows
    ]
    parts = [
        tag(
            "table", tag("thead", tag("tr", *heads)) if any(grid.heads) else "", tag("tbody", *body), cls="nbflow-table"
        )
    ]
    scrolling = tag("div", *parts, cls="nbflow-scroll")
    note = tag("div", grid.note, cls="nbflow-dim") if grid.note else Html("")
    texts = (map(_in_words, row) for row in grid.rows)
    lines = preview.grid([grid.heads, *texts]) if grid.rows or any(grid.heads) else []
    return _titled(title, html.join((scrolling, note)), "\n".join([*lines, *([grid.note] if grid.note else [])]))


def _in_words(cell: str | Component) -> str:
    return cell if isinstance(cell, str) else preview.clip(cell.drawn.text, CELL)


def _within(cell: str | Component) -> str:
    return cell if isinstance(cell, str) else Html(cell.drawn.html)


class JSON(Component):
    """Nested dicts and lists, folded below the first level."""

    def __init__(self, value: Any, *, title: str = "") -> None:
        super().__init__(lambda: _json(value, title))


def _json(value: Any, title: str) -> Drawn:
    room = [JSON_ITEMS]
    content = tag("div", _tree(value, 0, room), cls="nbflow-json")
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):  # keys that JSON does not know, circles
        text = repr(value)
    return _titled(title, content, text)


class YAML(Component):
    """Settings as YAML: nested dicts and lists, or a text that is YAML already."""

    def __init__(self, value: Any, *, title: str = "") -> None:
        super().__init__(lambda: _yaml(value, title))


def _yaml(value: Any, title: str) -> Drawn:
    if isinstance(value, str):
        text = value
    else:
        try:
            import yaml  # type: ignore[import-untyped,unused-ignore]
        except ImportError:  # an extra of its own: `nbflow[yaml]`
            return _json(value, title)
        text = yaml.safe_dump(jsonable(value), sort_keys=False, allow_unicode=True)
    return _titled(title, Html(_code(text.rstrip("\n"), "yaml").html), text)


class HTML(Component):
    """HTML, reduced to known elements: no script, no frame, no form, nothing that is loaded from elsewhere."""

    def __init__(self, text: str, *, title: str = "") -> None:
        super().__init__(lambda: _titled(title, *_markup(str(text))))


def _markup(text: str) -> tuple[Html, str]:
    cleaned = sanitize.clean(text)
    return tag("div", cleaned, cls="nbflow-html"), sanitize.words(cleaned)


def _tree(value: Any, depth: int, room: list[int]) -> Html:
    """Return a value as nested lists; `room` holds how many entries may still be shown."""
    if not isinstance(value, Mapping | list | tuple | set | frozenset) or not value:
        return tag("code", _leaf(value))
    if depth >= JSON_DEPTH:
        return tag("code", "…")
    has_names = isinstance(value, Mapping)
    entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
    items = []
    for name, entry in entries:
        if room[0] <= 0:
            items.append(tag("li", "…"))
            break
        room[0] -= 1
        items.append(tag("li", tag("span", f"{name}: ", cls="nbflow-dim"), _tree(entry, depth + 1, room)))
    word = f"{len(value)} {'entries' if has_names else 'items'}"
    opened = {"open": ""} if depth == 0 else {}
    return tag("details", tag("summary", word, cls="nbflow-dim"), tag("ul", *items), **opened)


def _leaf(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return preview.clip(repr(value), 200)


class Artifact(Component):
    """Any value as artifacts are listed: type, shape, size and a preview."""

    def __init__(self, value: Any, name: str = "") -> None:
        super().__init__(lambda: artifacts([value if isinstance(value, model.Manifest) else _described(name, value)]))


def _described(name: str, value: Any) -> model.Manifest:
    about = describe(name or "value", value)
    return model.Manifest(
        name=name, type=about.type, group=0, nbytes=about.nbytes, shape=about.shape, preview=about.preview
    )


def artifacts(manifests: Sequence[model.Manifest], extra: Mapping[str, str] | None = None) -> Drawn:
    """Return a table of artifacts; `extra` says something more of some, by name."""
    said = extra or {}
    rows = tuple(
        (one.name, one.type, preview.shape(one.shape),
         preview.size(one.nbytes) if one.nbytes and one.group >= 0 else "", preview.artifact(one, 80),
         said.get(one.name, ""))
        for one in manifests
    )  # fmt: skip
    heads = ("name", "type", "shape", "size", "preview", "from")
    columns = [at for at in range(6) if any(row[at] for row in rows)]
    grid = Cells(
        heads=tuple(heads[at] for at in columns),
        rows=tuple(tuple(row[at] for at in columns) for row in rows),
        numbers=frozenset(place for place, at in enumerate(columns) if at == 3),
    )
    return table(grid)


# ---------------------------------------------------------------- pictures


class Image(Component):
    """A picture: a matplotlib figure or axes, a PIL image, or the bytes of a PNG, JPEG, GIF, WebP or SVG file."""

    def __init__(self, image: Any, title: str = "", *, alt: str = "") -> None:
        super().__init__(lambda: _image(image, title, alt))


SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}


def _image(image: Any, title: str, alt: str) -> Drawn:
    data = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else _picture(image)
    return picture(data, title, alt)


def picture(data: bytes, title: str = "", alt: str = "") -> Drawn:
    """Return an image file as a part of the page itself; raise ValueError for bytes that are none."""
    kind = next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    elif not kind and b"<svg" in data[:2000]:
        kind = "svg+xml"  # inside <img> no script of it runs
    if not kind:
        raise ValueError("these bytes are not a PNG, JPEG, GIF, WebP or SVG image")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    alternative = alt or title or "image"
    return _titled(
        title,
        tag("img", src=source, alt=alternative),
        f"[{alternative}: {kind.partition('+')[0]}, {preview.size(len(data))}]",
    )


def _picture(image: Any) -> bytes:
    """Return a figure, axes or PIL image as a PNG."""
    figure = getattr(image, "figure", None) or image
    buffer = io.BytesIO()
    if hasattr(figure, "savefig"):
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return buffer.getvalue()
    if hasattr(image, "save") and hasattr(image, "size"):
        small = image
        if max(image.size) > IMAGE_SIDE:
            small = image.copy()
            small.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
        small.save(buffer, format="PNG")
        return buffer.getvalue()
    raise TypeError(
        f"a {type(image).__name__} is not an image: pass a figure, a PIL image or the bytes of an image file"
    )


class Chart(Component):
    """An Altair chart or a Vega-Lite specification, drawn once and for all where vl-convert-python is installed.

    Without it the card shows the chart's data and its specification: no script is fetched from elsewhere.
    """

    def __init__(self, chart: Any, title: str = "") -> None:
        super().__init__(lambda: _chart(chart, title))


def _chart(chart: Any, title: str) -> Drawn:
    spec = chart if isinstance(chart, Mapping) else chart.to_dict()
    try:
        import vl_convert
    except ImportError:
        return _undrawn(dict(spec), title)
    return picture(vl_convert.vegalite_to_svg(json.dumps(spec)).encode(), title, str(spec.get("title") or "chart"))


def _undrawn(spec: dict[str, Any], title: str) -> Drawn:
    """Return what a specification says, and its data, where nothing here can draw it."""
    summary = words(spec)
    parts = [
        Drawn(html=tag("p", summary, "; install vl-convert-python to have it drawn", cls="nbflow-note"), text=summary)
    ]
    data = rows(spec)
    if data:
        parts.append(table(grid_of(data, 10, 20)))
    text = json.dumps(spec, indent=2, default=repr)
    if not title and spec.get("title"):
        parts.insert(0, Drawn(html=tag("b", spec["title"]), text=str(spec["title"])))
    whole = joined(parts)
    if len(text) <= SPECIFICATION:  # JupyterLab finds it there, and draws it
        source = tag("details", tag("summary", "specification"), tag("pre", text, cls="nbflow-vega"))
        content = tag("div", Html(whole.html), source, cls="nbflow-chart")
    else:
        content = Html(whole.html)
    return _titled(title, content, whole.text)


class Timeline(Component):
    """What happened when: (label, start, end) triples, or dicts with these keys; times in seconds, or datetimes."""

    def __init__(self, events: Iterable[Any], *, title: str = "") -> None:
        super().__init__(lambda: _timeline(list(events), title))


def _timeline(events: list[Any], title: str) -> Drawn:
    spans = [_span(event) for event in events[:200]]
    if not spans:
        return _titled(title, tag("p", "nothing happened", cls="nbflow-dim"), "nothing happened")
    first = min(start for _, start, _ in spans)
    whole = max(max(end for _, _, end in spans) - first, 1e-9)
    rows, lines = [], []
    for label, start, end in spans:
        offset, wide = (start - first) / whole, max(0.004, (end - start) / whole)
        bar = tag("div", "", style=f"margin-left:{min(offset, 0.996):.2%};width:{min(wide, 1 - offset + 0.004):.2%}")
        length = preview.duration(end - start)
        rows.append(
            tag("tr", tag("td", label), tag("td", bar, cls="nbflow-span"), tag("td", length, cls="nbflow-number"))
        )
        lines.append((label, f"+{preview.duration(start - first)}", length))
    content = tag("table", tag("tbody", *rows), cls="nbflow-timeline")
    return _titled(title, content, "\n".join(preview.grid(lines)))


def _span(event: Any) -> tuple[str, float, float]:
    if isinstance(event, Mapping):
        event = (event.get("label", ""), event["start"], event.get("end", event["start"]))
    label, start, *rest = event
    end = rest[0] if rest else start
    begun, ended = _seconds(start), _seconds(end)
    return str(label), begun, max(begun, ended)


def _seconds(moment: Any) -> float:
    return moment.timestamp() if isinstance(moment, dt.datetime) else float(moment)


# ---------------------------------------------------------------- parts of parts


class Section(Component):
    """Parts under a heading; folded unless `open`. A part that is updated changes in its place."""

    def __init__(self, title: str, parts: Iterable[Any], *, open: bool = True) -> None:  # noqa: A002
        super().__init__(self._of(parts, lambda drawn: section(title, drawn, opened=open)))


class Grid(Component):
    """Parts beside each other, in as many columns. A part that is updated changes in its place."""

    def __init__(self, parts: Iterable[Any], *, columns: int = 2) -> None:
        super().__init__(self._of(parts, lambda drawn: side_by_side(drawn, columns)))


def side_by_side(parts: Sequence[Drawn], columns: int) -> Drawn:
    """Return parts in rows of so many columns, at most six."""
    places = [tag("div", Html(part.html)) for part in parts]
    content = tag("div", *places, cls=f"nbflow-grid nbflow-of-{min(6, max(1, columns))}")
    return Drawn(html=content, text="\n".join(part.text for part in parts if part.text))


def section(title: str, parts: Sequence[Drawn], *, opened: bool = True) -> Drawn:
    """Return a heading and what stands below it, which a click folds."""
    whole = joined(parts)
    marked = {"open": ""} if opened else {}
    content = tag("details", tag("summary", title), Html(whole.html), cls="nbflow-section", **marked)
    return Drawn(html=content, text=f"{title}\n" + "\n".join(f"  {line}" for line in whole.text.split("\n")))


def joined(parts: Iterable[Drawn]) -> Drawn:
    """Return parts one after the other, boxes beside each other."""
    drawn = list(parts)
    rows = []
    for boxes, run in itertools.groupby(drawn, lambda part: part.html.startswith('<div class="nbflow-box">')):
        content = Html("".join(part.html for part in run))
        rows.append(tag("div", content, cls="nbflow-boxes") if boxes else content)
    return Drawn(html="".join(rows), text="\n".join(part.text for part in drawn if part.text))


def component_of(value: Any) -> Component:
    """Return the component that shows a value given to a card."""
    if isinstance(value, Component):
        return value
    root = type(value).__module__.partition(".")[0]
    if isinstance(value, str):
        return Markdown(value)
    if isinstance(value, BaseException):
        return Error(value)
    if isinstance(value, bytes | bytearray | memoryview) or root == "PIL" or hasattr(value, "savefig"):
        return Image(value)
    if root == "altair":
        return Chart(value)
    if root in ("pandas", "polars", "pyarrow"):
        return Table(value)
    if isinstance(value, Mapping) and "vega-lite" in str(value.get("$schema", "")):
        return Chart(value)
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return Table(value)
    if isinstance(value, Mapping | list | tuple):
        return JSON(value)
    return Artifact(value)
