"""What star imports bring: read from a text, or asked of the module in a process, once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nbflow.analysis.result import Pairs
from nbflow.flow.notebook import document_of, parse_document
from nbflow.store import star_imports
from nbflow.store.star_imports import with_stars


def known(folder: Path, *cells: str) -> dict[str, Pairs]:
    """Return what is known of the star imports of a notebook in a folder."""
    document = document_of([(f"c{at}", source) for at, source in enumerate(cells)], "demo")
    notebook = parse_document(document, name="demo", folder=str(folder), path=None)
    return {star.module: star.pairs for star in with_stars(notebook).stars}


def test_modules_beside_the_notebook_are_read(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("from .inner import *\nfrom . import inner as part\n_own = 1\n")
    (tmp_path / "pack/inner.py").write_text(
        "__all__ = ('a', '_b')\nimport sys\na = _b = c = 1\nsys.exit('it was run')\n"
    )
    (tmp_path / "flat.py").write_text(
        "import numpy as np\nfrom os import path\nif path:\n    LIMIT = 1\nclass K: pass\n"
    )
    assert known(tmp_path, "from pack import *\nfrom pack.inner import *", "x = 1; from flat import *") == {
        "pack": (("a", "pack.inner.a"), ("part", "pack.inner")),
        "pack.inner": (("_b", "pack.inner._b"), ("a", "pack.inner.a")),
        "flat": (("K", "flat.K"), ("LIMIT", "flat.LIMIT"), ("np", "numpy"), ("path", "os.path")),
    }


@pytest.mark.parametrize(
    "text",
    [
        "globals()['x' + y] = 1",
        "__all__ = ['x'] + names",
        "from not_installed_here import *",
        "x = (",
        "from one import *",
    ],
)
def test_a_text_that_does_not_say_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(text)
    assert known(tmp_path, "from one import *") == {}


def test_modules_that_cells_write(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("stale = 1")
    write = "%%writefile one.py\nfresh = 1"
    assert known(tmp_path, write, "%%writefile -a one.py\nmore = 2", "from one import *") == {
        "one": (("fresh", "one.fresh"), ("more", "one.more"))
    }
    assert known(tmp_path, write, "open('one.py', 'a').write(text)", "from one import *") == {}
    assert known(tmp_path, "open('two.py', 'w').write(text)", "from two import *") == {}
    assert known(tmp_path, "from .one import *", "from not_installed_here import *") == {}


@pytest.mark.running
def test_an_installed_module_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site"
    place.mkdir()
    module = place / "stars_installed.py"
    log = tmp_path / "imported"
    module.write_text(
        "import collections.abc as parts\nfrom pathlib import Path\nfrom functools import partial\n"
        f"with Path({str(log)!r}).open('a') as file:\n    file.write('x')\n"
        "globals()['computed'] = 1\ndef own(): pass\ndel file\n"
    )
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(place)
    expected = (
        ("Path", "pathlib.Path"), ("computed", "stars_installed.computed"), ("own", "stars_installed.own"),
        ("partial", "functools.partial"), ("parts", "collections.abc"),
    )  # fmt: skip
    for _ in range(2):
        assert known(tmp_path, "from stars_installed import *") == {"stars_installed": expected}
    assert log.read_text() == "x"
    assert "stars_installed" not in sys.modules
    module.write_text("other = 2\n")
    assert known(tmp_path, "from stars_installed import *") == {
        "stars_installed": (("other", "stars_installed.other"),)
    }


@pytest.mark.running
def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site"
    place.mkdir()
    module = place / "stars_broken.py"
    log = tmp_path / "imported"
    module.write_text(f"open({str(log)!r}, 'a').write('x')\nraise SystemExit(3)\n")
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(place)
    for _ in range(2):
        assert known(tmp_path, "from stars_broken import *") == {}
    assert log.read_text() == "x"
    slow = place / "stars_slow.py"
    slow.write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setattr(star_imports, "PATIENCE", 0.3)
    assert known(tmp_path, "from stars_slow import *") == {}
