"""Which files below the notebook's folder a step is known to read, and which it has looked for in vain."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nbflow.engine.known_files import beyond, known_files, missing_files, withheld_files
from nbflow.flow.graph import build_flow
from nbflow.model import Cell, Notebook, Observations, StepOptions
from nbflow.task.observe.environment import file_id, folder_id

BESIDE = (
    "a.csv",
    "data/b.csv",
    "data/c.csv",
    "tools.py",
    "words.py",
    "kit/__init__.py",
    "kit/part.py",
    "x y.txt",
    "n.md",
    ".env",
    "my.pem",
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in BESIDE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("import words\n" if name == "tools.py" else "")
    (tmp_path / "kit" / "__pycache__").mkdir()
    (tmp_path / "kit" / "__pycache__" / "part.pyc").touch()
    return str(tmp_path)


NAMED = {
    "a name": ("open('a.csv')", {"a.csv"}),
    "in parts": ("Path('data') / 'b.csv'; Path('data', 'c.csv')", {"data/b.csv", "data/c.csv"}),
    "for anybody": ("anything('x y.txt')", {"x y.txt"}),
    "no file": ("open('d.csv'); open('data'); print('a.csv\\n')", set()),
    "a module, and what that imports": ("import tools", {"tools.py", "words.py"}),
    "a package": ("from kit.part import x", {"kit/__init__.py", "kit/part.py"}),
    "beyond": ("open('/etc/passwd'); open('../a.csv')", set()),
    "with a line for IPython": ("%matplotlib inline\nopen('a.csv')", {"a.csv"}),
    "a parameter": ("open(source)", {"n.md"}),
    "what holds secrets": ("open('.env'); open('my.pem')", set()),
    "another parameter": ("open(other)", set()),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_a_text_names(case: str, folder: str) -> None:
    source, files = NAMED[case]
    assert {*known_files(folder, [source], {"source": "n.md", "far": "a.csv", "number": 3}, [])} == files


def test_what_was_seen_before(folder: str) -> None:
    seen = Observations(
        files={"a.csv": "b3:1", "gone.csv": "b3:2", "/etc/passwd": "b3:3", "data/": "b3:4"}, written={"n.md": "+b3:5"},
        imports={"tools": "tools.py", "numpy": "installed"},
    )  # fmt: skip
    found = known_files(folder, ["x = 1"], {}, [seen])
    assert {*found} == {"a.csv", "data/b.csv", "data/c.csv", "n.md", "tools.py", "words.py"}


MISSING = {
    "opened": (Observations(files={"a.csv": ""}), {"a.csv"}),
    "nowhere": (Observations(files={"nowhere.csv": ""}), set()),
    "sent already": (Observations(files={"x y.txt": ""}), set()),
    "made by itself": (Observations(files={"a.csv": ""}, written={"a.csv": "b3:1"}), set()),
    "looked through": (Observations(files={"data/": ""}), {"data/b.csv", "data/c.csv"}),
    "asked whether a folder is there": (Observations(files={"data": ""}), {"data/b.csv", "data/c.csv"}),
    "the notebook's own folder": (Observations(files={"./": "b3:1"}), set()),
    "a module": (Observations(imports={"tools": ""}), {"tools.py", "words.py"}),
    "asked for permission": (Observations(looks={"access4 a.csv": "False"}), {"a.csv"}),
    "whole": (Observations(files={"a.csv": "b3:1"}, imports={"numpy": "installed"}), set()),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_was_looked_for_in_vain(case: str, folder: str) -> None:
    seen, files = MISSING[case]
    assert {*missing_files(folder, seen, ["x y.txt"])} == files


def test_files_with_secrets_are_not_sent(folder: str) -> None:
    seen = Observations(files={".env": "", "my.pem": "", ".env.test": "", "a.csv": ""})
    assert missing_files(folder, seen, []) == ("a.csv",)
    assert withheld_files(folder, seen) == (".env", "my.pem")
    assert known_files(folder, [], {}, [Observations(files={".env": "b3:1", "./": "b3:2"})]) == ()


def test_a_folder_that_was_seen_as_it_is_lacks_nothing(folder: str) -> None:
    seen = Observations(files={"data/": folder_id(f"{folder}/data"), "a.csv": file_id(f"{folder}/a.csv")})
    assert missing_files(folder, seen, []) == ()


def test_paths_beyond_the_folder_are_named(folder: str) -> None:
    source = "open('a.csv'); open('data/b.csv'); open('/etc/passwd'); open('/dev/null'); open('/nowhere/x')"
    cell = Cell(id="c", position=1, source=source, kind="step", name="s", options=StepOptions(), body=source)
    flow = build_flow(Notebook(name="n", folder=folder, path=None, cells=(cell,)))
    (finding,) = beyond(flow, flow.steps, "ssh://box")
    assert (finding.code, finding.step) == ("file-elsewhere", "s")
    assert finding.message.startswith("s names /etc/passwd, which")
    assert beyond(msgspec.structs.replace(flow, steps=()), (), "ssh://box") == []
