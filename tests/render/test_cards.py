"""Cards: what a component shows, what it never lets through, what a step puts on one while it runs."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

import nbflow
from nbflow.cli import app
from nbflow.render import cards, components, logs, sanitize
from nbflow.render.cards import SCRIPT
from nbflow.render.components import Drawn
from tests.support.mutants import broken_by, markup, see_harmless, show_harmless
from tests.support.places import EXAMPLES

NASTY = '<script>alert("1")</script><img src=x onerror=alert(2)>&\'"'
PNG = bytes.fromhex("89504e470d0a1a0a")


class Unkind:
    """A value whose every look raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


def made() -> dict[str, cards.Component]:
    return {
        "markdown": cards.Markdown(f"# {NASTY}\n\n[a](javascript:alert(1))\n\n![x](http://far/x.png)"),
        "table": cards.Table([{"a": NASTY, NASTY: 1}]),
        "image": cards.Image(PNG, title=NASTY),
        "svg": cards.Image(b"<svg onload='alert(1)'></svg>"),
        "chart": cards.Chart({"mark": "bar", "title": NASTY, "encoding": {"x": {"field": NASTY}}}),
        "progress": cards.Progress(4, NASTY, 1),
        "html": cards.HTML(NASTY, title=NASTY),
        "yaml": cards.YAML({NASTY: [NASTY]}),
        "grid": cards.Grid([NASTY, cards.Code(NASTY)]),
        "nested": cards.Table([{"a": cards.Section(NASTY, [NASTY])}]),
        "box": cards.ValueBox(NASTY, NASTY, NASTY),
        "code": cards.Code(NASTY, NASTY),
        "json": cards.JSON({NASTY: [NASTY, {"deep": NASTY}]}),
        "timeline": cards.Timeline([(NASTY, 0, 1), {"label": "b", "start": 1, "end": 3}]),
        "error": cards.Error(ValueError(NASTY)),
        "artifact": cards.Artifact([NASTY], NASTY),
        "section": cards.Section(NASTY, [NASTY]),
    }


class Elements(HTMLParser):
    """The elements of some HTML with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", made())
def test_nothing_of_a_value_becomes_markup(name: str) -> None:
    drawn = made()[name].drawn
    for tag, attributes in Elements(drawn.html).found:
        assert tag in sanitize.SHOWN | {"pre"}
        assert not {one for one in attributes if one.startswith("on")}
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")
    assert drawn.text


def test_markup_that_nobody_would_write_does_nothing_but_show() -> None:
    """Cards of the soak, a few of them: what they become can be read in one way alone."""
    texts = markup(1)
    assert not [found for _ in range(100) if (found := broken_by(show_harmless, next(texts)))]
    assert broken_by(lambda text: see_harmless(Drawn(html=text, text="")), "<b onclick=ran()>"), "it would be seen"
    assert broken_by(lambda text: see_harmless(Drawn(html=text, text="")), '<img src="http://far.test/">')


def test_components_within_others_live() -> None:
    """To any depth, also after the one around them was given another content; pickles hold what was drawn."""
    inner, other = cards.Progress(10, "inner"), cards.Progress(10, "other")
    table = cards.Table([{"depth": 4, "trained": cards.Grid([inner, "words"], columns=3)}])
    outer = cards.Section("all", [table, cards.YAML({"lr": 0.1})])
    changes: list[str] = []
    outer.watched(lambda: changes.append(outer.drawn.text))
    inner.update(7)
    assert len(changes) == 1
    assert "7 of 10" in outer.drawn.html
    assert "7 of 10" in outer.drawn.text
    assert "nbflow-of-3" in outer.drawn.html
    assert "lr: 0.1" in outer.drawn.text
    table.update([{"depth": 5, "trained": other}])
    other.update(3)
    assert len(changes) == 3
    assert "3 of 10" in outer.drawn.html
    assert "7 of 10" not in outer.drawn.html
    assert pickle.loads(pickle.dumps(outer)).drawn == outer.drawn


def test_html_shows_and_does_nothing() -> None:
    drawn = cards.HTML(
        "<p style='color:red' onclick='x()'>hi <b>you</b></p><script>x()</script><iframe src=a></iframe>"
    ).drawn
    assert "<b>you</b>" in drawn.html
    assert drawn.text.split() == ["hi", "you"]
    assert not re.search("script|iframe|onclick", drawn.html)


@pytest.mark.parametrize(
    "make",
    [cards.Table, cards.Image, cards.Chart, cards.JSON, cards.Timeline, cards.ValueBox, cards.Artifact, cards.Markdown],
)
def test_a_value_that_raises_is_said_and_harms_nothing(make: Any) -> None:
    assert make(Unkind()).drawn.html


def test_pages_have_their_policy_first_and_load_nothing() -> None:
    page = cards.Card("train", [one.drawn for one in made().values()]).html
    assert page.startswith('<!doctype html><html><head><meta http-equiv="Content-Security-Policy"')
    assert page.count("<script>") == 1
    assert f"<script>{SCRIPT}</script>" in page
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", page)
    assert cards.body_of(page).startswith('<div class="nbflow-text">')


def test_bundles_are_framed_without_the_origin_of_the_page() -> None:
    bundle = cards.Card("train", [cards.Markdown("hi").drawn], step="train", run="f/r").bundle()
    assert f'sandbox="{cards.SANDBOX}"' in bundle["text/html"]
    assert "allow-same-origin" not in bundle["text/html"]
    assert bundle[cards.MIME]["title"] == "train"
    assert type(bundle["text/html"]) is str
    assert "hi" in bundle["text/plain"]
    json.dumps(bundle)


def test_large_parts_are_left_out_with_a_notice() -> None:
    assert "left out" in cards.Code("x" * (components.LARGEST + 1)).drawn.html
    part = cards.Code("x" * 900_000).drawn
    card = cards.Card("big", [part, part, part])
    assert "2 more parts left out" in card.text
    assert len(card.html) < cards.LARGEST + 50_000


def test_charts_that_a_step_displays_are_charts_on_its_card() -> None:
    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "mark": "bar", "data": {"values": [{"a": 1}]}}
    shown = {"output_type": "display_data", "data": {"application/vnd.vegalite.v5+json": spec, "text/plain": "<Chart>"}}
    drawn = cards.output_part(shown)
    assert drawn is not None
    assert "nbflow-vega" in drawn.html or "data:image/svg+xml" in drawn.html
    figure = {"application/vnd.plotly.v1+json": {}, "text/html": "<script>x</script>", "text/plain": "Figure()"}
    plotly = cards.output_part({"output_type": "display_data", "data": figure})
    assert plotly is not None
    assert "Plotly" in plotly.text


def test_components_survive_pickling() -> None:
    bar = cards.Progress(10, "epochs").watched(lambda: None)
    bar.update(3)
    assert pickle.loads(pickle.dumps(bar)).drawn == bar.drawn


def test_tables_of_all_libraries() -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    columns = {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    rows = [{"a": a, "b": b} for a, b in zip(columns["a"], columns["b"], strict=True)]
    found = [
        cards.Table(one, rows=2).drawn
        for one in (pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns), columns, rows)
    ]
    assert len({one.html for one in found}) == 1
    assert "2 of 3 rows" in found[0].text


def test_pictures_of_figures_and_pil() -> None:
    import matplotlib as mpl
    from PIL import Image

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.plot([1, 2])
    assert "data:image/png;base64," in cards.Image(figure).drawn.html
    assert cards.Image(ax).drawn == cards.Image(figure).drawn
    plt.close(figure)
    image = Image.new("RGB", (4, 4))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG")
    assert "data:image/png" in cards.Image(image).drawn.html
    assert "data:image/jpeg" in cards.Image(buffer.getvalue()).drawn.html


# ---------------------------------------------------------------- HTML and text of others


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("<b onclick=x>a</b>", "<b>a</b>"),
        ("<script>a</script>b", "b"),
        ("</div><table><tr><td>1", "<table><tr><td>1</td></tr></table>"),
        ('<a href="javascript:x">a</a>', "<a>a</a>"),
        ('<p style="color:red;background:url(//x)">a', '<p style="color:red">a</p>'),
        ('<img src="https://far/x.png">', ""),
        ("<iframe srcdoc='x'>y</iframe>z", "z"),
        ("1 &lt; 2", "1 &lt; 2"),
        ("<!--nbflow:end--><form><input>a</form>", ""),
    ],
)
def test_clean(given: str, kept: str) -> None:
    assert sanitize.clean(given) == kept


def test_coloured_text() -> None:
    assert sanitize.coloured("\x1b[1;31mno\x1b[0m <b>") == '<span class="ansi-red-fg ansi-bold">no</span> &lt;b&gt;'
    assert sanitize.plain("10%\r 50%\r100%\nab\b\bcd\x1b[K") == "100%\ncd"


TERMINAL = {
    "a\tb\r\n\x1b[1;38;5;196mred\x1b[0m\x1b[38:2:1:2:3m!\x1b[m": None,  # colours, lines and tabs stay
    "\x1b]52;c;cm0gLXJm\x07x": "x",  # the clipboard
    "\x1b]8;;https://a.example\x1b\\x\x1b]8;;\x1b\\": "x",
    "\x9d52;c;cm0gLXJm\x9cx": "x",
    "\x1b]0;title without an end": "",
    "\x1bP$qm\x1b\\x\x1b_G\x1b\\\x1b^p\x1b\\": "x",  # asks for an answer that a shell would read
    "\x1b[2J\x1b[3A\x1b[?1049h\x1b[6n\x1bcx": "x",
    "\x9b31mx": "x",
    "\x1b[" + "9" * 5000 + "mx": "x",
    "\x1b[" + "1;" * 5000 + "1mx": "x",
    "\x07\x00\x7f\x85x": "x",
    "x\x1b": "x",
}


@pytest.mark.parametrize(("text", "kept"), TERMINAL.items())
def test_a_terminal_is_given_text_and_colours_alone(text: str, kept: str | None) -> None:
    assert sanitize.for_terminal(text) == (text if kept is None else kept)
    shown = "red!" if kept is None else kept
    assert sanitize.plain(text).endswith(shown)
    page = re.sub("<[^>]*>", "", sanitize.coloured(text))
    assert page.endswith(shown)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)


BROKEN = ["<", "<a ", "<div>", "</div>", "&", "<!--", '<a href="', "<a x='", "<?", "<![CDATA[", "</", "<b", "<script>",
          '<a ="', "<p/", "<a b=c ", "<style>x</style", "<svg>"]  # fmt: skip


@pytest.mark.parametrize("piece", BROKEN)
def test_broken_html_takes_time_in_proportion(piece: str) -> None:
    """Some of these took minutes: each `<` was read to the end of the text."""
    for text in (piece * (60_000 // len(piece)), f"{piece * (60_000 // len(piece))}>", f"<p>{piece * 9000}</p>"):
        kept = sanitize.clean(text)
        assert kept == sanitize.clean(kept), "nothing is left that could be understood in another way"
        assert sanitize.words(f"<p>first</p>{text}").startswith("first")


def test_logs_keep_the_end_and_what_a_bar_shows_last() -> None:
    log = logs.Log()
    for number in range(1000):
        log.add(((), "stdout"), f"line {number}\n")
    log.add(((2,), "stderr"), "\r 10%")
    log.add(((2,), "stderr"), "\r 90%")
    assert log.text("fit", over=False).splitlines()[-2:] == ["fit │ line 999", "fit │ [2]  90%"]
    html = log.as_html("fit", "nbflow logs f/r/fit", over=True)
    assert "nbflow logs f/r/fit" in html
    assert " open" not in html.split("</summary>")[0].split("<details")[1]


# ---------------------------------------------------------------- cards of tasks

FLOW = [
    "from nbflow import card",
    "%%params\nrate: float = 0.1",
    "%%step load\nxs = [1, 2, 3]\nprint('loaded')",
    (
        "%%step fit --foreach k in [1, 2] --card\nbar = card.append(card.Progress(3, 'epochs'))\n"
        "for epoch in range(3):\n    bar.update(epoch + 1)\ncard.append(object(), id='odd')\n"
        "card['more'].append([{'k': k, 'rate': rate}])\n"
        "score = sum(xs) * k"
    ),
    "%%step pick --join fit\nbest = max(inputs, key=lambda each: each.score).k\nbest",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nbflow.Run:
    """A run whose steps make cards."""
    path = tmp_path_factory.mktemp("cards") / "flow.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in FLOW]  # type: ignore[no-untyped-call]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)  # type: ignore[no-untyped-call]
    found = nbflow.run(path)
    assert found.successful, found.error
    return found


@pytest.mark.running
def test_example(tmp_path: Path) -> None:
    path = tmp_path / "cards.ipynb"
    shutil.copy(EXAMPLES / "cards.ipynb", path)
    run = nbflow.run(path, params={"epochs": 3})
    assert run.successful, run.error
    assert [list(task.cards) for task in run["train"]] == [["", "losses"]] * 3
    assert "data:image/png" in run["compare"].card.html


@pytest.mark.running
def test_cards_of_a_task(run: nbflow.Run) -> None:
    task = run["fit"][1]
    assert list(task.cards) == ["", "more"]
    assert "epochs 3 of 3 (100%)" in task.cards[""].text
    text = task.card.text
    for told in ("epochs", "rate", "xs", "score", "reads from", "fit/1"):
        assert told in text
    assert re.search(r"rate\s+0\.1\s", text)  # as it was given, without what its key holds


@pytest.mark.running
def test_card_of_a_run_gathers_items(run: nbflow.Run) -> None:
    assert run["fit"].card.html.count("3 of 3 (100%)") == 2
    assert "loaded" in run.card.html


@pytest.mark.running
def test_reused_steps_show_their_cards_again(run: nbflow.Run) -> None:
    again = nbflow.run(run.metadata["notebook"])
    assert {task.state for task in again["fit"]} == {"reused"}
    assert list(again["fit"][0].cards) == ["", "more"]


@pytest.mark.running
def test_card_command_writes_one_file(run: nbflow.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "card.html"
    assert app.main(["card", f"flow/{run.id}/fit/0", "-o", str(target), "--store", run.store]) == 0
    assert "epochs" in target.read_text()
    assert app.main(["card", f"flow/{run.id}/pick", "--store", run.store]) == 0
    assert "pick" in capsys.readouterr().out


TEMPLATE = "class Short:\n    def render(self, task):\n        return [task.name, {'state': task.state}]\n"
BROKEN = "\n\nclass Broken:\n    def render(self, task):\n        raise ValueError('oh no')\n"


@pytest.mark.running
def test_templates_plug_in(run: nbflow.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    package = site / "short_cards-1.dist-info"
    package.mkdir(parents=True)
    (site / "short_cards.py").write_text(TEMPLATE + BROKEN)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: short_cards\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[nbflow.cards]\nshort = short_cards:Short\nbroken = short_cards:Broken\n"
    )
    monkeypatch.syspath_prepend(str(site))
    task = run["pick"].task
    assert "pick" in task.card_by("short").text
    assert "oh no" in task.card_by("broken").text
    with pytest.raises(nbflow.OptionError, match="no card named 'shrot'"):
        task.card_by("shrot")
    sys.modules.pop("short_cards", None)
