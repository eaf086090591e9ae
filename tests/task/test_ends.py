"""How a step ends: whatever its code does with the process or with itself is its failure, never a step that is done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nbflow
from nbflow.model import Finding
from tests.engine.test_loops import write_notebook
from tests.support.by_hand import Start, states

pytestmark = pytest.mark.running

INTERRUPTS = {
    "raised": "raise KeyboardInterrupt",
    "raised with words": "raise KeyboardInterrupt('enough')",
    "raised below": "def stop():\n    raise KeyboardInterrupt\nstop()",
    "raised by what was awaited": "async def stop():\n    raise KeyboardInterrupt\nawait stop()",
    "a signal of its own": "import signal\nsignal.raise_signal(signal.SIGINT)",
    "the main thread": "import _thread, time\n_thread.interrupt_main()\ntime.sleep(30)",
    "from a thread": (
        "import os, signal, threading, time\n"
        "threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()\ntime.sleep(30)"
    ),
    "from another program": (
        "import os, subprocess, time\nsubprocess.run(['kill', '-INT', str(os.getpid())])\ntime.sleep(30)"
    ),
    "to the group": "import os, signal, time\nos.killpg(0, signal.SIGINT)\ntime.sleep(30)",
}
"""Ways in which a step is interrupted that nobody has asked nbflow for."""

OTHERS = {
    "left": ("import sys\nsys.exit()", "SystemExit", ""),
    "left with zero": ("import sys\nsys.exit(0)", "SystemExit", "0"),
    "left with words": ("raise SystemExit('no rows')", "SystemExit", "no rows"),
    "the word exit": ("exit()", "SystemExit", ""),
    "a generator's end": ("raise GeneratorExit", "GeneratorExit", ""),
    "cancelled": ("import asyncio\nraise asyncio.CancelledError('gone')", "CancelledError", "gone"),
    "cancelled by itself": (
        "import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(1)",
        "CancelledError",
        "",
    ),
    "one of its own": ("class Halt(BaseException):\n    pass\nraise Halt('here')", "Halt", "here"),
    "many at once": (
        "raise BaseExceptionGroup('both', [KeyboardInterrupt(), ValueError()])",
        "BaseExceptionGroup",
        "both",
    ),
    "no process": ("import os\nos._exit(0)", "WorkerLost", "exit status 0"),
    "terminated": (
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)",
        "WorkerLost",
        "SIGTERM",
    ),
    "killed": (
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(30)",
        "WorkerLost",
        "SIGKILL",
    ),
    "hung up": ("import os, signal, time\nos.kill(os.getpid(), signal.SIGHUP)\ntime.sleep(30)", "WorkerLost", "SIGHUP"),
}
"""What else ends a cell or its process, the failure's type and a part of its message."""

ENDS = {name: (deed, "KeyboardInterrupt", "") for name, deed in INTERRUPTS.items()} | OTHERS


def flow(folder: Path, *cells: str) -> nbflow.Run:
    path = write_notebook(folder / "flow.ipynb", ["%load_ext nbflow", *cells])
    return nbflow.run(path, store=str(folder / "store"))


def test_every_end_is_a_failure(tmp_path: Path) -> None:
    cells = []
    for at, (deed, _, _) in enumerate(ENDS.values()):
        cells += [f"%%step s{at}\nx{at} = 1\n{deed}", f"%%step t{at}\ny{at} = x{at}"]
    done = flow(tmp_path, *cells, "%%step last\nz = 3")
    assert (done.status, done.successful, done["last"].state) == ("failed", False, "done")
    for at, (name, (_, kind, said)) in enumerate(ENDS.items()):
        error = done[f"s{at}"].task.error
        assert (done[f"s{at}"].state, done[f"t{at}"].state) == ("failed", "cancelled"), name
        assert error is not None, name
        assert (error.type, said in error.message) == (kind, True), (name, error)
        if kind == "KeyboardInterrupt":
            assert error.message, name
            assert error.line is not None, name
            assert error.line >= 3, name
    assert "s0: KeyboardInterrupt: " in (done.error or "")


def test_every_end_is_tried_again_and_caught(tmp_path: Path) -> None:
    cells = []
    for at, (deed, _, _) in enumerate(ENDS.values()):
        indented = deed.replace("\n", "\n    ")
        first = f"from nbflow import current\nx{at} = current.attempt\nif x{at} == 1:\n    {indented}"
        cells.append(f"%%step again{at} --retry 1 --backoff 0.1\n{first}")
        cells.append(f"%%step caught{at} --catch problem{at}\n{deed}")
        cells.append(f"%%step told{at}\nkind{at} = problem{at}.type")
    done = flow(tmp_path, *cells)
    assert done.successful, done.error
    for at, (name, (_, kind, _)) in enumerate(ENDS.items()):
        assert done[f"again{at}"].task.attempt == 2, name
        assert done[f"again{at}"].task.data[f"x{at}"] == 2, name
        assert done[f"caught{at}"].state == "caught", name
        assert done[f"told{at}"].task.data[f"kind{at}"] == kind, name


def test_in_a_wide_fan_out(tmp_path: Path) -> None:
    """Small items share workers: the item that is interrupted fails, those before and behind it are done."""
    count = 40 + 10 * len(ENDS)
    body = "".join(
        f"if i == {40 + 10 * at}:\n    {deed.replace(chr(10), chr(10) + '    ')}\n"
        for at, (deed, _, _) in enumerate(ENDS.values())
    )
    wanted = {40 + 10 * at: kind for at, (_, kind, _) in enumerate(ENDS.values())}
    wide, joined = (
        f"%%step wide --foreach i in range({count}) --catch problem\n{body}y = i * i",
        "%%step all --join wide\nfound = [(getattr(one, 'y', 0), one.problem and one.problem.type) for one in inputs]",
    )
    done = flow(tmp_path, wide, joined)
    assert done.successful, done.error
    assert done.data.found == [(0 if i in wanted else i * i, wanted.get(i)) for i in range(count)]
    plain = flow(tmp_path, wide.replace(" --catch problem", ""))
    assert plain.status == "failed"
    assert {task.index[0] for task in plain["wide"].tasks if task.state == "failed"} == wanted.keys()
    assert {task.state for task in plain["wide"].tasks} == {"done", "failed"}


def test_in_what_stands_around_a_cell(tmp_path: Path) -> None:
    """Conditions, lists, definitions that are replayed, values that are stored."""
    stops = "class Stops:\n    def __reduce_ex__(self, protocol):\n        raise KeyboardInterrupt"
    done = flow(
        tmp_path,
        "def stop(*_):\n    raise KeyboardInterrupt",
        stops,
        "%%step asked --if stop()\na = 1",
        "%%step many --foreach i in stop()\nb = i",
        "%%step turns --until stop()\nc = 1",
        "%%step stored\nd = Stops()",
        "%%step last\ne = 1",
    )
    assert done.status == "failed"
    found = {step.name: step.state for step in done.steps()}
    assert found["asked"] == found["turns"] == found["stored"] == "failed"
    assert found["many"] != "done"
    assert found["last"] == "done"


def test_the_command_fails_and_resume_finds_it(tmp_path: Path) -> None:
    stops = (
        "%%step b --retry 1 --backoff 0.1\nimport pathlib\nprint(x)\nif not pathlib.Path('go').exists():\n"
        "    raise KeyboardInterrupt\ny = 2"
    )
    write_notebook(tmp_path / "flow.ipynb", ["%load_ext nbflow", "%%step a\nx = 1", stops, "%%step c\nz = y"])

    def nbflow_(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nbflow", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    first = nbflow_("run", "flow.ipynb")
    assert first.returncode == 1, first.stdout + first.stderr
    assert "KeyboardInterrupt: interrupted by its own code" in first.stderr
    assert "line 5" in first.stderr
    assert nbflow_("resume").returncode == 1
    (tmp_path / "go").touch()
    last = nbflow_("resume", "--json")
    assert last.returncode == 0, last.stderr
    events = [json.loads(line) for line in last.stdout.splitlines()]
    assert {event.get("state") for event in events if event.get("step") == "a"} <= {"reused", None}


def test_by_hand(start: Start) -> None:
    """A kernel cannot tell who has sent a signal: it cancels. What the notebook's own code raises is a failure."""
    raised = {name: deed for name, deed in INTERRUPTS.items() if name.startswith("raised")}
    sent = {name: deed for name, deed in INTERRUPTS.items() if name in ("a signal of its own", "the main thread")}
    cells = {f"s{at}": f"%%step s{at}\n{deed}" for at, deed in enumerate([*raised.values(), *sent.values()])}
    waits = "%%step wait\nimport pathlib, time\npathlib.Path('go').touch()\ntime.sleep(60)"
    turns = "%%step turns --until n > 3\nn = 1\nraise KeyboardInterrupt"
    kernel = start({**cells, "turns": turns, "wait": waits, "on": "%%step on\nprint(1)"})
    for cell in cells:
        assert kernel.run(cell).ename == "KeyboardInterrupt", cells[cell]
    assert kernel.run("turns").ename == "KeyboardInterrupt"
    request = kernel.send(kernel.notebook.cells["wait"], "wait")
    while not kernel.notebook.path.with_name("go").exists():
        time.sleep(0.01)
    kernel.interrupt()
    assert kernel.collect(request).ename == "KeyboardInterrupt"
    assert kernel.ok("on").stdout == "1\n"
    told = dict(states(kernel))
    assert [told[f"s{at}"] for at in range(len(cells))] == ["failed"] * len(raised) + ["cancelled"] * len(sent)
    assert (told["turns"], told["wait"], told["on"]) == ("failed", "cancelled", "done")


def test_a_run_from_the_kernel(start: Start) -> None:
    kernel = start(
        {
            "bad": "%%step bad\nraise KeyboardInterrupt",
            "elsewhere": "%%step elsewhere --timeout 1m\nimport os, signal\nos.kill(os.getpid(), signal.SIGINT)\nx = 1",
        }
    )
    executed = kernel.execute("%flow run")
    assert executed.status == "error"
    assert "bad failed: KeyboardInterrupt" in executed.evalue
    assert "elsewhere failed: KeyboardInterrupt" in kernel.run("elsewhere").evalue
    assert kernel.execute("1 + 1").result == "2"


# ---------------------------------------------------------------- what a step leaves open

LIBRARY = """import threading

go = threading.Event()


def end():
    print("the library ends")
    go.set()


def serve():
    go.wait()


def begin():
    threading._register_atexit(end)
    threading.Thread(target=serve, name="library").start()
"""
TIMES = """import time


def late(path):
    time.sleep(0.5)
    open(path, "w").close()


def ever(*_):
    while True:
        time.sleep(1)
"""
OPEN = {
    "joblib": "from joblib import Parallel, delayed\nx = Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, -2))",
    "joblib and large arrays": (
        "import numpy as np\nfrom joblib import Parallel, delayed\na = np.ones(500_000)\n"
        "x = Parallel(n_jobs=2)(delayed(np.sum)(a) for _ in range(2))"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nfrom times import late\n"
        "pool = ThreadPoolExecutor(1)\njob = pool.submit(late, 'by-thread')"
    ),
    "processes": (
        "from concurrent.futures import ProcessPoolExecutor\nfrom times import late\n"
        "pool = ProcessPoolExecutor(1)\njob = pool.submit(late, 'by-process')"
    ),
    "a pool": "import multiprocessing as mp\npool = mp.Pool(2)\nx = pool.map(abs, [-1, -2])",
    "a pool of threads": "from multiprocessing.pool import ThreadPool\npool = ThreadPool(2)\nx = pool.map(abs, [-1])",
    "a pool that was spawned": (
        "import multiprocessing as mp\npool = mp.get_context('spawn').Pool(1)\nx = pool.map(abs, [-1])"
    ),
    "a fork server": (
        "import multiprocessing as mp\npool = mp.get_context('forkserver').Pool(1)\nx = pool.map(abs, [-1])"
    ),
    "a manager": "import multiprocessing as mp\nmanager = mp.Manager()\nshared = manager.dict(a=1)\nx = shared['a']",
    "a queue that nobody reads": "import multiprocessing as mp\nqueue = mp.Queue()\nqueue.put(bytes(1_000_000))\nx = 1",
    "a process": (
        "import multiprocessing as mp\nfrom times import late\nmp.Process(target=late, args=('by-child',)).start()"
    ),
    "a process without end": (
        "import multiprocessing as mp\nfrom times import ever\nmp.Process(target=ever, name='ever').start()"
    ),
    "a daemon": (
        "import multiprocessing as mp\nfrom times import ever\n"
        "mp.Process(target=ever, name='daemonic', daemon=True).start()"
    ),
    "a handler that raises": (
        "import multiprocessing as mp, signal\nfrom times import ever\n"
        "def gone(*_):\n    raise RuntimeError('a worker has gone')\n"
        "mp.Process(target=ever, daemon=True).start()\nsignal.signal(signal.SIGCHLD, gone)"
    ),
    "shared memory": (
        "from multiprocessing.shared_memory import SharedMemory\n"
        "memory = SharedMemory(create=True, size=100)\nwhere = memory.name"
    ),
    "a program": "import subprocess\np = subprocess.Popen(['sleep', '600'], start_new_session=True)",
    "a library": "import library\nlibrary.begin()",
    "hooks": (
        "import atexit, sqlite3\nbase = sqlite3.connect(':memory:')\natexit.register(base.close)\n"
        "atexit.register(print, 'the second')\natexit.register(print, 'the first')"
    ),
}
"""What a cell leaves open, by what it is called."""

NAMED = {
    "a process": "awaited: Process-",
    "a process without end": "were ended: ",
    "a daemon": "as daemons are: daemonic",
    "a handler that raises": "could be ended: RuntimeError: a worker has gone",
    "a program": "were ended: sleep 600",
}
"""Those that a finding tells of, and how."""

OWN = "\nfrom nbflow.task import leftovers as _leftovers\nimport os as _os\nmine = _leftovers.descendants(_os.getpid())"


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_gone(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    limit = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < limit, [pid for pid in pids if alive(pid)]
        time.sleep(0.01)


def test_what_a_step_leaves_open_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "times.py").write_text(TIMES)
    names = [f"s{at}" for at in range(len(OPEN))]
    cells = [f"%%step {name} --timeout 50s\n{deed}{OWN}" for name, deed in zip(names, OPEN.values(), strict=True)]
    told: set[Finding] = set()
    path = write_notebook(tmp_path / "flow.ipynb", ["%load_ext nbflow", *cells])
    done = nbflow.run(path, store=str(tmp_path / "store"), watch=lambda snapshot, _: told.update(snapshot.findings))
    assert done.status == "done", done.error  # nothing has taken as long as it would have by itself
    steps = dict(zip(OPEN, names, strict=True))
    findings = {kind: [f.message for f in told if f.step == name] for kind, name in steps.items()}
    for kind, name in steps.items():
        check_gone(done[name].task.data.mine)
        named = NAMED.get(kind)
        assert len(findings[kind]) == (named is not None), findings
        assert named is None or named in findings[kind][0]
    for name in ("by-thread", "by-process", "by-child"):
        assert (tmp_path / name).exists(), name
    assert not Path("/dev/shm", done[steps["shared memory"]].task.data.where).exists()
    assert done[steps["a library"]].task.stdout == "the library ends\n"
    assert done[steps["hooks"]].task.stdout == "the first\nthe second\n"
    assert done[steps["hooks"]].task.stderr == ""


def test_in_a_fan_out_of_small_items(tmp_path: Path) -> None:
    """Items that leave a pool open take nobody with them, and items that do not share their worker as before."""
    cell = (
        "%%step wide --foreach i in range(60)\nimport os\nfrom joblib import Parallel, delayed\n"
        "y = Parallel(n_jobs=2)(delayed(abs)(-i) for _ in range(2)) if i in (20, 40) else [i, i]"
    )
    done = flow(tmp_path, cell + OWN, "%%step all --join wide\nys = [one.y for one in inputs]")
    assert done.successful, done.error
    assert done.data.ys == [[i, i] for i in range(60)]
    check_gone([pid for task in done["wide"].tasks for pid in task.data.mine])


@pytest.mark.parametrize("end", ["timeout", "cancel", "failure"])
def test_helpers_end_with_a_task_that_is_ended(end: str, tmp_path: Path) -> None:
    last = "raise ValueError" if end == "failure" else "time.sleep(600)"
    options = {"timeout": " --timeout 5s", "cancel": " --retry 2 --catch problem"}.get(end, "")
    cell = (
        f"%%step long{options}\nimport os, time\nfrom pathlib import Path\n"
        "from joblib import Parallel, delayed\nfrom nbflow.task import leftovers\n"
        "x = Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, -2))\n"
        f"Path('pids').write_text(' '.join(map(str, [os.getpid(), *leftovers.descendants(os.getpid())])))\n{last}"
    )
    write_notebook(tmp_path / "flow.ipynb", ["%load_ext nbflow", cell])
    process = subprocess.Popen(
        [sys.executable, "-m", "nbflow", "run", "flow.ipynb"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    pids: list[str] = []
    while len(pids) < 4 and process.poll() is None:
        pids = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
        time.sleep(0.01)
    if end == "cancel":
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == (130 if end == "cancel" else 1), said
    assert len(pids) >= 4, said  # the task, two workers, their tracker
    check_gone([int(pid) for pid in pids])


def test_by_hand_a_pool_stays(start: Start) -> None:
    pool = "from joblib import Parallel, delayed\nfrom nbflow.task import leftovers\nimport os\n"
    calls = "x{n} = Parallel(n_jobs=2)(delayed(abs)(i) for i in (-1, -2))\nps{n} = leftovers.descendants(os.getpid())"
    kernel = start({f"s{n}": f"%%step s{n}\n{pool}{calls.format(n=n)}" for n in (1, 2)})
    kernel.ok("s1", "s2")
    assert kernel.value("set(ps1) <= set(ps2), len(ps1) >= 2") == "(True, True)"
    kernel.execute("from joblib.externals.loky import get_reusable_executor\nget_reusable_executor().shutdown()")


BROKEN_OFF = {
    "a hook": ("atexit.register(time.sleep, 600)", "exit hooks left by the cell were broken off after 0 s: time.sleep"),
    "two hooks": ("atexit.register(ever); atexit.register(print, 'said')", "broken off after 0 s: __main__.ever"),
    "a pool": ("p = ThreadPoolExecutor(1); p.submit(ever)", "pools left by the cell ended with it after 0 s: ThreadP"),
    "a library's callback": ("threading._register_atexit(lambda: 1 / 0)", "failed: ZeroDivisionError"),
}


@pytest.mark.parametrize("kind", BROKEN_OFF)
def test_what_does_not_end_is_broken_off(kind: str) -> None:
    deed, told = BROKEN_OFF[kind]
    source = (
        "import atexit, os, threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "from nbflow.task import leftovers\ndef ever():\n    while True:\n        time.sleep(1)\n"
        f"leftovers.PATIENCE = 0.3\n{deed}\n"
        "print([f.message for f in leftovers.end('s', 'c')], flush=True)\nos._exit(0)"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told in done.stdout
    assert done.stderr == ""


SHARED = {
    "SharedMemory": "from multiprocessing.shared_memory import SharedMemory\nx = SharedMemory(create=True, size=10)",
    "ShareableList": "from multiprocessing.shared_memory import ShareableList\nx = ShareableList([1, 2])",
    "DictProxy": "import multiprocessing as mp\nmanager = mp.Manager()\nx = manager.dict(a=1)",
}


def test_what_only_names_shared_memory_is_not_stored(tmp_path: Path) -> None:
    """What it names ends with its step: a step that leaves it to another one is told so."""
    cells = []
    for kind, deed in SHARED.items():
        cells += [f"%%step made_{kind}\n{deed}", f"%%step read_{kind} --timeout 90s\nprint(x)"]
        cells += [f"%%step alone_{kind}\n{deed.replace('x =', 'y =')}\nz_{kind} = len(list(getattr(y, 'buf', y)))"]
    done = flow(tmp_path, *cells, "%%step last\nprint(" + ", ".join(f"z_{kind}" for kind in SHARED) + ")")
    for kind in SHARED:
        error = done[f"made_{kind}"].task.error
        assert error is not None, kind
        assert f"a {kind} ends with its step and cannot be stored" in error.message, error
    assert done["last"].task.stdout == "10 2 1\n"
