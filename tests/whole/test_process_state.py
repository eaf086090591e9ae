"""What a step sets in its process is there for the steps below it, in every lane, as it is in the plain notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbflow
from nbflow.flow.notebook import document_of
from tests.support.by_hand import Start
from tests.support.plain import run_plainly

SETTINGS: dict[str, tuple[str, str]] = {
    "locale": ("locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "locale.setlocale(locale.LC_NUMERIC)"),
    "socket timeout": ("socket.setdefaulttimeout(7)", "socket.getdefaulttimeout()"),
    "rights of new files": ("os.umask(0o077)", "[os.umask(0o022), os.umask(0o077)][0]"),
    "digits": ("sys.set_int_max_str_digits(0)", "sys.get_int_max_str_digits()"),
    "switch interval": ("sys.setswitchinterval(0.002)", "sys.getswitchinterval()"),
    "garbage": ("gc.disable()\n    gc.set_threshold(500, 5, 6)", "(gc.isenabled(), gc.get_threshold())"),
    "signal": ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "int(signal.getsignal(signal.SIGUSR1))"),
    "time zone": ("os.environ['TZ'] = 'Asia/Tokyo'\n    time.tzset()", "(time.tzname, time.localtime(0).tm_hour)"),
    "decimal": (
        "c = decimal.getcontext()\n    c.prec, c.capitals, c.Emax, c.traps[decimal.Overflow] = 6, 0, 99, False",
        "(str(decimal.Decimal('1.23456789E+50') * 1), decimal.Decimal(10) ** 100)",
    ),
    "flags": ("decimal.Decimal(1) / decimal.Decimal(3)", "decimal.getcontext().flags[decimal.Inexact]"),
    "logger": (
        "logging.getLogger('exp').setLevel(10)\n    logging.getLogger('off').disabled = True\n    logging.disable(5)",
        "(logging.getLogger('exp').level, logging.getLogger('off').disabled, logging.root.manager.disable)",
    ),
    "filters": ("warnings.simplefilter('error', ImportWarning)", "raises(lambda: warnings.warn('x', ImportWarning))"),
    "scikit-learn": ("sklearn.set_config(assume_finite=True)", "sklearn.get_config()['assume_finite']"),
    "colour map": (
        "mpl.colormaps.register(mpl.colors.ListedColormap(['red', 'blue'], name='mine'))", "mpl.colormaps['mine'].N",
    ),
    "numpy errors": ("np.seterr(divide='raise')", "raises(lambda: np.array([1.0]) / 0)"),
    "dummy symbols": ("sympy.Dummy('t')", "sympy.Dummy('t').dummy_index - first.dummy_index"),
}  # fmt: skip

IMPORTS = "import decimal, gc, locale, logging, os, signal, socket, sys, time, warnings\nimport matplotlib as mpl\n"
IMPORTS += "import numpy as np\nimport sklearn\nimport sympy"
RAISES = "def raises(act):\n    try:\n        act()\n    except Exception:\n        return True\n    return False"


def cells() -> dict[str, str]:
    """Return a notebook in which one function sets everything, a step calls it, and steps below look."""
    setters = {name.replace(" ", "_").replace("-", "_"): each for name, each in SETTINGS.items()}
    made = {"imports": IMPORTS, "raises": RAISES}
    made |= {f"d_{name}": f"def set_{name}():\n    {statements}" for name, (statements, _) in setters.items()}
    made["set"] = "%%step set\n" + "\n".join(f"set_{name}()" for name in setters) + "\nfirst = sympy.Dummy('t')"
    looks = ",\n".join(f"    {name!r}: {look}" for name, (_, look) in setters.items())
    made["read"] = f"%%step read\nfound = {{\n{looks},\n}}\nfirst"
    made["again"] = f"%%step again\nonce_more = {{\n{looks},\n}}\nfirst"
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the plain notebook gives."""
    folder = tmp_path_factory.mktemp("plain")
    path = folder / "state.ipynb"
    path.write_text(document_of(cells().items(), "state"))
    return run_plainly(path, folder / "copy").values


@pytest.mark.notebooks
def test_in_processes(plain: dict[str, object], folder: Path) -> None:
    path = folder / "state.ipynb"
    path.write_text(document_of(cells().items(), "state"))
    for state in ("done", "reused"):
        run = nbflow.run(path)
        assert run.successful, run.error
        assert run.data.found == plain["found"]
        assert run.data.once_more == plain["once_more"]
        assert {step.state for step in run.steps()} == {state}
        assert {step.task.together for step in run.steps()} == {()}, "all of it travels by value"


@pytest.mark.notebooks
def test_by_hand(plain: dict[str, object], start: Start) -> None:
    kernel = start(cells())
    kernel.ok(*cells())
    assert kernel.value("found") == repr(plain["found"])
    kernel.ok("read", "set", "read", "again")
    assert kernel.value("found") == repr(plain["found"])
    assert kernel.value("once_more") == repr(plain["once_more"])


LIVE = {
    "imports": "import json, math, os, random, sqlite3\nimport numpy as np\nfrom json import JSONEncoder\nimport notes",
    "class": "class P:\n    def __init__(self, x):\n        self.x = x",
    "set": "%%step set\nos.environ['LIVE_Z'] = '1'\n"
    "random.random = lambda: 0.5\nmath.extra = 5\nJSONEncoder.default = lambda self, o: sorted(o)\n"
    "sqlite3.register_adapter(P, lambda p: p.x)\nerrors = []\nnp.seterrcall(lambda kind, flag: errors.append(kind))\n"
    "np.seterr(divide='call')\nfirst = notes.push(1), next(notes.ids), notes.count()",
    "read": "%%step read\ncon = sqlite3.connect(':memory:')\nnp.array([1.0]) / 0\nfound = (\n    random.random(),"
    " math.extra, json.dumps({2, 1}),\n    con.execute('select ?', (P(5),)).fetchone()[0], list(errors),\n"
    "    notes.push(2), next(notes.ids), notes.count(), os.environ['LIVE_Z'],\n)\ncon.close()\ndel con",
}  # fmt: skip
"""Handlers, patches and what a module of the notebook's own keeps in a default, a generator and an attribute."""

NOTES = """
def push(x, given=[]):
    given.append(x)
    return list(given)


def numbers():
    yield from range(9)


ids = numbers()


def count():
    count.calls += 1
    return count.calls


count.calls = 0
"""


@pytest.mark.notebooks
def test_what_no_other_process_can_be_given(folder: Path) -> None:
    (folder / "notes.py").write_text(NOTES)
    path = folder / "live.ipynb"
    path.write_text(document_of(LIVE.items(), "live"))
    expected = run_plainly(path, folder / "copy").values
    for state in ("done", "reused"):
        run = nbflow.run(path)
        assert run.successful, run.error
        assert (run.data.first, run.data.found) == (expected["first"], expected["found"])
        assert {step.state for step in run.steps()} == {state}
        assert run["read"].task.together == ("set", "read")


@pytest.mark.running
def test_what_libraries_do_to_themselves_keeps_no_steps_together(folder: Path) -> None:
    cells = {
        "plot": "%%step plot\nimport matplotlib.pyplot as plt\nimport sqlite3\nfig, ax = plt.subplots()\ny = 1",
        "read": "%%step read\nz = y + 1",
    }
    path = folder / "libraries.ipynb"
    path.write_text(document_of(cells.items(), "libraries"))
    for _ in range(2):
        run = nbflow.run(path)
        assert run.successful, run.error
        assert run["read"].task.together == ()
