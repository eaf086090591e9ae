"""Reuse that sees everything: a notebook run, run again, and run after each change of what its cells look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.nursery import Nursery
from tests.support.staged import Staged, flow_values, plain_values, run_flow

pytestmark = pytest.mark.notebooks

STAGED: dict[str, Staged] = {
    # ---- links on the way to what is read, and what they point to
    "folder behind a link": Staged(
        ("import pandas as pd\ndf = pd.read_csv('current/data.csv')", "s = int(df['x'].sum())"), "s",
        (lambda p: p.link("current", "v2"),),
        {"v1/data.csv": "x\n1\n", "v2/data.csv": "x\n100\n"}, {"current": "v1"},
    ),
    "module behind a link": Staged(
        ("import settings\nv = [settings.V]",), "v", (lambda p: p.link("settings.py", "s2.py"),),
        {"s1.py": "V = 1\n", "s2.py": "V = 2222\n"}, {"settings.py": "s1.py"},
    ),
    "package behind a link": Staged(
        ("import app.conf\nv = [app.conf.V]",), "v", (lambda p: p.link("app", "app2"),),
        {"app1/__init__.py": "", "app1/conf.py": "V = 1\n", "app2/__init__.py": "", "app2/conf.py": "V = 2222\n"},
        {"app": "app1"},
    ),
    "where a link leads": Staged(
        ("from pathlib import Path\nt = Path('latest.txt').resolve().name",), "t",
        (lambda p: p.link("latest.txt", "b.txt"),), {"a.txt": "aaa", "b.txt": "aaa"}, {"latest.txt": "a.txt"},
    ),
    "what a link says": Staged(
        ("import os\nt = os.readlink('latest.txt')",), "t",
        (lambda p: p.link("latest.txt", "b.txt"),), {"a.txt": "aaa", "b.txt": "aaa"}, {"latest.txt": "a.txt"},
    ),
    "file outside, behind a link": Staged(
        ("r = open('link.txt').read()",), "r",
        (lambda p: (p.outside / "data.txt").write_text("changed"),), links={"link.txt": "../outside/data.txt"},
    ),
    # ---- what was looked for
    "optional module": Staged(
        (
            "try:\n    import fastlib\n    mode = fastlib.NAME\nexcept ImportError:\n    mode = 'slow'",
            "r = mode.upper()",
        ), "mode r", (lambda p: p.write("fastlib.py", "NAME = 'fast'\n"),),
    ),
    "module asked for": Staged(
        ("import importlib.util\nthere = importlib.util.find_spec('fastlib') is not None",), "there",
        (lambda p: p.write("fastlib.py", ""), lambda p: (p.folder / "fastlib.py").unlink()),
    ),
    "package before a module": Staged(
        ("import nspk.mod as m\nr = [m.V]",), "r",
        (lambda p: p.write("nspk/mod/__init__.py", "V = 99\n"),), {"nspk/mod.py": "V = 1\n"},
    ),
    "link or nothing": Staged(
        ("import os\nr = os.path.lexists('opt.txt')",), "r", (lambda p: p.write("opt.txt", ""),),
    ),
    "sizes in a folder": Staged(
        ("import os\nos.makedirs('data', exist_ok=True)", "total = sum(e.stat().st_size for e in os.scandir('data'))"),
        "total", (lambda p: p.write("data/a.txt", "1234567890"),), {"data/a.txt": "12345"},
    ),
    "time of a file": Staged(
        ("import os\nfrom pathlib import Path\ntext = Path('a.txt').read_text()",
         "t = os.path.getmtime('a.txt'), Path('b.txt').stat().st_mtime_ns"), "t",
        (lambda p: os.utime(p.folder / "a.txt", (1, 5)), lambda p: os.utime(p.folder / "b.txt", (1, 5))),
        {"a.txt": "1", "b.txt": "1"},
    ),
    "permission": Staged(
        ("import os\nr = os.access('run.sh', os.X_OK)",), "r", (lambda p: (p.folder / "run.sh").chmod(0o755),),
        {"run.sh": "true\n"},
    ),
    "folder read by compiled code": Staged(
        ("import pyarrow.dataset as ds\nd = ds.dataset('data', format='csv')", "r = d.to_table()['x'].to_pylist()"),
        "r", (lambda p: p.write("data/x.csv", "x\n90\n"), lambda p: p.write("data/y.csv", "x\n7\n")),
        {"data/x.csv": "x\n1\n"},
    ),
    "lazy frame": Staged(
        ("import polars as pl\nlf = pl.scan_csv('data/*.csv')", "r = lf.collect()['x'].to_list()"), "r",
        (lambda p: p.write("data/x.csv", "x\n90\n"), lambda p: p.write("data/y.csv", "x\n7\n")),
        {"data/x.csv": "x\n1\n"},
    ),
    "counter in a file": Staged(
        (
            "import os\nn = int(open('n').read()) + 1 if os.path.exists('n') else 0\nopen('n', 'w').write(str(n))",
            "r = n * 10",
        ), "n r", again="",
    ),
    # ---- variables
    "comprehension over the environment": Staged(
        ("import os\ncfg = {k: v for k, v in os.environ.items() if k.startswith('STAGED_')}",), "cfg",
        (lambda p: p.set("STAGED_X", "1"), lambda p: p.set("STAGED_X", "2"), lambda p: p.set("STAGED_X", None)),
    ),
    "copy of the environment": Staged(
        ("import os\nenv = dict(os.environ)\nr = env.get('STAGED_A', 'none')\ndel env",), "r",
        (lambda p: p.set("STAGED_A", "x"),),
    ),
    "copy method": Staged(
        ("import os\nr = os.environ.copy().get('STAGED_A', 'none')",), "r", (lambda p: p.set("STAGED_A", "x"),),
    ),
    "format": Staged(
        ("import os\nr = '{STAGED_B}'.format(**os.environ)",), "r", (lambda p: p.set("STAGED_B", "x"),),
        variables={"STAGED_B": "0"},
    ),
    "template": Staged(
        ("import os, string\nr = string.Template('$STAGED_B').substitute(os.environ)",), "r",
        (lambda p: p.set("STAGED_B", "x"),), variables={"STAGED_B": "0"},
    ),
    "environment in bytes": Staged(
        ("import os\nr = os.environb.get(b'STAGED_B').decode()",), "r", (lambda p: p.set("STAGED_B", "x"),),
        variables={"STAGED_B": "0"},
    ),
    "names of variables": Staged(
        ("import os\nr = [k for k in os.environ if k.startswith('STAGED_')]",), "r",
        (lambda p: p.set("STAGED_X", "1"),),
    ),
    "text of the environment": Staged(
        ("import os\nr = 'STAGED_X' in str(os.environ), 'STAGED_X' in (os.environ | {})",), "r",
        (lambda p: p.set("STAGED_X", "1"),),
    ),
    "variables in a path": Staged(
        ("import os\nr = os.path.expandvars('$STAGED_B/x')",), "r", (lambda p: p.set("STAGED_B", "x"),),
        variables={"STAGED_B": "0"},
    ),
    "home": Staged(
        ("from pathlib import Path\nr = str(Path.home())",), "r", (lambda p: p.set("HOME", str(p.outside)),),
        variables={"HOME": os.environ.get("HOME", "/")},
    ),
    "time zone": Staged(
        ("import time\nr = time.localtime(0).tm_hour",), "r", (lambda p: p.set("TZ", "Asia/Tokyo"),),
        variables={"TZ": "UTC"},
    ),
    "variable set above and read as a whole": Staged(
        ("import os\nos.environ['STAGED_Y'] = 'a'", "r = sorted(v for k, v in os.environ.items() if 'STAGED' in k)"),
        "r", (lambda p: p.set("STAGED_X", "1"), lambda p: p.edit(0, "'a'", "'b'")),
    ),
    # ---- code
    "set-up and a default": Staged(
        ("import os", "os.environ['MODE_T'] = 'a'", "def f(mode=os.environ.get('MODE_T')): return mode", "out = f()"),
        "out", (lambda p: p.swap(1, 2),),
    ),
    "set-up and a class": Staged(
        ("import decimal", "decimal.getcontext().prec = 5",
         "class A:\n    x = decimal.Decimal(1) / decimal.Decimal(3)", "out = str(A.x)"), "out",
        (lambda p: p.swap(1, 2),),
    ),
    "white space of a docstring": Staged(
        ('def f():\n    """a\n       b"""', "r = f.__doc__"), "r", (lambda p: p.edit(0, "       b", "    b"),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_every_stage_is_what_a_plain_kernel_gives(
    name: str, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = STAGED[name]
    for variable in ("STAGED_A", "STAGED_B", "STAGED_X", "STAGED_Y", "MODE_T", "TZ", "HOME"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))  # put back after the test
        if variable not in staged.variables and variable != "HOME":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NBFLOW_STORE", raising=False)
    names = staged.names.split()
    project = staged.make(tmp_path / "project")

    def stage() -> tuple[dict[str, str], dict[str, str], set[str]]:
        plain = plain_values(project, names, tmp_path / "plain", nursery)
        run = run_flow(project)
        return plain, flow_values(run, names), {step.state for step in run.steps()}

    first, flow, _ = stage()
    assert flow == first, "first"
    plain, flow, states = stage()
    assert flow == plain, "again"
    if staged.again:
        assert plain == first
        assert states == {staged.again}
    for number, edit in enumerate(staged.edits):
        before = plain
        edit(project)
        plain, flow, _ = stage()
        assert plain != before, f"edit {number} changes nothing"
        assert flow == plain, f"edit {number}"
