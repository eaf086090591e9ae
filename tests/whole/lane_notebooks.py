# ruff: noqa: E501 - a line of a cell stands in one line
"""Notebooks in which more travels from cell to cell than names: what each lane has to bring to the cells below.

Every cell prints what it sees. What it prints in a plain kernel, run top to bottom, is what it has to print in each
lane, whenever it is executed.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lanes:
    """A notebook: cells by id, the files beside it, and the ways in which a finding may stand for a difference."""

    cells: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


NOTEBOOKS: dict[str, Lanes] = {
    "what a function sets in the process": Lanes({
        "top": "import os, decimal, warnings\nimport pandas as pd\nimport matplotlib.pyplot as plt",
        "def": "def configure(folder):\n    os.environ['MODE'] = 'fast'\n    os.makedirs(folder, exist_ok=True)\n"
               "    os.chdir(folder)\n    pd.options.display.precision = 2\n    plt.rcParams['lines.linewidth'] = 7\n"
               "    decimal.getcontext().prec = 4\n    warnings.simplefilter('error')",
        "before": "%%step before\nprint(os.environ.get('MODE'), pd.get_option('display.precision'))\nearly = [1]",
        "prep": "%%step prep\nconfigure('inner')\nready = [2]\nprint('configured')",
        "reads": "%%step reads\nprint(os.environ['MODE'], os.path.basename(os.getcwd()), ready)\n"
                 "print(pd.DataFrame({'x': [1.23456]}))",
        "last": "%%step last\nprint(plt.rcParams['lines.linewidth'], decimal.Decimal(1) / 3, early + ready)\n"
                "try:\n    warnings.warn('careful')\n    print('only a warning')\nexcept UserWarning as e:\n    print('raised', e)",
    }),
    "statements that set something": Lanes({
        "top": "import os, sys\nos.environ['WHERE'] = os.environ.get('WHERE', '') + 'a'",
        "one": "%%step one\nprint(os.environ['WHERE'], os.path.basename(os.getcwd()) == 'deep')\nxs = [1]",
        "two": "%%step two\nos.environ['WHERE'] = os.environ['WHERE'] + 'b'\nos.makedirs('deep', exist_ok=True)\n"
               "os.chdir('deep')\nsys.path.append('/no/such/place')\nys = [2]\nprint(os.environ['WHERE'])",
        "three": "%%step three\nprint(os.environ['WHERE'], os.path.basename(os.getcwd()), xs + ys)\n"
                 "os.environ['WHERE'] = os.environ['WHERE'] + 'c'\n%cd -q ..",
        "four": "%%step four\nprint(os.environ['WHERE'], os.path.basename(os.getcwd()) == 'deep')\n"
                "print(sys.path.count('/no/such/place'))",
    }),
    "attributes of classes and functions": Lanes({
        "def": "class Account:\n    count = 0\n    opened = []\n    def __init__(self, owner):\n        self.owner = owner\n"
               "        Account.count += 1\n        self.opened.append(owner)\n\n"
               "def tick(by=1, seen=[]):\n    tick.calls = getattr(tick, 'calls', 0) + by\n    seen.append(tick.calls)\n"
               "    return list(seen)",
        "open": "%%step open\nada = Account('ada')\nprint(Account.count, Account.opened, tick())",
        "more": "%%step more\nbob = Account('bob')\nAccount.rate = 0.5\nprint(Account.count, tick(2))",
        "use": "%%step use\nprint(Account.count, Account.opened, Account.rate, tick.calls, isinstance(ada, Account))\n"
               "Account.count += 10\ntotal = Account.count",
        "end": "%%step end\nprint(total, Account.count, ada.rate, bob.owner, tick())",
    }),
    "state of every kind on classes and functions": Lanes({
        "def": "import abc, enum, functools\nfrom dataclasses import dataclass, fields\nfrom counting import counted\n\n"
               "class Level(enum.Enum):\n    LOW = 1\n    HIGH = 2\n    TOP = 2\n\n"
               "class Kind(type):\n    made = 0\n\n"
               "class Plan(metaclass=Kind):\n    'as drafted'\n    level = Level.LOW\n    unit = int\n    class Limits:\n"
               "        hours = 1\n    def cost(self, seen=[]):\n        seen.append(len(seen))\n        return list(seen)\n\n"
               "class Cheap:\n    def price(self):\n        return 1\n\nclass Dear:\n    def price(self):\n        return 9\n\n"
               "class Offer(Cheap):\n    pass\n\nclass Sized(abc.ABC):\n    pass\n\n"
               "@dataclass\nclass Point:\n    x: int = 0",
        "decorated": "class Tally:\n    def __init__(self, function):\n        self.function, self.calls = function, 0\n"
                     "    def __call__(self, *given):\n        self.calls += 1\n        return self.function(*given)\n\n"
                     "@Tally\ndef half(x):\n    return x / 2\n\n@counted\ndef third(x):\n    return x / 3\n\n"
                     "@functools.singledispatch\ndef name_of(x):\n    return 'thing'\n\ndef add(a, b=1):\n    return a + b\n\n"
                     "plus = functools.partial(add, b=2)",
        "one": "%%step one\nPlan.level, Plan.unit, Plan.shout = Level.TOP, Plan.Limits, str.upper\nPlan.Limits.hours = 8\n"
               "Plan.cost.checked = True\nPlan.__doc__ = 'as agreed'\nLevel.HIGH.note = 'steep'\nKind.made += 1\n"
               "Offer.__bases__ = (Dear,)\nSized.register(Point)\nadd.__name__ = 'plus_one'\nadd.__doc__ = 'adds'\n"
               "add.__annotations__['a'] = float\nadd.__defaults__ = (10,)\nplus.keywords['b'] = 5\n"
               "fields(Point)[0].default = 4\nprint(half(4), third(6), Plan().cost(), Plan.unit is Plan.Limits)\nstarted = [1]",
        "plain": "@name_of.register\ndef named_number(x: int):\n    return 'number'\n\nname_of.register(str, lambda x: 'text')",
        "two": "%%step two\nprint(Plan.level, Plan.level is Level.HIGH, Plan.unit.hours, Plan.shout('a'), Plan.cost.checked, Plan.__doc__)\n"
               "print(Level.HIGH.note, Level(2).note, Kind.made, Offer().price(), isinstance(Point(), Sized), add.__name__, add.__doc__)\n"
               "print(add.__annotations__, add(1), plus(1), fields(Point)[0].default, name_of(1), name_of('a'), name_of(1.5))\n"
               "print(half(2), half.calls, third.calls, Plan().cost())\nhalves = [half]",
        "three": "%%step three\nprint(halves[0] is half, halves[0](8), half.calls, third(3), third.calls, Plan().cost())\n"
                 "Plan.level, Kind.made = Level.LOW, 5\ndel Plan.shout",
        "four": "%%step four\nprint(Plan.level.name, Kind.made, hasattr(Plan, 'shout'), half.calls, third.calls, Plan().cost(), started)",
    }, {"counting.py": "def counted(function):\n    def call(*given):\n        call.calls += 1\n        return function(*given)\n"
                       "    call.calls = 0\n    return call\n"}),
    "definitions that compute": Lanes({
        "top": "import datetime as dt, enum, json, os, random, time, uuid\nfrom dataclasses import dataclass, field, fields\n"
               "numbers = iter(range(100))",
        "def": "# once\ndef tag(turn=next(numbers), at=time.time_ns()):\n    return turn, at\n\n"
               "class Settings:\n    rate = json.load(open('rate.json'))\n    started = dt.datetime.now()\n"
               "    name = f'run_{started:%H%M%S%f}'\n    def __init__(self, n):\n        self.n = n\n"
               "    def total(self):\n        return self.rate * self.n\n\n"
               "def fresh():\n    return uuid.uuid4().hex\n\n"
               "@dataclass\nclass Row:\n    key: str = fresh()\n    turn: int = next(numbers)\n    rest: list = field(default_factory=list)\n\n"
               "class Code(enum.Enum):\n    ONE = next(numbers)\n    TWO = next(numbers)\n\n"
               "class Wide(Settings):\n    def total(self):\n        return 10 * super().total()",
        "seeded": "random.seed(1)\nclass Draw:\n    first = random.random()\n    def again(self, x=random.random()):\n        return x",
        "one": "%%step one\nopened = Settings(3)\nrow, code, wide = Row(), Code.TWO, Wide(2)\nseen = (tag(), Settings.name, Row().key)\n"
               "print(next(numbers), random.random(), Draw.first, Draw().again(), opened.total(), wide.total(), row.turn, code.value)",
        "edit": "%%step edit\nSettings.rate += 1\ntag.calls = 3\nedited = [1]",
        "two": "%%step two\nprint(isinstance(opened, Settings), isinstance(row, Row), code is Code.TWO, isinstance(wide, Settings))\n"
               "print(seen == (tag(), Settings.name, Row().key), opened.total(), wide.total(), Settings(1).total(), tag.calls)\n"
               "print([each.name for each in fields(Row)], row == Row(row.key), next(numbers))\nother = Settings(5)",
        "three": "%%step three\nprint(isinstance(other, Settings), other.started == opened.started, other.total(), Draw().again() == Draw.first)\n"
                 "print(random.random(), next(numbers), tag()[0], [each.value for each in Code], len(edited))",
    }, {"rate.json": "2"}),
    "a name of Python's own": Lanes({
        "def": "def size(x):\n    return len(x)\n\nlow = max(1, 2)",
        "early": "%%step early\nbefore = size('abc'), low, str(5)\nprint(before)",
        "own": "%%step own\nstr = {'a': 1}\nlen = lambda x: -1\nprint(str['a'])",
        "plain": "number = str['a']\nkind = int(str['a'])",
        "late": "%%step late\nprint(size('abc'), str, number, kind, before)",
        "back": "%%step back\ndel len\nlast = [1]\nprint(size('abc') if 'len' in globals() else 3, last)",
    }),
    "a class set from a plain cell": Lanes({
        "def": "class Shape:\n    sides = 0\n    def describe(self):\n        return self.sides",
        "make": "%%step make\nbase = [3]\nprint(base)",
        "plain": "def area(self):\n    return self.sides * 10\nShape.area = area\nShape.sides = base[0] + 1",
        "use": "%%step use\nshape = Shape()\nprint(shape.area(), shape.describe())",
    }),
    "seeded in one cell, drawn in others": Lanes({
        "top": "import random\nimport numpy as np",
        "draw": "def noise(n):\n    return [round(float(x), 6) for x in np.random.rand(n)]",
        "seed": "%%step seed\nnp.random.seed(3)\nrandom.seed(4)\nfirst = noise(2)\nprint(first)",
        "second": "%%step second\nsecond = noise(2), random.random()\nprint(second)",
        "plain": "third = noise(1)[0]",
        "last": "%%step last\nprint(third, noise(1), random.randint(0, 99))",
    }),
    "drawn inside a library": Lanes({
        "top": "import numpy as np, pandas as pd\nfrom sklearn.model_selection import train_test_split",
        "seed": "%%step seed\nnp.random.seed(0)\ndf = pd.DataFrame({'a': range(12)})\nprint(len(df))",
        "one": "%%step one\nfirst = train_test_split(df, test_size=4)[1].a.tolist()\nprint(first)",
        "two": "%%step two\nsecond = df.sample(4).a.tolist()\nprint(second)",
        "last": "%%step last\nprint(first == second, np.random.rand() < 2, df.sample(3).a.tolist())",
    }),
    "one list under two names": Lanes({
        "a": "%%step a\na = [1]\nprint(a)",
        "b": "%%step b\nb = a\nprint(b is a)",
        "c": "%%step c\na.append(2)\nprint(a)",
        "d": "%%step d\nprint(b, b is a)",
        "e": "%%step e\nb.append(3); b = [0]\nprint(b)",
        "f": "%%step f\nprint(a, b)",
    }),
    "views and frames that share": Lanes({
        "top": "import numpy as np, pandas as pd",
        "make": "%%step make\ngrid = np.zeros((2, 3))\nrow = grid[1]\nbox = {'grid': grid}\nprint(grid.sum())",
        "fill": "%%step fill\nrow[:] = 5\nprint(row)",
        "see": "%%step see\nprint(grid.tolist(), box['grid'].sum())",
        "frames": "%%step frames\ntrain = pd.DataFrame({'x': [1, 2]})\ntest = pd.DataFrame({'x': [3]})\nboth = [train, test]\nprint(2)",
        "plain": "for each in both:\n    each['y'] = each.x * 10",
        "use": "%%step use\nprint(train.y.tolist(), test.y.tolist(), both[0] is train)",
    }),
    "memory under two names": Lanes({
        "top": "import io, types\nimport numpy as np, pandas as pd",
        "make": "%%step make\na = np.arange(3.0)\ns = pd.Series(a, copy=False)\ndf = pd.DataFrame({'a': [1, 2], 'b': [3, 4]})\n"
                "v = df['a'].to_numpy()\ngrid = np.array([None] * 4, dtype=object).reshape(2, 2)\nrow = grid[0]\n"
                "m = np.asmatrix(np.eye(2))\nplain = np.asarray(m)\nprint(s.sum(), v.sum())",
        "change": "%%step change\na[0] = 99\ndf.loc[0, 'a'] = 7\nrow[1] = 'x'\nplain[0, 1] = 5\nprint('changed')",
        "see": "%%step see\nprint(s.tolist(), v.tolist(), grid.tolist(), m.tolist())",
        "looks": "%%step looks\nd = {'a': 1, 'b': 2}\nit = iter(d.values())\nproxy = types.MappingProxyType(d)\nitems = []\n"
                 "push = items.append\nbuf = io.StringIO()\nwrite = buf.write\nprint(len(proxy))",
        "act": "%%step act\nd['b'] = 99\npush(1)\nn = write('abc')\nprint(n)",
        "end": "%%step end\nprint(list(it), dict(proxy), items, buf.getvalue())",
    }),
    "changed, then bound anew": Lanes({
        "top": "import numpy as np, pandas as pd",
        "make": "%%step make\nxs = [1]\nys = xs\na = np.arange(3.0)\nkeep = a\ndf = pd.DataFrame({'x': [1, 2, 3], 'y': 0})\n"
                "same = [df]\np, q = [1], [2]\nold_p, old_q = p, q\nd = {'k': [1]}\ninner = d['k']\ngone = [1]\nstays = gone\nprint(xs)",
        "change": "%%step change\nxs.append(2)\nxs = [0]\na += 1\na = a.sum()\ndf.drop(columns='y', inplace=True)\ndf = df.head(1)\n"
                  "p.append(10)\np, q = q, p\nd['k'].append(2)\nd = {}\ngone.append(2)\ndel gone\nprint(xs, a)",
        "hidden": "%%step hidden\ngetattr(inner, 'append')(3)\nexec('inner = [9]')\nprint('hidden')",
        "see": "%%step see\nprint(ys, keep, list(same[0].columns), len(df), old_p, old_q, p, q, inner, stays)",
    }),
    "definitions that hold data": Lanes({
        "top": "import numpy as np",
        "make": "%%step make\nrows, acc, buf, gone = [], [], [], []\nrng = np.random.default_rng(0)\nprint(rows)",
        "def": "class Repo:\n    rows = rows\n    def add(self, x):\n        self.rows.append(x)\n\n"
               "def push(x, into=acc):\n    into.append(x)\n    return len(into)\n\ndef put(x, *, to=buf):\n    to.append(x)\n\n"
               "def noise(rng=rng):\n    return round(float(rng.normal()), 6)",
        "names": "%%step names\nacc.append(10)\nrows.append(0)\nalias = buf\nprint(acc, rows)",
        "use": "%%step use\nrepo = Repo()\nrepo.add(1)\nput(3)\nprint(push(2), noise())",
        "more": "%%step more\nalias.append(4)\nacc.append(11)\nacc = ['new']\nprint(round(float(rng.normal()), 6), acc)",
        "again": "%%step again\nput(5)\nprint(push(6), noise(), Repo.rows, repo.rows)",
        "see": "%%step see\nprint(rows, acc, buf, alias, round(float(rng.normal()), 6))",
    }),
    "what pickle would leave out": Lanes({
        "top": "import warnings\nimport numpy as np, pandas as pd\nwarnings.filterwarnings('ignore')",
        "def": "class Model:\n    def __init__(self):\n        self.weights, self.cache = [1], {'a': 1}\n"
               "    def __getstate__(self):\n        return {'weights': list(self.weights), 'cache': {}}\n\n"
               "class Measured(np.ndarray):\n    def __array_finalize__(self, other):\n        self.unit = getattr(other, 'unit', None)",
        "make": "%%step make\nmodel = Model()\nweights = model.weights\nx = np.arange(3).view(Measured)\nx.unit = 'm'\n"
                "df = pd.DataFrame({'a': [1]})\ndf.source = 'web'\nnames = ['a']\nprint(model.cache)",
        "body": "class Names:\n    names.append('b')\n    first = names[0]",
        "change": "%%step change\nweights.append(2)\nmodel.cache['b'] = len(names)\n_ = [0 for names[0] in 'xy']\nprint(Names.first)",
        "see": "%%step see\nprint(model.weights, model.cache, x.unit, x.sum(), df.source, names, Names.first)",
    }),
    "names that only a run binds": Lanes({
        "def": "level, total = 0, 0\n\nclass Bot:\n    def ask(self):\n        global level\n        level += 7\n\n"
               "def add(n):\n    global total\n    total += n",
        "make": "%%step make\nbot, hits, kept = Bot(), [], 1\nops = {'+': add}\nK = type('K', (), {'n': 0})\nk = K()\nprint(k.n)",
        "act": "%%step act\nops['+'](5)\nbot.ask()\nexec('kept = 2')\nglobals().update(made=[3])\nfor f in [hits.append]:\n    f(1)\nprint('acted')",
        "more": "%%step more\nK.n = 5\nbot.ask()\nprint('more')",
        "see": "%%step see\nprint(total, level, kept, made, hits, K.n, k.n, isinstance(k, K))",
    }),
    "many objects of a class": Lanes({
        "def": "from functools import cached_property\nclass Item:\n    def __init__(self, n):\n        self.n, self.seen, self.pad = n, 0, 'x' * 40\n"
               "    @property\n    def value(self):\n        self.seen += 1\n        return self.n\n"
               "    @cached_property\n    def square(self):\n        return self.n ** 2\n"
               "    def __eq__(self, other):\n        self.seen += 10\n        return self.n == other\n    __hash__ = None",
        "make": "%%step make\nitems = [Item(n) for n in range(6000)]\nprint(len(items))",
        "read": "%%step read\ntotal = sum(each.value for each in items)\nprint(total)",
        "ask": "%%step ask\nfound = 5999 in items\nsquare = items[7].square\nprint(found, square)",
        "see": "%%step see\nprint(items[5].seen, 'square' in vars(items[7]), 'square' in vars(items[8]))",
    }),
    "changes that only a run shows": Lanes({
        "def": "def touch(item):\n    item['n'] = item.get('n', 0) + 1\n\nclass Bag:\n    def __init__(self):\n        self.items = []\n"
               "    def put(self, x):\n        self.items.append(x)\n        return self\n\ntotal = 0\ndef count(n):\n    global total\n"
               "    total += n\nACTIONS = {'count': count}",
        "make": "%%step make\nd = {}\nbag = Bag()\nprint(d, bag.items)",
        "act": "%%step act\nfor f in (touch,):\n    f(d)\nmine = bag.put(1)\nACTIONS['count'](5)\nprint(d, mine.items)",
        "again": "%%step again\ngetattr(bag, 'put')(2)\nprint(bag.items)",
        "use": "%%step use\nprint(d, bag.items, mine is bag, total)",
    }),
    "generators of numbers as data": Lanes({
        "top": "import random\nimport numpy as np",
        "make": "%%step make\nrng = np.random.default_rng(5)\ndice = random.Random(6)\nprint(rng.integers(100), dice.randint(1, 6))",
        "use": "%%step use\ndrawn = rng.integers(100, size=3).tolist()\nprint(drawn, dice.randint(1, 6))",
        "plain": "more = int(rng.integers(100))",
        "last": "%%step last\nprint(drawn, more, rng.integers(100), dice.random())",
    }),
    "classes and closures of cells": Lanes({
        "def": "from dataclasses import dataclass, field\n\n@dataclass\nclass Point:\n    x: int\n    tags: list = field(default_factory=list)\n\n"
               "def scaled(k):\n    seen = []\n    def f(v):\n        seen.append(v)\n        return v * k, len(seen)\n    return f",
        "make": "%%step make\np = Point(2, ['a'])\ndouble = scaled(2)\nprint(p, double(1))",
        "use": "%%step use\np.tags.append('b')\nprint(isinstance(p, Point), double(p.x), p == Point(2, ['a', 'b']))",
        "end": "%%step end\nprint(p, double(9))",
    }),
    "defined again while an instance is kept": Lanes({
        "one": "class Model:\n    version = 1\n    def name(self):\n        return 'old'\n\ndef label():\n    return 'first'",
        "make": "%%step make\nold = Model()\nprint(old.name(), label())",
        "two": "class Model:\n    version = 2\n    def name(self):\n        return 'new'\n\ndef label():\n    return 'second'",
        "use": "%%step use\nnew = Model()\nprint(old.name(), old.version, new.name(), new.version, label())",
        "end": "%%step end\nprint(old.version, new.version, isinstance(new, Model), isinstance(old, Model))",
    }),
    "files from cell to cell": Lanes({
        "make": "%%step make\nimport json\nwith open('data.json', 'w') as f:\n    json.dump([1, 2], f)\nsaved = 1\nprint('saved')",
        "read": "%%step read\nrows = json.load(open('data.json'))\nprint(rows)",
        "add": "%%step add\nwith open('more.txt', 'w') as f:\n    f.write(str(sum(rows)))\nkept = True\nprint(kept)",
        "end": "%%step end\nprint(open('more.txt').read(), rows, saved)",
    }),
    "figures and frames that are shown": Lanes({
        "top": "import matplotlib.pyplot as plt, pandas as pd\nfrom IPython.display import display",
        "make": "%%step make\ndf = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\ndisplay(df)\ndf.a.sum()",
        "draw": "%%step draw\nfig, ax = plt.subplots(figsize=(2, 2))\nax.plot(df.a, [3, 1])\nplt.show()",
        "more": "%%step more\nax.set_title('again')\nfig",
        "end": "%%step end\nprint(ax.get_title(), len(ax.lines))\ndf",
    }),
    "sets in their order": Lanes({
        "top": "from types import SimpleNamespace\ntexts = 'to be or not to be that is the question whether tis nobler in the mind to suffer'.split()",
        "make": "%%step make\nwords = {*texts}\nplaces = {word: at for at, word in enumerate(words)}\nodd = set(range(500))\n"
                "for n in range(490):\n    odd.discard(n)\npair = {7, 15, 23}\nprint([*words], [*odd], [*pair])",
        "use": "%%step use\nprint([places[word] for word in words] == [*range(len(words))], [*odd], next(iter(pair)))",
        "more": "%%step more\nwords |= {'slings', 'arrows'}\nwords.discard('be')\nkept = SimpleNamespace(all=[words, frozenset(words)])\n"
                "print([*words])",
        "plain": "first = words.pop()\nrest = [*words]",
        "end": "%%step end\nprint(first, rest == [*words], [[*each] for each in kept.all], kept.all[0] is words, odd, pair)",
    }),
    "an index of two frames": Lanes({
        "top": "import pandas as pd",
        "make": "%%step make\nheights = pd.Series([3, 5, 8], index=pd.MultiIndex.from_product([['oak'], [1, 2, 3]]))\n"
                "apart = pd.DataFrame({'h': [1, 2]})\nprint(heights.index.nlevels)",
        "build": "table = pd.DataFrame({'h': heights, 'w': [1, 1, 2]})",
        "name": "%%step name\nheights.index.names = ['kind', 'tree']\nprint(heights.index.names)",
        "read": "%%step read\nprint(list(table.index.names), table.columns.tolist(), apart.index.name)",
        "more": "%%step more\ntable.columns.name = 'size'",
        "end": "%%step end\nprint(table.columns.name, list(heights.index.names), table.xs(2, level='tree').to_dict())",
    }),
    "frames of several blocks": Lanes({
        "top": "import numpy as np, pandas as pd\n\ndef overwritten(frame):\n    v = frame.values\n    if v.flags.writeable:\n"
               "        v[:, 0] = -1\n    return v.flags.writeable, v.tolist(), frame.iloc[0, 0]",
        "make": "%%step make\nwide = pd.DataFrame({'x': [0.1, 0.2, 0.3], 'y': [4.0, 5.0, 6.0]})\nwide.insert(0, 'one', 1.0)\n"
                "plain = pd.DataFrame({'p': [1, 2], 'q': [3, 4]})\nprint(overwritten(wide), overwritten(plain))",
        "read": "%%step read\nprint(overwritten(wide), wide.describe().loc['mean'].tolist())",
        "both": "%%step both\nprint(overwritten(wide), overwritten(plain))\nturned = pd.DataFrame(np.arange(6.0).reshape(2, 3)).T\n"
                "turned['last'] = turned[0] * 2",
        "cell": "wide['z'] = wide['x'] / 3\nmost = wide.drop(columns='y')",
        "end": "%%step end\nprint(overwritten(wide), overwritten(most), overwritten(turned), turned.to_numpy().sum())",
    }),
    "logging and what it sets": Lanes({
        "top": "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(levelname)s %(message)s')",
        "one": "%%step one\nlogging.info('one begins')\nxs = [1]",
        "two": "%%step two\nlogging.info('two has %d', len(xs))\nys = xs + [2]",
        "end": "%%step end\nlogging.warning('end')\nprint(ys)",
    }),
    "star imports": Lanes({
        "top": "from typing import *\nfrom collections import *\nfrom stars_of_lanes import *\nbase = scaled(2)",
        "setup": "%%setup\nfrom math import *",
        "make": "%%step make\nclass Bag(Counter):\n    pass\n\ndef top(bag: Mapping[str, int], n: Optional[int] = None) -> List[str]:\n"
                "    return sorted(bag)[:n]\nbag = Bag('abca')\nprint(top(bag), sqrt(base))",
        "use": "%%step use\nprint(top(bag, 1), isinstance(bag, Bag), floor(pi), scaled(FACTOR), OrderedDict(bag))",
    }, files={"stars_of_lanes.py": "FACTOR = 3\n\n\ndef scaled(x):\n    return x * FACTOR\n"}),
    "names that star imports bind again": Lanes({
        "e": "e, scale, limit = 5, 1, 2",
        "one": "%%step one\nprint(e, scale, limit)\narea = e * 2",
        "stars": "from math import *\nfrom stars_below import *\nhalf = e / 2",
        "two": "%%step two\nprint(e, scale, limit, area, pow(2, 3), inner(half))\ntotal = scale + area",
        "pi": "%%step pi\nfrom statistics import *\nfrom random import *\npi, mode = 3, 'fast'\nseed(3)\nprint(pi, e, median([1, 2]), mode, random())",
        "end": "%%step end\nprint(pi, total, floor(e), fmean([1, 2]), mode, randint(1, 99))",
    }, files={
        "stars_below.py": "from stars_inner import *\n\nscale = 4\n_mine = 1\n",
        "stars_inner.py": "__all__ = ['inner']\nlimit = 0\n\n\ndef inner(x):\n    return x * 2\n",
    }),
    "a module that a cell makes, and a star import of it": Lanes({
        "old": "%%step old\nscale, other = 1, 2\nprint(scale)",
        "make": "%%step make\nfrom pathlib import Path\nlength = Path('stars_made.py').write_text(f'scale = 9\\nmade = {1 + 1}\\n')",
        "star": "from stars_made import *",
        "one": "%%step one\nprint(scale, other, made)\nall_of = [scale, made]",
        "new": "%%step new\nmade = 3\nprint(made)",
        "end": "%%step end\nprint(other, made, all_of)",
    }),
    "what a cell finds around it": Lanes({
        "top": "import asyncio, sys\nimport pandas as pd\n\ndef where():\n    return get_ipython().__class__.__name__",
        "ask": "%%step ask\nprint(where(), 'zmqshell' in str(type(get_ipython())), hasattr(get_ipython(), 'kernel'), __name__)\n"
               "print('ipykernel' in sys.modules, sys.argv[0].endswith('ipykernel_launcher.py'), sys.argv[1])",
        "wide": "%%step wide\nframe = pd.DataFrame({f'column_{n:02d}': [n, n * 1000] for n in range(25)})\nprint(frame)\n"
                "print(pd.get_option('display.max_columns'), pd.get_option('display.width'))",
        "loop": "%%step loop\nasync def word():\n    return 'heard'\nwaiting = asyncio.ensure_future(word())\n"
                "print(asyncio.get_running_loop().is_running())",
        "end": "%%step end\nprint(frame.iloc[:, :20], get_ipython().run_cell('1 + 1').result)",
    }),
    "kinds that are known by what they are": Lanes({
        "top": "import argparse\nfrom dataclasses import make_dataclass\nfrom enum import Enum\nfrom typing import NamedTuple, NewType, TypedDict\n"
               "from pydantic import create_model",
        "kinds": "Nothing = object()\nUser = NewType('User', int)\nFilm = TypedDict('Film', {'name': str})\n"
                 "Pair = make_dataclass('Pair', ['a', ('b', int, 0)])\nRow = NamedTuple('Row', [('n', str), ('i', int)])\n"
                 "Tone = Enum('Tone', 'HIGH LOW')\nModel = create_model('Model', q=(int, 1))",
        "def": "def look(d, key, default=Nothing):\n    found = d.get(key, Nothing)\n    if found is not Nothing:\n        return found\n"
               "    return 'none' if default is Nothing else default",
        "make": "%%step make\npair, row, tone, model, film, user = Pair(1), Row('x', 2), Tone.LOW, Model(q=4), Film(name='a'), User(5)\n"
                "marks = {'gone': Nothing, 'there': 1}\nprint(pair, row, tone, model, film, user)",
        "parser": "%%step parser\nparser = argparse.ArgumentParser(prog='p')\nparser.add_argument('--rate', type=float, default=0.5)\n"
                  "quiet = parser.add_argument_group('more').add_argument('--quiet', action='store_true')\nprint(parser.parse_args([]))",
        "is": "%%step is\nprint(pair == Pair(1), isinstance(row, Row), tone is Tone.LOW, isinstance(model, Model), film, user)\n"
              "print(look(marks, 'gone'), look(marks, 'there'), look(marks, 'x', 3), marks['gone'] is Nothing)",
        "parse": "%%step parse\nargs = parser.parse_args(['--rate', '2'])\nprint(args, sorted(vars(args)), quiet in parser._actions)\n"
                 "print(parser.format_help())",
        "end": "%%step end\nprint(args.rate, parser.parse_args(['--quiet']), type(pair) is Pair, marks['gone'] is Nothing)",
    }),
    "magics of the notebook's own": Lanes({
        "top": "from IPython.core.magic import register_cell_magic, register_line_cell_magic, register_line_magic",
        "def": "@register_line_magic\ndef shout(line):\n    return line.upper() + mark()\n\n@register_cell_magic\ndef count(line, cell):\n"
               "    return len(cell.split())\n\ndef mark():\n    return '!'",
        "line": "%%step line\nword = %shout hello\nprint(word)",
        "cell": "%%step cell\n%%count\none two\nthree",
        "end": "%%step end\nprint(word, get_ipython().run_line_magic('shout', 'again'))",
    }),
    "loggers with handlers": Lanes({
        "top": "import logging, sys\nlog = logging.getLogger('lanes')\nlog.setLevel(logging.INFO)\nlog.propagate = False\n"
               "if not log.handlers:\n    handler = logging.StreamHandler(sys.stdout)\n"
               "    handler.setFormatter(logging.Formatter('{name}|{levelname}|{message}', style='{'))\n    log.addHandler(handler)",
        "one": "%%step one\nlog.info('one begins')\nxs = [1]",
        "more": "%%step more\nfine = logging.getLogger('lanes.fine')\nfine.setLevel(logging.DEBUG)\nfine.addHandler(logging.StreamHandler(sys.stdout))\n"
                "fine.debug('both')\nprint(len(fine.handlers))",
        "two": "%%step two\nlog.warning('two has %d', len(xs))\nlogging.getLogger('lanes.fine').debug('fine')\nys = xs + [2]",
        "end": "%%step end\nlog.error('end')\nprint(ys, log.handlers[0].formatter._fmt, fine.level)",
    }),
    "names inside texts": Lanes({
        "top": "import cProfile, contextlib, io, timeit, unittest\nimport pandas as pd\nimport polars as pl",
        "def": "def total(n):\n    return sum(range(n))\n\ndef below(frame):\n    return frame.query('price < @top').size\n\n"
               "class Sums(unittest.TestCase):\n    def test_small(self):\n        self.assertEqual(total(3), 3)",
        "make": "%%step make\nshop = pd.DataFrame({'kind': [1, 2, 3], 'price': [5.0, 6.0, 7.0]})\nprint(len(shop))",
        "bounds": "%%step bounds\nlow, top, kinds = 5.5, 7, [2, 3]\nprint(low)",
        "cell": "tens = pl.DataFrame({'t': [10, 20]})",
        "ask": "%%step ask\nprint(len(shop.query('price > @low')), shop.query('kind in @kinds').price.tolist(), below(shop))",
        "eval": "%%step eval\nprint(pd.eval('low * 2'), shop.eval('k = kind * @low').k.tolist(), eval('top + len(kinds)'))",
        "time": "%%step time\nprint(timeit.timeit('total(top)', globals=globals(), number=1) > 0,\n"
                "      timeit.timeit('total(top)', 'from __main__ import total, top', number=1) > 0)",
        "main": "%%step main\nimport __main__\nwith contextlib.redirect_stdout(io.StringIO()):\n"
                "    cProfile.run('res = total(top)')\nprint(res, __main__.total(4))",
        "test": "%%step test\nr = unittest.main(argv=['t'], exit=False, verbosity=0, testRunner=unittest.TextTestRunner(io.StringIO()))"
                "\nprint(r.result.testsRun, len(r.result.failures))",
        "sql": "%%step sql\nprint(pl.sql('select sum(t) as s from tens', eager=True).to_dicts(), res)",
    }),
    "plain cells between steps": Lanes({
        "make": "%%step make\nxs = [3, 1, 2]\nd = {}\nprint(xs)",
        "pop": "last = xs.pop()",
        "put": "lst = d.setdefault('k', [])\nlst.append(1)",
        "alias": "ys = xs\nys += [9]",
        "use": "%%step use\nprint(xs, last, d, ys is xs)",
        "if": "if xs.pop():\n    found = 'yes'",
        "end": "%%step end\nprint(xs, ys, found)",
    }),
    "seeded by whatever call": Lanes({
        "top": "import random\nimport numpy as np\nimport pandas as pd\nimport seeds_of_lanes",
        "seed": "%%step seed\ns = seeds_of_lanes.set_all(7)\nprint(s)",
        "one": "%%step one\na = random.random(), np.random.rand()\nprint(a)",
        "two": "%%step two\nprint(pd.Series(range(50)).sample(3).tolist(), random.random())",
        "loop": "%%step loop\nfor f in (random.seed, np.random.seed):\n    f(5)\nprint('again')",
        "three": "%%step three\nprint(a, random.random(), np.random.rand())",
        "end": "%%step end\nprint(a, random.random(), np.random.rand())",
    }, files={
        "seeds_of_lanes.py": "import random\nimport numpy as np\n\n\ndef set_all(n):\n    random.seed(n)\n"
                             "    np.random.seed(n)\n    return n\n",
    }),
}  # fmt: skip
