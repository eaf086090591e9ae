"""nbflow.analysis: the table of cells, and what the table cannot hold: statements, places, values, normal form."""

import ast
import itertools
import json
import random
import subprocess
import sys
import warnings

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from nbflow.analysis.cell import Analysis, AssignedValue, Statement, analyse, normalise, transform
from nbflow.analysis.source import is_star_import, parse_python, star_modules
from nbflow.model import StarImport
from tests.analysis.cases import CASES, Case


def names(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    found = analyse(case.source)
    assert sorted(found.reads) == sorted(names(case.reads)), found
    assert sorted(found.writes) == sorted(names(case.writes)), found
    for expected, got in (
        (case.sure, found.sure_reads),
        (case.conditional, found.conditional),
        (case.deletes, found.deletes),
        (case.definitions, found.definitions),
        (case.private, found.private),
        (case.possible, found.possible_writes),
        (case.may_mutate, found.may_mutate),
    ):
        if expected is not None:
            assert sorted(got) == sorted(names(expected)), found
    assert sorted(each.code for each in found.diagnostics) == sorted(case.codes.split())
    assert found.possible_writes <= found.may_mutate
    assert found.sure_reads <= found.reads
    assert found.definitions | found.private <= found.writes
    assert all(each.message and each.hint for each in found.diagnostics)


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) >= 150


def statements(source: str) -> tuple[Statement, ...]:
    return analyse(source).statements


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import a", "import"),
        ("def f(): ...", "def"),
        ("async def f(): ...", "def"),
        ("@d\nclass C: ...", "class"),
        ("try:\n    import x\nexcept ImportError:\n    x = None", "import"),
        ("if t:\n    def f(): ...\nelse:\n    f = None", "def"),
        ("try:\n    import x\n    class C: ...\nfinally:\n    pass", "class"),
        ("if t:\n    x = 1", "other"),
        ("if t:\n    import a\n    print(a)", "other"),
        ("x = 1", "assign"),
        ("x += 1", "assign"),
        ("x[0] = 1", "assign"),
        ("plt.style.use('x')", "call"),
        ("await f()", "other"),
        ("x", "other"),
        ("%matplotlib inline", "magic"),
        ("!ls", "magic"),
        ("x = !ls", "assign"),
        ("for i in r: pass", "other"),
        ("del x", "other"),
    ],
)
def test_kind(source: str, kind: str) -> None:
    assert [each.kind for each in statements(source)] == [kind]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", ("literal", None, "")),
        ("-1 + 2 * 3", ("literal", None, "")),
        ("(1, 'a', b'c', None, True, ...)", ("literal", None, "")),
        ("f'{1} b'", ("literal", None, "")),
        ("[1]", ("other", None, "")),
        ("{}", ("other", None, "")),
        ("a.b", ("name", None, "a")),
        ("a * 2 + b", ("name", None, "a b")),
        ("list[int] | None", ("name", None, "list int")),
        ("f(1)", ("call", "f", "f")),
        ("a.b.c(x, k=g(1))", ("call", "a.b.c", "a g x")),
        ("f([1])", ("other", "f", "f")),
        ("f(1)(2)", ("other", None, "f")),
        ("lambda: 1", ("other", None, "")),
    ],
)
def test_value(source: str, value: tuple[str, str | None, str]) -> None:
    kind, callee, used = value
    assert statements(f"x = {source}")[0].value == AssignedValue(kind, callee, frozenset(names(used)))


def test_value_only_for_plain_names() -> None:
    assert statements("a, b = 1, 2")[0].value == AssignedValue("literal", None, frozenset())
    assert statements("x: int = 1")[0].value == AssignedValue("literal", None, frozenset())
    for source in ("x[0] = 1", "x += 1", "x: int", "x.a = y"):
        assert statements(source)[0].value is None


def test_statement_says_what_it_takes_alone() -> None:
    first, second, third = statements(
        "import numpy as np\n\n@cached(k)\ndef f(a=d):\n    seen.append(a)\n    return np.sum(y)\nz = f(np.e)\n"
    )
    assert first.imports == (("np", "numpy"),)
    assert (second.line, second.end_line, second.kind) == (3, 6, "def")
    assert second.source == "@cached(k)\ndef f(a=d):\n    seen.append(a)\n    return np.sum(y)"
    assert second.reads >= {"cached", "k", "d"}
    assert second.deferred == {"np", "y", "seen"}
    assert second.deferred_writes == {"seen"}
    assert (third.reads, third.writes) == ({"f", "np"}, {"z"})


def test_deferred_is_apart_from_reads() -> None:
    (only,) = statements("def f(x=a):\n    global g\n    g = h\n    cache['k'] = sum(x)\n    return g")
    assert only.reads == {"a"}
    assert only.deferred == {"h", "cache"}
    assert only.deferred_writes == {"g", "cache"}
    assert only.builtin_reads == {"sum"}


def test_builtins_are_kept_apart() -> None:
    found = analyse("y = max(id, x)")
    assert found.reads == {"x"}
    assert found.builtin_reads == {"max", "id"}


def test_lines_are_those_of_the_source() -> None:
    source = "\n%%step a\n\n!ls \\\n  -l\nx = 1; y = 2\nif x:\n    exec(z)\n"
    found = analyse(source)
    assert [(each.line, each.end_line) for each in found.statements] == [(4, 5), (6, 6), (6, 6), (7, 8)]
    assert [each.source for each in found.statements[:3]] == ["!ls \\\n  -l", "x = 1", "y = 2"]
    assert [(each.code, each.line, each.column) for each in found.diagnostics] == [("dynamic", 8, 4)]


def test_place_of_a_syntax_error() -> None:
    for source, line in (("x = 1\ny = )\n", 2), ("%%step a\n\nx = (", 3), ("x\n\0", 2), ("a\nb = '\udcff'", 2)):
        (problem,) = analyse(source).diagnostics
        assert (problem.code, problem.line) == ("syntax", line)


def test_line_magics_and_cell_magic() -> None:
    found = analyse("%matplotlib inline\n!ls\nx = !pwd\n%time f()\ndef g():\n    %cd x\n")
    assert found.line_magics == ("matplotlib", "!", "time")
    assert found.cell_magic is None
    assert analyse("%%step a\n%%time\nx = 1").cell_magic == "time"
    assert analyse("%%bash\nls").cell_magic == "bash"


def test_awaits() -> None:
    for source in ("await f()", "async for i in r: pass", "async with c: pass", "[i async for i in r]", "f(await g())"):
        assert analyse(source).awaits, source
    for source in ("x = 1", "async def f():\n    await g()"):
        assert not analyse(source).awaits, source


def test_body() -> None:
    assert analyse("%%step a\nx = 1\n").body == "x = 1"
    assert analyse("%%time\n!ls").body == "get_ipython().system('ls')"
    assert analyse("%%bash\nls").body == ""
    assert analyse("x = (").body == ""
    assert "run_cell_magic('timeit'" in analyse("%%timeit\nx = 1").body


def test_cell_of_another_language_is_one_statement() -> None:
    (only,) = analyse("%%step a\n%%bash --out o\nls").statements
    assert (only.kind, only.line, only.end_line, only.writes) == ("magic", 2, 3, {"o"})


def test_optional_reads() -> None:
    found = analyse("!ls $HOME {d}\nx = d")
    assert found.optional_reads == {"HOME"}
    assert found.sure_reads == {"d"}


def test_iterated() -> None:
    assert analyse("for i in r: pass\n[j for j in s]\na, b = t\nx in u").iterated == {"r", "s", "t"}


def test_discarded_calls() -> None:
    found = analyse("model.fit(X, y)\nrandom.shuffle(deck)\nf(a)\nprint(b)\nz = g(c)")
    assert [
        (each.line, each.root, each.callee, each.is_method, set(each.arguments)) for each in found.discarded_calls
    ] == [
        (1, "model", "model.fit", True, {"X", "y"}),
        (2, "random", "random.shuffle", True, {"deck"}),
        (3, "f", "f", False, {"a"}),
    ]


def test_transform_keeps_lines() -> None:
    assert transform("x = 1\n") == "x = 1\n"
    assert transform("!a \\\n b\nx").splitlines() == ["get_ipython().system('a   b')", "", "x"]
    assert transform("\n%%step a\n%x y\n").splitlines() == ["", "", "get_ipython().run_line_magic('x', 'y')"]
    assert transform("x = (") == "x = ("


LINES = (
    "%load_ext nbflow", "%matplotlib inline", "%matplotlib  inline ", "%time x = 1", "%time print('a", "%foo (",
    "%env A=1 # c", "%x?", "%cd a\\", "% y", "%1a", "%a.b c", "%time", "%time ", "%ö b", "%t\tb", '%a \'b"',
    "%a {x} $y", "    %load_ext a", "x = 1", "", "  ", "# c", "def f():\n    return 1", "x = (1\n% y)",
    "'''\n%foo\n'''", "'a' \\", "if x:\n    pass\nelse:\n    z", "for i in y:\n    %time a", "In [1]: x", "...: 3",
    ">>> 3", "y = %time 3", "!ls", "\x0c", "%a\r", "@f",
)  # fmt: skip


def tree_of(python: str) -> str | None:
    """A text's tree, written out; None where it is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.dump(ast.parse(python))
        except (SyntaxError, ValueError):
            return None


def test_line_magics_are_the_calls_that_ipython_makes() -> None:
    """Whether or not IPython is asked: lines of any kind below each other, where they are not Python already."""
    texts = ["\n".join(lines) for count in (1, 2) for lines in itertools.product(LINES, repeat=count)]
    texts += ["\n".join(random.Random(seed).choices(LINES, k=3 + seed % 3)) for seed in range(500)]
    wrong, ipython = [], TransformerManager()
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ipython.transform_cell(text)
        made = parse_python(text)
        if tree_of(text) is None and tree_of(expected) not in (None, made.tree and ast.dump(made.tree)):
            wrong.append((text, made.python, expected))
    assert not wrong


@pytest.mark.running
def test_line_magics_need_no_ipython() -> None:
    """`%load_ext nbflow` stands in every notebook, and IPython is a quarter of what a reused run takes."""
    cells = ["%load_ext nbflow", "import os\n\n%matplotlib inline\n%time\nx = 1", "%%step a\n%matplotlib inline\nx"]
    code = (
        f"import sys\nfrom nbflow.analysis.cell import analyse\nfor cell in {cells!r}:\n    analyse(cell)\n"
        "print('IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "# comment\n\nx=1  # more\n"),
        ("x = {'a': 1}", "x = {\n    'a':\n        1,\n}"),
        ("%%step a --retry 3\nx = 1", "%%step b\nx = (1)"),
        ("x = 'a'", 'x = "a"'),
        ("!ls\nx", "\n\n!ls\n\nx"),
        ("%%bash\nls", "\n%%bash\nls\n\n"),
    ],
)
def test_normal_form_is_the_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 1", "y = 1"),
        ('"""a"""', '"""b"""'),
        ('def f():\n    """a\n    b"""', 'def f():\n        """a\n        b"""'),
        ("x = a + b", "x = a - b"),
        ("%%time\nx", "x"),
        ("%%bash\nls", "%%bash\npwd"),
        ("!ls", "!pwd"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("x = (", "x = (("),
        ("'\\ud800'", "'\\ud801'"),
    ],
)
def test_normal_form_tells_apart(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.running
def test_normal_form_is_the_same_in_every_process() -> None:
    source = (
        "import a\n@d\nclass C(B):\n    'doc'\n    x: int = f'{y!r:>{w}}'\n%time z = {1, 2}\n" + "n = 0x" + "f" * 5000
    )
    code = f"from nbflow.analysis import analyse, normalise; s = {source!r}; "
    code += "print(normalise(s)); print(analyse(s).writes == frozenset('a C z n'.split()))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {normalise(source) + "\nTrue\n"}


IPYTHON_CELLS = (
    "%time x = f(1)",
    "y = %time f(1)",
    "%timeit -n1 -r1 x = f(1)",
    "%timeit -n1 -r1 -v r f(1)",
    "r = %timeit -n1 -r1 -o f(1)",
    "%prun -q x = f(1)",
    "%%time\nx = f(1)\ny = x",
    "%%timeit -n1 -r1 a = 1\nc = a + f(1)",
    "%%capture out\nx = f(1)",
    "%%capture --no-stderr out\nx = f(1)",
    "%%time\n%%capture out\nx = !echo {f(1)}",
    "%%prun -q\nx = f(1)",
    "%%bash --out o --err e\necho 1",
    "%%script cat --out o\n1",
    "%%python --out o\nx = 1",
    "%%sx --out o\necho 1",
    "%%writefile {path}\nx = 1",
    "x = !echo 1",
    "x = %env HOME",
    "%sc v = echo 1",
    "if f(0) == 0:\n    %time x = 1",
    "!echo \\\n  1\nx = f(1)",
    "f?",
    ">>> x = f(1)\n>>> y = x",
)

RUN_IN_IPYTHON = """
import json, sys, tempfile
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
answers = []
for cell in json.load(sys.stdin):
    shell.reset(new_session=False)
    shell.user_ns.update(f=lambda n: n, path=tempfile.mktemp())
    before = set(shell.user_ns)
    result = shell.run_cell(cell)
    known = {name for name in shell.user_ns if name not in before and not name.startswith("_")}
    answers.append([result.success, sorted(known)])
print("\\n" + json.dumps(answers))
"""


@pytest.mark.running
def test_names_bound_are_those_that_ipython_binds() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_IN_IPYTHON], input=json.dumps(IPYTHON_CELLS), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    answers = json.loads(result.stdout.splitlines()[-1])
    assert answers == [[True, sorted(analyse(cell).writes)] for cell in IPYTHON_CELLS], result.stdout


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
@pytest.mark.parametrize(
    ("source", "reads", "definitions"),
    [
        ("def f[T: (A, B)](x: T, y: U = d) -> T:\n    return T, z", "A B U d z", "f"),
        ("class C[T](B[T]):\n    x: T = v\n    def m(self) -> T: return w", "B v w", "C"),
        ("type X[T] = list[T] | Y", "Y", "X"),
        ("type X = Z\nclass Z: ...", "", "X Z"),
    ],
)
def test_type_parameters(source: str, reads: str, definitions: str) -> None:
    found = analyse(source)
    assert (found.reads, found.definitions) == (names(reads), names(definitions))


def test_analysis_is_frozen_and_cached() -> None:
    source = "x = y  # cached\n" * 100
    first = analyse(source)
    assert analyse(source) is first
    with pytest.raises(AttributeError):
        first.reads = frozenset()  # type: ignore[misc]
    assert isinstance(first, Analysis)


@pytest.mark.running
def test_ipython_is_loaded_only_for_its_syntax() -> None:
    code = "import sys; from nbflow.analysis import analyse; analyse('x = 1\\ny = x'); print('IPython' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_star_imports_whose_names_are_known() -> None:
    stars = (StarImport("math", (("pi", "math.pi"), ("pow", "math.pow"))),)
    found = analyse("x = pi\nfrom math import *\ny = pi + pow(2, e)", stars=stars)
    assert (found.reads, found.writes, found.diagnostics) == ({"pi", "e"}, {"x", "y", "pi", "pow"}, ())
    assert found.statements[1].imports == stars[0].pairs
    either = "try:\n    from math import *\nexcept ImportError:\n    from cmath import *"
    (problem,) = analyse(either, stars=stars).diagnostics
    assert (problem.code, problem.name) == ("star-import", "cmath")
    assert analyse(either, stars=stars).statements[0].imports == stars[0].pairs


def test_star_imports_in_a_text() -> None:
    text = "import a; from b.c import *\ntry:\n    from .d import *\nexcept ImportError: from e import*\nf = 2 * g"
    assert star_modules("from b.c import x") == []
    assert star_modules(text) == ["b.c", ".d", "e"]
    assert is_star_import("from b.c import *  # all of it")
    assert not is_star_import("try:\n    from b import *\nexcept ImportError:\n    pass")
