"""What every task replays: imports, `%%setup`, the table of calls, registrations; any other call is made once."""

from __future__ import annotations

import pytest

from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow


def flow_of(*sources: str) -> Flow:
    return build_flow(parse_cells([RawCell(f"c{at}", text) for at, text in enumerate(sources)], name="n", folder="."))


REPLAYED = {
    "a call of the table": ("import matplotlib.pyplot as plt", "plt.style.use('ggplot')"),
    "a part of a library": ("import jax", "jax.config.update('jax_enable_x64', True)"),
    "on what a call gives": ("import tensorflow as tf", "tf.get_logger().setLevel('ERROR')"),
    "imported by name": ("from tqdm.auto import tqdm", "tqdm.pandas()"),
    "logging": ("import logging", "logging.basicConfig(level=20)"),
    "a condition": ("import torch", "if True:\n    torch.set_default_device('cpu')"),
    "an attribute of a module": ("import tools", "tools.RATE = 3"),
    "a table of a module": ("import tools", "tools.RATES['a'] = [1, 2]"),
    "a constant that is made": ("import tools, pathlib", "tools.PLACE = pathlib.Path('a')"),
    "a function": ("import tools\ndef f(): return 1", "tools.f = f"),
    "a lambda": ("import tools", "tools.now = lambda: tools.clock()"),
    "a class joins a library's": ("from collections.abc import Sized\nclass B: pass", "Sized.register(B)"),
    "an accessor": (
        "import pandas as pd",
        "@pd.api.extensions.register_dataframe_accessor('geo')\nclass Geo:\n    pass",
    ),
    "a magic": ("1", "%matplotlib inline"),
}
ONCE = {
    "a call": ("import shop", "shop.pay(10)"),
    "named like a setting": ("import shop", "shop.configure(10)"),
    "in a part called config": ("import shop", "shop.config.pay(10)"),
    "a seed of a library": ("from shop import set_seed", "set_seed(42)"),
    "a registration": ("import shop", "shop.register('x')"),
    "a start": ("import shop", "shop.init_db()"),
    "an attribute that a call makes": ("import shop", "shop.total = shop.pay(10)"),
    "the same, of the notebook's own": ("import shop\ndef pay(): shop.pay(10)", "shop.total = pay()"),
    "in a list": ("import shop", "shop.totals = [shop.pay(10), 2]"),
    "in a condition": ("import shop", "if True:\n    shop.setup()"),
    "a message": ("import logging", "logging.warning('x')"),
    "with data": ("import shop\nxs = [1]\nxs.append(2)", "shop.register(xs)"),
}


CARRIED = {
    "a variable": ("import os", "os.environ['A'] = '1'"),
    "the path": ("import sys", "sys.path.append('src')"),
    "the locale": ("import locale", "locale.setlocale(locale.LC_ALL, 'C')"),
    "rights of files": ("import os", "os.umask(0o22)"),
    "a timeout": ("import socket", "socket.setdefaulttimeout(3)"),
    "garbage": ("import gc", "gc.disable()"),
    "digits": ("import sys", "sys.set_int_max_str_digits(0)"),
    "a library's options": ("import sklearn", "sklearn.set_config(display='text')"),
    "a colour map": ("import matplotlib as mpl\ncmap = make()", "mpl.colormaps.register(cmap, name='own')"),
}


@pytest.mark.parametrize("kind", ["plain", "step"])
@pytest.mark.parametrize("what", CARRIED)
def test_this_travels_by_value_and_is_not_replayed(what: str, kind: str) -> None:
    above, statement = CARRIED[what]
    head = "%%step sets\n" if kind == "step" else ""
    flow = flow_of(above, f"{head}{statement}", "%%step below\nz = 1")
    (below,) = (step for step in flow.steps if step.name == "below")
    assert statement not in "\n".join(flow.definitions[order].source for order in below.definitions)
    assert "<process>" in below.reads


@pytest.mark.parametrize("kind", ["plain", "step"])
@pytest.mark.parametrize("what", REPLAYED)
def test_this_is_replayed_in_every_step_below(what: str, kind: str) -> None:
    above, statement = REPLAYED[what]
    head = "%%step sets\n" if kind == "step" else ""
    flow = flow_of(above, f"{head}{statement}", "%%step below\nz = 1")
    (below,) = (step for step in flow.steps if step.name == "below")
    assert statement.split("\n")[-1] in "\n".join(flow.definitions[order].source for order in below.definitions)
    assert not [finding for finding in flow.findings if finding.code == "set-once"]


@pytest.mark.parametrize("kind", ["plain", "step"])
@pytest.mark.parametrize("what", ONCE)
def test_this_is_executed_once(what: str, kind: str) -> None:
    above, statement = ONCE[what]
    head = "%%step acts\n" if kind == "step" else ""
    flow = flow_of(above, f"{head}{statement}\ny = 1", "%%step below\nz = 1")
    (below,) = (step for step in flow.steps if step.name == "below")
    assert statement.split("\n")[-1] not in "\n".join(flow.definitions[order].source for order in below.definitions)
    assert ("acts" if kind == "step" else "cell:c1") in [step.name for step in flow.steps] or "logging" in above


@pytest.mark.parametrize(
    ("statement", "below", "said"),
    [
        ("shop.configure(1)", "%%step b\nz = shop.sum()", True),
        ("shop.total = shop.pay(10)", "%%step b\nz = shop.sum()", True),
        ("shop.configure(1)", "%%step b\nz = 1", False),
        ("shop.pay(10)", "%%step b\nz = shop.sum()", False),
        ("shop.seed_everything(10)", "%%step b\nz = shop.sum()", False),
        ("logging.basicConfig()", "%%step b\nlogging.info(1)\nz = 1", False),
    ],
)
def test_what_is_set_in_one_process_alone_is_said(statement: str, below: str, said: bool) -> None:
    flow = flow_of("import shop, logging", f"%%step a\ny = 1\n{statement}", below)
    findings = [finding for finding in flow.findings if finding.code == "set-once"]
    assert [(f.step, f.cell, f.line) for f in findings] == ([("a", "c1", 3)] if said else [])
    assert all(statement in f.message and "%%setup" in (f.fix or "") for f in findings)


HANDED = {
    "a method of an object": ("app = App()", "@app.route('/a')\ndef a(): return 1", "app"),
    "an object": ("hooks = Hooks()", "@hooks\ndef a(): return 1", "hooks"),
    "a function that counts": (
        "count = 0\ndef deco(fn):\n    global count\n    count += 1\n    return fn",
        "@deco\ndef a(): return 1",
        "count",
    ),
}


@pytest.mark.parametrize("how", HANDED)
def test_a_function_that_is_handed_to_an_object_is_made_once(how: str) -> None:
    """It is data: what has got hold of it keeps it, and a definition would be made anew in every step."""
    above, statement, keeper = HANDED[how]
    flow = flow_of("from tools import App, Hooks", above, statement, f"%%step uses\nr = a(), {keeper}")
    makes = next(step for step in flow.steps if step.name == "cell:c2")
    assert {"a", keeper} <= {*makes.writes}
    (uses,) = (step for step in flow.steps if step.name == "uses")
    assert {binding.name: [source.step for source in binding.sources][:1] for binding in uses.bindings} == {
        "a": ["cell:c2"], keeper: ["cell:c2"],
    }  # fmt: skip


@pytest.mark.parametrize("decorator", ["njit", "tools.cached(3)", "timed", "show.register"])
def test_other_decorators_leave_a_definition(decorator: str) -> None:
    flow = flow_of(
        "from numba import njit\nfrom functools import singledispatch\nimport tools",
        "def timed(fn): return fn\n@singledispatch\ndef show(x): return 1",
        f"@{decorator}\ndef a(x: int): return 1",
        "%%step uses\nr = a(1)",
    )
    assert [step.name for step in flow.steps] == ["uses"]
