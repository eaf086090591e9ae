"""Help where one types: what a kernel answers to complete and inspect requests, and what lists the names sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from nbflow.flow.options import OPTIONS, parse_header
from nbflow.kernel import reference
from nbflow.kernel.commands import flow
from tests.support.kernel import Kernel, NotebookFile
from tests.support.places import ROOT

CELLS = {
    "ext": "%load_ext nbflow",
    "params": "%%params\nrate: float = 2.0",
    "load": "%%step load\nimport collections\nrows = collections.Counter('abca')\ntext = 'x' * 2_000_000",
    "scale": "%%step scale\nscaled = len(rows) * rate",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel(NotebookFile(tmp_path_factory.mktemp("help") / "flow.ipynb", CELLS)) as made:
        yield made


def asked(kernel: Kernel, request: str, code: str) -> dict[str, Any]:
    """The kernel's answer about the place of `|` in some code."""
    at = code.index("|")
    sent = getattr(kernel.client, request)(code.replace("|", ""), at)
    replies = iter(lambda: kernel.client.get_shell_msg(timeout=20), None)
    return dict(next(m["content"] for m in replies if m["parent_header"].get("msg_id") == sent))


def offered(kernel: Kernel, code: str) -> list[str]:
    return list(asked(kernel, "complete", code)["matches"])


def told(kernel: Kernel, code: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", asked(kernel, "inspect", code)["data"].get("text/plain", ""))


@pytest.mark.running
@pytest.mark.parametrize(
    ("code", "found", "left_out"),
    [
        ("%%step train --re|", {"--retry", "--retry-on"}, "--card"),
        ("# why\n%%step train --retry 2 --|\nx = 1", {"--timeout", "--card"}, "--retry"),
        ("%%step train --after lo|", {"load"}, "scale"),
        ("%%step train --on r|", {"ray://"}, "local"),
        ("%flow r|", {"run", "runs", "resume"}, "why"),
        ("%flow run |", {"load", "scale", "rate="}, "params"),
        ("%flow run --fr|", {"--fresh"}, "--on"),
        ("%flow why s|", {"scale"}, "load"),
        ("%flow help ga|", set(), "run"),
    ],
)
def test_words_are_completed(kernel: Kernel, code: str, found: set[str], left_out: str) -> None:
    words = offered(kernel, code)
    assert found <= set(words)
    assert left_out not in words


@pytest.mark.running
def test_what_a_run_has_left_is_there(kernel: Kernel) -> None:
    assert kernel.execute("%flow run", "run").status == "ok"
    assert "text" in offered(kernel, "te|")
    assert "a cell that reads it loads it" in told(kernel, "text|")
    listed = kernel.execute("%who").text
    assert {"rows", "scaled", "text"} <= set(listed.split())
    assert "rows.most_common" in {
        f"rows.{one.removeprefix('rows.').lstrip('.')}" for one in offered(kernel, "rows.most|")
    }
    assert "Counter" in told(kernel, "rows|")
    runs = offered(kernel, "%flow show 2|")
    assert len(runs) == 1
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{9}", runs[0])


@pytest.mark.running
def test_questions_are_answered(kernel: Kernel) -> None:
    assert "Attempts after one that failed." in told(kernel, "%%step train --ret|ry 2\nx = 1")
    assert "--foreach TARGET in EXPR" in told(kernel, "%%st|ep train\nx = 1")
    assert "Run a notebook" in told(kernel, "%flow ru|n")
    for line in ("%flow help run", "%flow run?", "%flow run --help"):
        assert "--background" in kernel.execute(line).text, line
    assert "%flow resume [RUN]" in kernel.execute("%flow help").text
    pages = kernel.execute("%%step?").reply["payload"]
    assert "--foreach TARGET in EXPR" in pages[0]["data"]["text/plain"]


def test_the_page_of_options_is_made_from_the_tables() -> None:
    assert (ROOT / "docs" / "options.md").read_text() == reference.options_page()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_example_of_an_option_can_be_read(name: str) -> None:
    _, options = parse_header(f"train {OPTIONS[name].example}")
    assert getattr(options, OPTIONS[name].field) is not None
    assert OPTIONS[name].help.endswith(".")


def test_each_verb_has_an_example_of_its_own() -> None:
    assert set(reference.EXAMPLES) == set(flow.commands)
    for verb, line in reference.EXAMPLES.items():
        words = line.removeprefix("%flow ").split()
        assert words[0] == verb
        flow.commands[verb].make_context(verb, words[1:])
