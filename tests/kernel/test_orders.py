"""Names that share objects, in the orders in which people run cells: each cell shows what the notebook means."""

from __future__ import annotations

import pytest

from tests.support.by_hand import Start
from tests.support.orders import differences

pytestmark = pytest.mark.running

ORDERS: dict[str, tuple[str, dict[str, str]]] = {
    "changed under another name": ("a b c d d c d R d c d F d", {
        "a": "%%step a\nxs = [5]\nprint(xs)",
        "b": "%%step b\nys = xs\nprint(ys)",
        "c": "%%step c\nxs.append(1)\nprint(xs)",
        "d": "%%step d\nprint(ys)\nr = list(ys)",
    }),
    "changed, then bound anew": ("a b c b c R a b c", {
        "a": "%%step a\nxs = [1]; ys = xs\nprint(xs)",
        "b": "%%step b\nxs.append(2); xs = [0]\nprint(xs)",
        "c": "%%step c\nr = list(ys)\nprint(r)",
    }),
    "an array in a dict, and a view": ("top a b c d c d", {
        "top": "import numpy as np",
        "a": "%%step a\nX = np.arange(4)\nhead = X[:2]\nprint(X)",
        "b": "%%step b\nbox = {'X': X}\nprint(box['X'].sum())",
        "c": "%%step c\nX += 1\nhead[0] = 50\nprint(head)",
        "d": "%%step d\nprint(box['X'].tolist(), X.tolist(), head)",
    }),
    "a plain cell between": ("a plain c d F d c d", {
        "a": "%%step a\nxs = [3, 1]\nprint(xs)",
        "plain": "pairs = [xs]",
        "c": "%%step c\nxs.sort()\nk = [1]",
        "d": "%%step d\nprint([list(pair) for pair in pairs])",
    }),
    "a name that only the run binds": ("def a b c b c R def a b c", {
        "def": "total = 0\ndef add(n):\n    global total\n    total += n\nOPS = {'+': add}",
        "a": "%%step a\nOPS['+'](5)\nprint('x')",
        "b": "%%step b\nexec('made = [3]')\nprint('y')",
        "c": "%%step c\nprint(total, made)",
    }),
    "what a class and a default hold": ("make def use see use see R def see F use see", {
        "make": "%%step make\nrows, acc = [], []\nprint(rows)",
        "def": "class Repo:\n    rows = rows\n\ndef push(x, into=acc):\n    into.append(x)\n    return len(into)",
        "use": "%%step use\nRepo.rows.append(1)\nprint(push(2))",
        "see": "%%step see\nprint(rows, acc, Repo.rows)",
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_each_cell_shows_what_the_notebook_means(name: str, start: Start) -> None:
    order, cells = ORDERS[name]
    assert not differences(start, cells, order)
