"""The warm lane: what every executor does, and that a reused worker lets nothing of one task reach the next."""

# ruff: noqa: E501
# A line for each case.

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.executors.local import LocalExecutor
from nbflow.model import Output, Started, StepOptions, TaskEvent, TaskSpec
from nbflow.plugins import Handle
from tests.conformance.executor import ExecutorConformance
from tests.support.tasks import Done, Tasks, definition, setup, started

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform != "linux", reason="forks from a zygote")]


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(lane="warm")
    yield executor
    executor.close()


class TestWarm(ExecutorConformance):
    """Every task that may share a process does."""


@pytest.fixture
def one(executor: LocalExecutor, tmp_path: Path) -> Tasks:
    return Tasks(executor, tmp_path)


def pid_of(done: Done) -> int:
    return started(done).pid


# ---------------------------------------------------------------- what a task may leave behind

RESTORED = {
    "globals": ("x = 1\n_p = 2", "('x' in globals(), '_p' in globals())"),
    "environment": ("import os\nos.environ['LEAK'] = '1'\ndel os.environ['PATH']", "import os\n('LEAK' in os.environ, 'PATH' in os.environ)"),
    "folder": ("import os\nos.chdir('/')", "import os\nos.getcwd() != '/'"),
    "path": ("import sys\nsys.path.insert(0, '/nowhere')", "import sys\n'/nowhere' in sys.path"),
    "warnings": ("import warnings\nwarnings.simplefilter('error')", "import warnings\n[f[0] for f in warnings.filters].count('error')"),
    "figures": ("import matplotlib.pyplot as plt\nplt.figure()\nx = 1", "import matplotlib.pyplot as plt\nplt.get_fignums()"),
    "rcParams": ("import matplotlib\nmatplotlib.rcParams['figure.dpi'] = 33", "import matplotlib\nmatplotlib.rcParams['figure.dpi'] == 33"),
    "last value": ("41 + 1", "[globals().get(n) for n in ('_', '__', '___', 'In', 'Out')]"),
    "decimal context": ("import decimal\ndecimal.getcontext().prec = 3", "import decimal\ndecimal.getcontext().prec"),
    "random state": ("import random\nrandom.seed(1)\nrandom.random()", "import random\nrandom.random() == 0.8474337369372327"),
    "own modules": ("import mine\nmine.value = 9", "import mine\nmine.value"),
    "current": ("from nbflow import current as _c\nd = _c.tempdir", "from nbflow import current as _c\nimport os\nlen(os.listdir(_c.tempdir))"),
    "numpy": ("import numpy as np\nx = np.seterr(all='raise')", "import numpy as np\nnp.geterr()['divide']"),
    "print options": ("import numpy as np\nnp.set_printoptions(precision=2)", "import numpy as np\nnp.get_printoptions()['precision']"),
    "time zone": ("import os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()", "import time\ntime.tzname, time.localtime(0).tm_hour"),
    "time zone alone": ("import os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\ndel os.environ['TZ']", "import time\ntime.tzname, time.localtime(0).tm_hour"),
    "cyclic garbage": ("class A:\n    def __del__(self): print('late')\na = A(); a.a = a\ndel a", "import gc\ngc.collect()\n1"),
}  # fmt: skip

WATCHED = {
    "the second of two modules": ("import os, colorsys\ncolorsys.ONE_SIXTH = 3\n1", "import colorsys\ncolorsys.ONE_SIXTH == 3", "False"),
    "sys": ("import sys\nsys.leak = 1", "import sys\nhasattr(sys, 'leak')", "False"),
    "builtins": ("import builtins\nbuiltins.extra = 7", "import builtins\nhasattr(builtins, 'extra')", "False"),
    "module attribute": ("import math\nmath.pi = 3", "import math\nmath.pi == 3", "False"),
    "module container": ("import mimetypes\nmimetypes.suffix_map['.leak'] = 1", "import mimetypes\n'.leak' in mimetypes.suffix_map", "False"),
    "value in a module's container": ("import mimetypes\nmimetypes.suffix_map['.tgz'] = 'leak'", "import mimetypes\nmimetypes.suffix_map['.tgz'] == 'leak'", "False"),
    "submodule": ("import os\nos.path.leak = 1", "import os\nhasattr(os.path, 'leak')", "False"),
    "module by another way": ("import sys\nsys.modules['colorsys'].leak = 1", "import colorsys\nhasattr(colorsys, 'leak')", "False"),
    "module replaced": ("import sys, types\nsys.modules['colorsys'] = types.ModuleType('colorsys')", "import colorsys\nhasattr(colorsys, 'rgb_to_hls')", "True"),
    "class attribute": ("import json\njson.JSONEncoder.item_separator = ';'", "import json\njson.JSONEncoder.item_separator", "', '"),
    "class imported by name": ("from fractions import Fraction\nFraction.leak = 1", "from fractions import Fraction\nhasattr(Fraction, 'leak')", "False"),
    "special method": ("from fractions import Fraction\nFraction.__add__ = lambda *_: 7", "from fractions import Fraction\nFraction(1) + 1 == 7", "False"),
    "attribute of a function": ("import json\njson.dumps.calls = 1", "import json\nhasattr(json.dumps, 'calls')", "False"),
    "object of a module": ("import logging\nlogging.lastResort.level = 1", "import logging\nlogging.lastResort.level", "30"),
    "accessor": ("import pandas as pd\n@pd.api.extensions.register_dataframe_accessor('leak')\nclass A:\n    def __init__(self, df): pass", "import pandas as pd\nhasattr(pd.DataFrame, 'leak')", "False"),
    "scikit-learn": ("import sklearn\nsklearn.set_config(assume_finite=True)", "import sklearn\nsklearn.get_config()['assume_finite']", "False"),
    "resource limit": ("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))", "import resource\nresource.getrlimit(resource.RLIMIT_NOFILE)[0] == 99", "False"),
    "priority": ("import os\nn = os.nice(1)", "1", "1"),
    "cores": ("import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])", "import os\nlen(os.sched_getaffinity(0)) == os.cpu_count()", "True"),
    "temporary folder": ("import tempfile\ntempfile.tempdir = '/nowhere'", "import tempfile\ntempfile.gettempdir() == '/nowhere'", "False"),
    "digits of integers": ("import sys\nsys.set_int_max_str_digits(9999)", "import sys\nsys.get_int_max_str_digits() == 9999", "False"),
    "another signal": ("import signal\nsignal.signal(signal.SIGWINCH, lambda *_: None)", "import signal\nsignal.getsignal(signal.SIGWINCH) == signal.SIG_DFL", "True"),
    "what a cell shows": ("get_ipython().ast_node_interactivity = 'all'", "1\n2", "2"),
    "how a value is shown": ("get_ipython().display_formatter.formatters['text/plain'].for_type(int, lambda v, p, c: p.text('leak'))", "7", "7"),
    "signal": ("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)", "import signal\nsignal.getsignal(signal.SIGUSR1) == signal.SIG_DFL", "True"),
    "timer": ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 50)\n1", "import signal\nsignal.getitimer(signal.ITIMER_REAL)[0]", "0.0"),
    "thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "import threading\nthreading.active_count()", "1"),
    "pool": ("from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(1)\na = p.submit(pow, 2, 3).result()", "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(pow, 2, 3).result()", "8"),
    "child": ("import subprocess\np = subprocess.Popen(['sleep', '60'])", "import os\ntry:\n    os.waitpid(-1, os.WNOHANG)\n    n = 1\nexcept ChildProcessError:\n    n = 0\nn", "0"),
    "open file": ("import os\nfd = os.open('/dev/null', os.O_RDONLY)", "import os\n1", "1"),
    "stdout turned away": ("import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)", "import os\nos.system('echo here')\n1", "1"),
    "umask": ("import os\nold = os.umask(0o77)", "import os\nnow = os.umask(0o22)\nnow == 0o77", "False"),
    "recursion limit": ("import sys\nsys.setrecursionlimit(5555)", "import sys\nsys.getrecursionlimit() == 5555", "False"),
    "logging": ("import logging\nlogging.getLogger('a.b').setLevel(3)", "import logging\nlogging.getLogger('a.b').level", "0"),
    "pandas": ("import pandas as pd\npd.set_option('display.max_rows', 3)", "import pandas as pd\npd.get_option('display.max_rows')", "60"),
    "exit hook": ("import atexit\natexit.register(print, 'bye')\n1", "import atexit\natexit._ncallbacks() > 50", "False"),
    "event loop": ("import asyncio\nawait asyncio.sleep(0)", "import asyncio\n1", "1"),
    "magic": ("from IPython.core.magic import register_line_magic\n@register_line_magic\ndef leaky(line): return 1", "'leaky' in get_ipython().magics_manager.magics['line']", "False"),
    "hook of the shell": ("get_ipython().events.register('pre_run_cell', lambda *_: print('leak'))", "1", "1"),
    "meta path": ("import sys\nsys.meta_path.append(type('F', (), {'find_spec': None}))", "import sys\nlen([f for f in sys.meta_path if getattr(f, '__name__', '') == 'F'])", "0"),
    "locale": ("import locale\nx = locale.setlocale(locale.LC_ALL, 'C.UTF-8' if locale.setlocale(locale.LC_ALL) == 'C' else 'C')", "1", "1"),
    "socket timeout": ("import socket\nsocket.setdefaulttimeout(3)", "import socket\nsocket.getdefaulttimeout() is None", "True"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTORED)
def test_put_back(case: str, one: Tasks) -> None:
    """The next task of the same worker finds all as it should be."""
    (one.folder / "mine.py").write_text("value = 1\n")
    leak, look = RESTORED[case]
    before = one.run(look)  # libraries are loaded
    first = one.run(leak)
    second = one.run(look)
    assert first.result.failure is None
    assert second.shown == before.shown
    assert second.stdout == ""
    assert pid_of(first) == pid_of(second), "put back, not started anew"


@pytest.mark.parametrize("case", WATCHED)
def test_a_worker_that_was_changed_is_used_no_more(case: str, one: Tasks) -> None:
    leak, look, expected = WATCHED[case]
    one.run(look)
    first = one.run(leak)
    assert first.result.failure is None
    second = one.run(look)
    assert second.shown.splitlines()[-1] == expected
    assert pid_of(first) != pid_of(second)


def test_a_worker_is_used_again(one: Tasks) -> None:
    assert len({pid_of(one.run(f"x = {number}")) for number in range(8)}) == 1


def test_definitions_are_made_anew(one: Tasks) -> None:
    count = definition("Count", "class Count:\n    n = 0\n    seen = []\n")
    grow = definition("grow", "def grow(x, to=[]):\n    to.append(x)\n    return len(to)", line=5)
    source = "Count.n += 1\nCount.seen.append(1)\n(Count.n, len(Count.seen), grow(1))"
    done = [one.run(source, replay=(count, grow)) for _ in range(3)]
    assert [each.shown for each in done] == ["(1, 1, 1)"] * 3
    assert len({pid_of(each) for each in done}) == 1


def test_set_up_is_replayed_for_each_task(one: Tasks) -> None:
    steps = (
        setup("import sys; sys.path.append('/somewhere')"),
        setup("%env MARK=5", line=2),
        setup("import warnings; warnings.filterwarnings('ignore')", line=3),
        setup("import matplotlib.pyplot as plt; plt.rcParams['figure.dpi'] = 44", line=4),
        setup("import numpy; numpy.set_printoptions(precision=3)", line=5),
    )
    source = (
        "import os, sys, warnings, numpy, matplotlib\nwarnings.warn('not shown')\n"
        "(os.environ['MARK'], sys.path.count('/somewhere'), matplotlib.rcParams['figure.dpi'], numpy.array([1 / 3]))"
    )
    done = [one.run(source, replay=steps) for _ in range(3)]
    assert [each.shown for each in done] == ["('5', 1, 44.0, array([0.333]))"] * 3
    assert [each.live("stderr") for each in done] == [""] * 3
    assert len({pid_of(each) for each in done}) == 1
    other = one.run("import numpy\nnumpy.array([1 / 3])")
    assert other.shown == "array([0.33333333])", "another set-up, another worker"


def test_inputs_are_not_shared_between_tasks(one: Tasks) -> None:
    first = one.run("import numpy as np\na = [1]\nb = np.zeros(10)")
    source = "a.append(2)\nb += 1\n(len(a), float(b.sum()))"
    assert [one.run(source, after=first, writes=("a", "b")).shown for _ in range(3)] == ["(2, 10.0)"] * 3


def test_what_a_dying_object_says_is_not_the_next_tasks(one: Tasks) -> None:
    one.run("class Loud:\n    def __del__(self): print('dying')\nloud = Loud()")
    assert one.run("print('next')").stdout == "next\n"


def test_a_warning_is_shown_in_each_task(one: Tasks) -> None:
    source = "import warnings\nfor _ in range(2):\n    warnings.warn('once', UserWarning)"
    shown = [one.run(source).live("stderr").count("UserWarning: once") for _ in range(3)]
    assert shown == [shown[0]] * 3
    assert shown[0] >= 1


def test_what_needs_a_process_of_its_own_gets_one(one: Tasks) -> None:
    shared = pid_of(one.run("1"))
    connection = setup("connection = object()", names=("connection",))
    for fields in (
        {"options": StepOptions(timeout=60)}, {"options": StepOptions(memory=1 << 33)}, {"attempt": 2},
        {"options": StepOptions(once=True)}, {"replay": (connection,)},
    ):  # fmt: skip
        assert pid_of(one.run("1", **fields)) != shared


# ---------------------------------------------------------------- batches


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasks]:
    """One worker only, so that tasks wait behind each other in it."""
    monkeypatch.setattr(LocalExecutor, "slots", lambda _: 1)
    executor = LocalExecutor(lane="warm")
    tasks = Tasks(executor, tmp_path)
    for number in range(4):
        tasks.run(f"x = {number}")
    yield tasks
    executor.close()


@pytest.mark.parametrize(
    "deadly", ["import os\nos._exit(0)", "import os\nos._exit(3)", "import os\nos.kill(os.getpid(), 9)", "import ctypes\nctypes.string_at(0)"],
    ids=["exit-0", "exit-3", "kill", "segfault"],
)  # fmt: skip
def test_a_crash_fails_only_the_task_that_ran(own: Tasks, deadly: str) -> None:
    submitted = [
        own.submit(deadly if number == 5 else f"import time\nx = {number}\ntime.sleep(0.01)") for number in range(12)
    ]
    done = [own.finish(spec, handle) for spec, handle in submitted]
    assert [number for number, each in enumerate(done) if each.result.failure is not None] == [5]
    assert done[5].failure.kind == "lost"
    assert [each.value("x") for number, each in enumerate(done) if number != 5] == [n for n in range(12) if n != 5]
    for each in done:
        assert sum(isinstance(event, Started) for event in each.events) == 1


def test_output_belongs_to_its_task(own: Tasks) -> None:
    source = "import os\nprint('p', {n})\nos.system('echo s {n}')\nprint('q', {n})"
    submitted = [own.submit(source.format(n=number)) for number in range(20)]
    for number, (spec, handle) in enumerate(submitted):
        assert own.finish(spec, handle).stdout == f"p {number}\ns {number}\nq {number}\n"


def test_cancelling_one_of_a_batch(own: Tasks) -> None:
    submitted = [own.submit(f"import time\ntime.sleep(0.2)\nprint({number})") for number in range(5)]
    submitted[2][1].cancel(5.0)
    done = [own.finish(spec, handle) for spec, handle in submitted]
    assert [each.result.failure is None for each in done] == [True, True, False, True, True]
    assert done[2].failure.kind == "cancelled"
    assert done[2].stdout == ""


def finish_when(text: str, grace: float, spec: TaskSpec, handle: Handle) -> Done:
    """Cancel a task once it has printed the text."""
    events: list[TaskEvent] = []
    for event in handle.events():
        events.append(event)
        if isinstance(event, Output) and text in event.output.get("text", ""):
            handle.cancel(grace)
    return Done(spec, events, 0.0)


def test_cancelling_the_one_that_runs(own: Tasks) -> None:
    submitted = [own.submit("import time\nprint('go')\ntime.sleep(60)"), *(own.submit(f"x = {n}") for n in range(4))]
    first = finish_when("go", 5.0, *submitted[0])
    assert first.failure.kind == "cancelled"
    assert [own.finish(*each).value("x") for each in submitted[1:]] == [0, 1, 2, 3]


def test_closing_ends_what_waits(tmp_path: Path) -> None:
    executor = LocalExecutor(lane="warm")
    tasks = Tasks(executor, tmp_path)
    submitted = [tasks.submit("import time\ntime.sleep(30)") for _ in range(40)]
    executor.close()
    for spec, handle in submitted:
        assert tasks.finish(spec, handle).failure.kind in {"cancelled", "lost"}
