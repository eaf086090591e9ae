"""Kinds of plain cells between two steps that change what the second one reads, or may, or do not.

Of each: a step that makes something, plain cells, an expression that a step below looks at it with. A name that ends
in `_` is the kind's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SHARED = (
    "import contextlib\nimport functools\nimport os\nimport random\nfrom pathlib import Path",
    "import numpy as np\nimport pandas as pd\nimport matplotlib.pyplot as plt",
    (
        "class Basket:\n"
        "    def __init__(self):\n        self.things = []\n\n"
        "    def put(self, thing):\n        self.things.append(thing)\n        return len(self.things)\n\n"
        "    def __enter__(self):\n        self.things.append('in')\n        return self\n\n"
        "    def __exit__(self, *_):\n        self.things.append('out')"
    ),
    "def take_last(row):\n    return row.pop()",
    "def both(one, other):\n    return [one, other]",
    "def look(row):\n    print(len(row), row)",
    "def configure():\n    os.environ['NBFLOW_TEST_KIND'] = 'yes'\n    return 'yes'",
)


@dataclass(frozen=True)
class Kind:
    """One kind of plain cell; `joins` is why it, or the last of several, is part of the flow: None where it is not."""

    name: str
    made: str
    plain: tuple[str, ...]
    seen: str
    joins: str | None = "possible"


def kind(name: str, made: str, *plain: str, seen: str = "list(row_)", joins: str | None = "possible") -> Kind:
    """Return a kind whose step makes `row_`."""
    return Kind(name, made, plain, seen, joins)


ROW = "row_ = [3, 1, 2]"
NUMBERS = "row_ = np.arange(6.0)"
FRAME = "row_ = pd.DataFrame({'a': [3, 1, 2], 'b': [4.0, None, 6.0]})"
COLUMNS = "{name: [str(x) for x in row_[name]] for name in row_}"

KINDS = (
    kind("the last is taken and kept", ROW, "last_ = row_.pop()"),
    kind("it is taken in a condition", ROW, "if row_.pop() > 5:\n    print('large')"),
    kind("it is taken in what is printed", ROW, "print(row_.pop(), 'was the last')"),
    kind("it is taken in text that is made", ROW, "label_ = f'{row_.pop()} of them'"),
    kind("it is taken in an assertion", ROW, "assert row_.pop() == 2"),
    kind("it is taken below a with", ROW, "with contextlib.suppress(IndexError):\n    first_ = row_.pop(0)"),
    kind("it is taken after an error is caught",
         ROW, "try:\n    1 / 0\nexcept ZeroDivisionError:\n    got_ = row_.pop()"),
    kind("it is taken while a list is made", ROW, "got_ = [row_.pop() for _ in range(2)]"),
    kind("it is taken by a lambda", ROW, "take_ = lambda: row_.pop()\ngot_ = take_()"),
    kind("it is taken while a loop runs", ROW, "while len(row_) > 1:\n    got_ = row_.pop()"),
    kind("a function of the notebook takes it", ROW, "got_ = take_last(row_)"),
    kind("a function that knows it by name", ROW, "def grab_():\n    return row_.pop()", "got_ = grab_()"),
    kind("another name for it", ROW, "same_ = row_\nsame_ += [9]"),
    kind("another name, two cells apart", ROW, "same_ = row_", "got_ = same_.pop()"),
    kind("another name in a tuple", ROW, "same_, n_ = row_, 1\nsame_[0] = 7"),
    kind("a name that a condition chose", ROW, "pick_ = row_ if len('ab') else []\npick_.append(5)"),
    kind("a list of lists", "row_ = [1]\nrow2_ = [2]", "for each_ in (row_, row2_):\n    each_ += [0]",
         seen="row_ + row2_", joins=""),
    kind("what a function put together",
         "row_ = [1]\nrow2_ = [2]", "pair_ = both(row_, row2_)", "got_ = pair_[0].pop()"),
    kind("a comprehension for its effect", ROW, "[each.append(8) for each in (row_,)]", joins=""),
    kind("a method discarded on another name", ROW, "same_ = row_\nsame_.append(4)"),
    kind("a bound method", ROW, "put_ = row_.append", "done_ = put_(6)"),
    kind("partial of a function", ROW, "grab_ = functools.partial(take_last, row_)", "got_ = grab_()"),
    kind("the default that a dict keeps", "row_ = {}", "inner_ = row_.setdefault('a', [])\ninner_.append(1)",
         seen="{k: list(v) for k, v in row_.items()}"),
    kind("the same, two cells apart", "row_ = {}", "inner_ = row_.setdefault('a', [])", "got_ = inner_.append(1)",
         seen="{k: list(v) for k, v in row_.items()}"),
    kind("a dict that is taken apart", "row_ = {'a': 1, 'b': 2}", "pair_ = row_.popitem()", seen="dict(row_)"),
    kind("the next of an iterator", "row_ = iter([1, 2, 3])", "first_ = next(row_)"),
    kind("an iterator that is summed up", "row_ = iter([1, 2, 3])", "total_ = sum(row_)"),
    kind("an iterator that a loop leaves early", "row_ = iter([1, 2, 3])", "for one_ in row_:\n    break"),
    kind("an iterator that is taken apart", "row_ = iter([1, 2])", "one_, two_ = row_"),
    kind("an iterator in which something is sought", "row_ = iter([1, 2, 3])", "there_ = 2 in row_"),
    kind("a view of an array", NUMBERS, "view_ = row_[:2]\nview_[:] = 7", seen="row_.tolist()"),
    kind("a view, two cells apart", NUMBERS, "view_ = row_.reshape(2, 3)", "view_[0] = 5", seen="row_.tolist()",
        ),
    kind("an array that is filled", NUMBERS, "done_ = row_.fill(2)", seen="row_.tolist()"),
    kind("an array that is given as out", NUMBERS, "sum_ = np.add(row_, 1, out=row_)", seen="row_.tolist()", joins=""),
    kind("another name for a frame", FRAME, "same_ = row_\nsame_['c'] = 1", seen=COLUMNS),
    kind("frames in a list", FRAME, "frames_ = [row_]\nfor frame_ in frames_:\n    frame_['d'] = frame_['a'] * 2",
         seen=COLUMNS),
    kind("a frame without a column", FRAME, "gone_ = row_.pop('b')", seen=COLUMNS),
    kind("a fitted model that is given back",
         "from sklearn.linear_model import LinearRegression\nrow_ = LinearRegression()",
         "X_ = np.arange(4.0).reshape(-1, 1)\nfitted_ = row_.fit(X_, X_[:, 0])",
         seen="[round(float(row_.predict([[5.0]])[0]), 6)]"),
    kind("a generator that draws", "row_ = np.random.default_rng(3)", "noise_ = row_.normal()",
         seen="[float(row_.normal())]", joins=""),
    kind("a generator of the standard library", "row_ = random.Random(3)", "noise_ = row_.random()",
         seen="[row_.random()]", joins=""),
    kind("axes of a figure", "row_, axes_ = plt.subplots()\nplt.close(row_)", "ax_ = axes_\nax_.set_title('high')",
         seen="[row_.axes[0].get_title()]"),
    kind("an object's method that gives something back", "row_ = Basket()", "n_ = row_.put('apple')",
         seen="list(row_.things)"),
    kind("a method that only sounds harmless",
         "class Pile_(Basket):\n    def head(self):\n        return self.things.pop()\nrow_ = Pile_()\nrow_.put(1)",
         "n_ = row_.head()",
         seen="list(row_.things)"),
    kind("an object that a with enters", "row_ = Basket()", "with row_ as inside_:\n    pass",
         seen="list(row_.things)"),
    kind("a part of an object", "row_ = Basket()", "things_ = row_.things", "got_ = things_.append(1)",
         seen="list(row_.things)"),
    kind("a class's own list", "row_ = Basket()\nBasket.all_ = []", "kept_ = Basket.all_\nn_ = kept_.append(1)",
         seen="list(Basket.all_)"),
    kind("a copy that shares what it holds", "row_ = [[1], [2]]", "other_ = row_.copy()\ngot_ = other_[0].pop()",
         seen="[list(each) for each in row_]"),
    kind("a step's own alias", "row_ = [1, 2]\nalso_ = row_", "got_ = also_.pop()"),
    kind("a match that takes it apart", ROW, "match [row_]:\n    case [inner_]:\n        got_ = inner_.pop()"),
    kind("a walrus", ROW, "if (same_ := row_):\n    got_ = same_.pop()"),
    kind("a global of a function",
         ROW, "def more_():\n    global row_\n    row_ = row_ + [1]\n    return 1", "n_ = more_()",
         joins=""),
    kind("a timed line", ROW, "%time got_ = row_.pop()"),
    # an effect besides
    kind("a call that sets the process", "row_ = ['?']", "configure()", seen="[os.environ.get('NBFLOW_TEST_KIND')]",
         joins="effect"),
    kind("the same, its result kept", "row_ = ['?']", "said_ = configure()",
         seen="[os.environ.get('NBFLOW_TEST_KIND')]", joins="effect"),
    kind("a file that is written", "row_ = 'f_.txt'", "n_ = Path(row_).write_text('plain')",
         seen="[Path(row_).read_text()]", joins="effect"),
    kind("a shell line", "row_ = 's_.txt'", "!echo shell > s_.txt",
         seen="[Path(row_).read_text().strip()]", joins="effect"),
    # nothing of that
    kind("a look at the top", FRAME, "row_.head()", seen=COLUMNS, joins=None),
    kind("a summary", FRAME, "row_.describe()", seen=COLUMNS, joins=None),
    kind("an attribute", FRAME, "row_.shape, row_.dtypes", seen=COLUMNS, joins=None),
    kind("counts of a column", FRAME, "row_['a'].value_counts().head(2)", seen=COLUMNS, joins=None),
    kind("a group's means", FRAME, "row_.groupby('a')['b'].mean()", seen=COLUMNS, joins=None),
    kind("a picture", FRAME, "plt.plot(row_['a'])\nplt.show()", seen=COLUMNS, joins=None),
    kind("what is printed", ROW, "print(len(row_), row_, row_[0], f'{row_}')", joins=None),
    kind("a function of NumPy", NUMBERS, "print(np.mean(row_), np.sort(row_))", seen="row_.tolist()", joins=None),
    kind("a function of the notebook that looks", ROW, "look(row_)", joins=None),
    kind("a loop over a list that is written down", ROW, "for one_ in row_:\n    print(one_)", joins=None),
    kind("scratch of its own", ROW, "own_ = [len(row_)]\nown_.append(1)", joins=None),
    kind("a number that is replaced", "row_ = [1]", "n_ = 4\nn_ += 1\nprint(n_)", joins=None),
    kind("a package that is installed", ROW, "%pip --version", joins=None),
)  # fmt: skip


def own(text: str, number: int) -> str:
    """Return code whose names that end in `_` bear a number."""
    return re.sub(r"\b([A-Za-z]\w*?)_(?!\w)", rf"\g<1>_{number}", text)


def cells_of(number: int, each: Kind) -> dict[str, str]:
    """Return the cells of a kind, by id."""
    cells = {f"make{number}": f"%%step make{number}\n{each.made}"}
    cells |= {f"plain{number}-{at}": text for at, text in enumerate(each.plain)}
    cells[f"see{number}"] = f"%%step see{number}\nseen_ = {each.seen}"
    return {name: own(text, number) for name, text in cells.items()}
