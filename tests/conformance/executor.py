"""What every place where tasks run must do; each executor's tests subclass this and give it an executor."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from nbflow.model import Ended, Output, Started, StepOptions
from nbflow.plugins import Executor, SupportsCapacity
from nbflow.store import location, records
from tests.support.tasks import Tasks, definition, setup, started


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pid: int, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


class ExecutorConformance:
    """Subclass with a fixture `executor`, best of the module's or class's scope."""

    @pytest.fixture
    def tasks(self, executor: Executor, tmp_path: Path) -> Tasks:
        return Tasks(executor, tmp_path)

    # ------------------------------------------------------------ protocol

    def test_is_an_executor(self, executor: Executor) -> None:
        assert isinstance(executor, Executor)
        assert isinstance(executor, SupportsCapacity)
        assert executor.slots() >= 1

    def test_events_begin_and_end(self, tasks: Tasks) -> None:
        done = tasks.run("print('hello')\n41 + 1")
        assert isinstance(done.events[0], Started)
        assert isinstance(done.events[-1], Ended)
        assert sum(isinstance(event, Ended) for event in done.events) == 1
        assert done.stdout == "hello\n"
        assert done.shown == "42"
        assert done.result.failure is None

    def test_the_record_is_in_the_store_when_ended_comes(self, tasks: Tasks) -> None:
        done = tasks.run("x = [1, 2]\nprint(x)")
        record = done.result.record
        assert record is not None
        kept = records.read_record(location.open_store(done.spec.store), done.spec.key, done.spec.execution)
        assert kept is not None
        assert kept.artifacts == record.artifacts
        assert kept.outputs[0]["text"] == "[1, 2]\n"
        assert done.value("x") == [1, 2]

    def test_many_at_once(self, tasks: Tasks) -> None:
        handles = [tasks.submit(f"x = {number}\nprint(x)") for number in range(6)]
        for number, (spec, handle) in enumerate(handles):
            done = tasks.finish(spec, handle)
            assert done.value("x") == number
            assert done.stdout == f"{number}\n"

    # ------------------------------------------------------------ isolation

    def test_tasks_do_not_see_each_other(self, tasks: Tasks) -> None:
        tasks.run("import os, sys, builtins\nx = 1\nos.environ['LEAK'] = '1'\nsys.leak = builtins.leak = 1\n_p = 2")
        done = tasks.run(
            "import os, sys, builtins\n"
            "(sorted(n for n in globals() if n in ('x', '_p')), 'LEAK' in os.environ, hasattr(sys, 'leak'), "
            "hasattr(builtins, 'leak'))"
        )
        assert done.shown == "([], False, False, False)"

    def test_runs_in_main_and_in_the_folder(self, tasks: Tasks) -> None:
        (tasks.folder / "local_module.py").write_text("value = 5\n")
        done = tasks.run(
            "import __main__, os, sys, local_module\n"
            "def f(): return x\nx = local_module.value\n"
            "(__name__, f.__module__, __main__.x, __main__.f(), os.getcwd(), sys.path[0])"
        )
        assert done.shown == repr(("__main__", "__main__", 5, 5, str(tasks.folder), str(tasks.folder)))

    def test_random_numbers_differ_between_tasks(self, tasks: Tasks) -> None:
        source = "import random, numpy as np\na = (random.random(), np.random.rand())"
        first, second = (tasks.run(source).value("a") for _ in range(2))
        assert first[0] != second[0]
        assert first[1] != second[1]

    def test_no_gpu_unless_asked_for(self, tasks: Tasks) -> None:
        assert tasks.run("import os\nos.environ['CUDA_VISIBLE_DEVICES']").shown == "''"

    # ------------------------------------------------------------ values

    def test_values_travel_and_shared_objects_stay_shared(self, tasks: Tasks) -> None:
        first = tasks.run("a = [1]\nb = {'a': a}\nc = 'apart'")
        second = tasks.run("(b['a'] is a, c)", after=first)
        assert second.shown == "(True, 'apart')"

    def test_isinstance_across_tasks(self, tasks: Tasks) -> None:
        point = definition("Point", "class Point:\n    def __init__(self, x): self.x = x\n")
        first = tasks.run("p = Point(3)", replay=(point,))
        assert first.result.failure is None
        second = tasks.run("(isinstance(p, Point), type(p) is Point, p.x)", after=first, replay=(point,))
        assert second.shown == "(True, True, 3)"

    def test_a_cells_own_class_is_stored_by_reference(self, tasks: Tasks) -> None:
        source = "class Point:\n    pass\np = Point()"
        own = definition("Point", "class Point:\n    pass\n", cell="abcd", position=3)
        first = tasks.run(source, own=(own,))
        record = first.result.record
        assert record is not None
        assert set(record.artifacts) == {"p"}
        assert [ref.id for ref in record.groups[0].definitions] == [own.id]

    def test_inputs_win_over_definitions(self, tasks: Tasks) -> None:
        first = tasks.run("scale = 10")
        scale = definition("scale", "scale = 2")
        f = definition("f", "def f(x): return x * scale", line=2)
        assert tasks.run("f(1)", after=first, replay=(scale, f)).shown == "10"
        assert tasks.run("f(1)", replay=(scale, f)).shown == "2"

    def test_definitions_with_bound_names(self, tasks: Tasks) -> None:
        first = tasks.run("base = 7")
        record = first.result.record
        assert record is not None
        ref = record.artifacts["base"].group
        spec_inputs = tasks.spec("", after=first).inputs
        f = definition("f", "def f(x=base): return x", binds={"base": spec_inputs["base"]})
        done = tasks.run("(f(), 'base' in globals())", replay=(f,), groups=record.groups)
        assert ref == 0
        assert done.shown == "(7, False)"

    def test_set_up_is_replayed_in_silence(self, tasks: Tasks) -> None:
        steps = (
            setup("import os\nprint('not shown')\nos.system('echo nor this')"),
            setup("%env MARK=5\ndisplay('nor this')", line=2),
            setup("import sys; sys.path.append('/somewhere')", line=3),
        )
        done = tasks.run("import os, sys\n(os.environ['MARK'], '/somewhere' in sys.path)", replay=steps)
        assert done.shown == "('5', True)"
        assert done.live() == ""

    def test_logging_set_up_by_replay_is_shown(self, tasks: Tasks) -> None:
        steps = (setup("import logging, sys\nlogging.basicConfig(level='INFO')\nlogging.info('not this')"),)
        done = tasks.run("import logging\nlogging.info('this')", replay=steps)
        assert done.live("stderr") == "INFO:root:this\n"

    def test_a_replayed_cell_that_fails_is_named(self, tasks: Tasks) -> None:
        done = tasks.run("1", replay=(definition("f", "x = 1\nf = 1 / 0", line=4, cell="other", position=2),))
        assert done.failure.type == "ZeroDivisionError"
        assert (done.failure.cell, done.failure.line) == ("other", 5)
        assert "nbflow" not in done.failure.traceback

    def test_parameters_and_current(self, tasks: Tasks) -> None:
        done = tasks.run(
            "from nbflow import current\n"
            "(current.flow, current.step, current.task, current.attempt, current.index, current.parameters.lr,"
            " current.parameters['lr'], current.tags, current.is_flow, lr)",
            parameters=pickle.dumps({"lr": 0.5}),
            values={"lr": 0.5},
            index=(2, 1),
            tags=("t",),
            attempt=2,
        )
        assert done.shown == "('f', 's', 's/2.1', 2, 1, 0.5, 0.5, ('t',), True, 0.5)"

    def test_a_value_that_cannot_be_stored(self, tasks: Tasks) -> None:
        done = tasks.run("import threading\nlock = threading.Lock()\nx = 1")
        record = done.result.record
        assert record is not None
        assert record.artifacts["lock"].group == -1
        assert record.artifacts["lock"].error
        assert done.value("x") == 1
        for fields in ({"required": ("lock",)}, {"options": StepOptions(outputs=("lock",)), "outputs": ("lock",)}):
            failed = tasks.run("import threading\nlock = threading.Lock()", **fields).failure
            assert failed.type == "SerializationError"
            assert "lock" in failed.message
            assert "step s" in failed.message
            assert "%%setup" in (failed.fix or "")

    def test_a_value_that_cannot_be_loaded(self, tasks: Tasks) -> None:
        broken = definition("B", "class B:\n    def __setstate__(self, state): raise ValueError('no')\n")
        first = tasks.run("b = B()\nb.x = 1", replay=(broken,))
        failure = tasks.run("1", after=first, replay=(broken,)).failure
        assert failure.type == "SerializationError"
        assert "b could not be loaded: ValueError: no" in failure.message

    def test_large_values(self, tasks: Tasks) -> None:
        first = tasks.run("import numpy as np\na = np.arange(5_000_000, dtype=float)\nb = a[:10]")
        second = tasks.run("b[0] = 7\n(float(a[0]), float(a.sum()), a.flags.writeable)", after=first)
        assert second.shown == f"(7.0, {float(sum(range(5_000_000)) + 7)}, True)"

    def test_which_names_are_artifacts(self, tasks: Tasks) -> None:
        own = (definition("f", "def f(): pass"), definition("os", "import os"))
        done = tasks.run(
            "import os\ndef f(): pass\nx = 1\n_private = 2\nfor i in range(3): pass\nif False: maybe = 1",
            own=own,
            writes=("x", "i", "maybe"),
        )
        record = done.result.record
        assert record is not None
        assert set(record.artifacts) == {"x", "i"}
        assert record.unbound == ("maybe",)

    def test_inputs_changed_in_place_are_found(self, tasks: Tasks) -> None:
        first = tasks.run("a = [1]\nb = [2]\nc = 3")
        done = tasks.run("def sneak(v): v.append(9)\nsneak(a)\nlen(b)", after=first)
        record = done.result.record
        assert record is not None
        assert {"a", "b", "c"}.intersection(record.changed) == {"a"}
        assert done.value("a") == [1, 9]
        assert "b" not in record.artifacts

    # ------------------------------------------------------------ output

    def test_order_of_prints_and_commands(self, tasks: Tasks) -> None:
        done = tasks.run("import os\nfor i in range(150):\n    print('p', i)\n    os.system(f'echo s {i}')")
        assert done.stdout == "".join(f"p {i}\ns {i}\n" for i in range(150))

    def test_a_hundred_thousand_prints(self, tasks: Tasks) -> None:
        done = tasks.run("for i in range(100_000): print(i)")
        assert done.live() == "".join(f"{i}\n" for i in range(100_000))
        assert not done.result.truncated

    def test_output_beyond_the_cap_is_live_only(self, tasks: Tasks) -> None:
        done = tasks.run("for i in range(30): print('x' * 99_999)")
        assert len(done.live()) == 3_000_000
        assert done.result.truncated
        assert 1_000_000 <= len(done.stdout) < 1_100_000
        assert "left out" in done.result.outputs[-2]["text"]
        assert done.result.outputs[-1]["text"].endswith("xxx\n")

    def test_output_comes_while_the_task_runs(self, tasks: Tasks) -> None:
        spec, handle = tasks.submit("import time\nprint('first')\ntime.sleep(1.0)")
        at: dict[str, float] = {}
        for event in handle.events():
            at["first" if isinstance(event, Output) else type(event).__name__] = time.monotonic()
        assert at["Ended"] - at["first"] > 0.8, spec

    def test_secrets_are_neither_shown_nor_kept(self, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOKEN", "s3cr3t-value")
        source = (
            "import os\nprint(os.environ['TOKEN'])\ndisplay(os.environ['TOKEN'])\nraise ValueError(os.environ['TOKEN'])"
        )
        done = tasks.run(source, secrets=("TOKEN",))
        assert done.stdout == "***\n"
        assert done.failure.message == "***"
        assert "s3cr3t-value" not in repr(done.events)

    # ------------------------------------------------------------ failures

    def test_an_error_names_cell_and_line(self, tasks: Tasks) -> None:
        done = tasks.run("x = 1\n\ndef f():\n    raise KeyError('gone')\n\nf()")
        failure = done.failure
        assert (failure.type, failure.message, failure.kind) == ("KeyError", "'gone'", "error")
        assert (failure.cell, failure.line) == ("abcd", 6)
        assert "LookupError" in failure.bases
        lines = failure.traceback.splitlines()
        assert lines[1] == '  File "train", line 6, in <module>'
        assert lines[2].strip() == "f()"
        assert "nbflow" not in failure.traceback
        assert "\x1b" not in failure.traceback
        error = done.result.outputs[-1]
        assert error["output_type"] == "error"
        assert error["ename"] == "KeyError"
        assert "step" in error["traceback"][2]
        assert "nbflow" not in "".join(error["traceback"])

    def test_syntax_error(self, tasks: Tasks) -> None:
        failure = tasks.run("x = 1\ny = = 2").failure
        assert (failure.type, failure.line) == ("SyntaxError", 2)

    def test_system_exit(self, tasks: Tasks) -> None:
        done = tasks.run("import sys\nprint('before')\nsys.exit(3)")
        assert (done.failure.type, done.failure.message, done.failure.line) == ("SystemExit", "3", 3)
        assert done.live("stderr") == ""

    @pytest.mark.parametrize("call", ["os.kill(os.getpid(), signal.SIGINT)", "os.killpg(0, signal.SIGINT)"])
    def test_an_interrupt_that_nobody_asked_for(self, tasks: Tasks, call: str) -> None:
        failure = tasks.run(f"import os, signal, time\n{call}\ntime.sleep(30)").failure
        assert (failure.type, failure.kind) == ("KeyboardInterrupt", "error")
        assert "not by nbflow" in failure.message
        assert failure.line in {2, 3}

    def test_input_has_nobody_to_ask(self, tasks: Tasks) -> None:
        failure = tasks.run("name = input('who? ')").failure
        assert "%%params" in failure.message
        assert failure.line == 1

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            (
                "import os\nprint('before')\nos._exit(3)",
                "the process ended with exit status 3 before the cell finished",
            ),
            (
                "import os\nprint('before')\nos._exit(0)",
                "the process ended with exit status 0 before the cell finished",
            ),
            ("import os\nprint('before')\nos.kill(os.getpid(), 9)", "SIGKILL (kill -9 or out of memory)"),
            ("import ctypes\nprint('before')\nctypes.string_at(0)", "segmentation fault"),
            ("import os\nprint('before')\nos.abort()", "SIGABRT"),
        ],
        ids=["exit-3", "exit-0", "kill", "segfault", "abort"],
    )
    def test_a_process_that_ends_without_a_result(self, tasks: Tasks, source: str, said: str) -> None:
        done = tasks.run(source)
        assert done.failure.kind == "lost"
        assert said in done.failure.message
        assert done.stdout == "before\n"

    def test_killed_from_outside_with_a_child_on_its_pipes(self, tasks: Tasks) -> None:
        spec, handle = tasks.submit(
            "import subprocess, time\np = subprocess.Popen(['sleep', '60'])\nprint('child', p.pid)\ntime.sleep(60)"
        )
        pid = child = 0
        began = 0.0
        for event in handle.events():
            if isinstance(event, Started):
                pid = event.pid
            if isinstance(event, Output) and "child" in event.output["text"]:
                child = int(event.output["text"].split()[1])
                began = time.monotonic()
                os.kill(pid, signal.SIGKILL)
            if isinstance(event, Ended):
                assert event.result.failure is not None
                assert event.result.failure.kind == "lost"
        assert time.monotonic() - began < 1.0
        assert wait_gone(child)
        assert spec.step == "s"

    # ------------------------------------------------------------ cancel, limits

    def test_cancel_interrupts(self, tasks: Tasks) -> None:
        done = tasks.cancel_when("go", 5.0, "import time\nprint('go')\ntime.sleep(60)")
        assert done.failure.kind == "cancelled"
        assert done.seconds < 25  # long before it would have ended by itself

    def test_cancel_lets_the_cell_tidy_up(self, tasks: Tasks) -> None:
        done = tasks.cancel_when(
            "go", 5.0, "import time\ntry:\n    print('go')\n    time.sleep(60)\nfinally:\n    print('tidied')"
        )
        assert done.failure.kind == "cancelled"
        assert done.live() == "go\ntidied\n"

    def test_cancel_of_a_task_that_will_not_hear(self, tasks: Tasks) -> None:
        source = (
            "import subprocess, time\np = subprocess.Popen(['sh', '-c', 'trap \"\" INT; sleep 60'])\n"
            "said = False\nwhile True:\n    try:\n        said = said or print('go', p.pid) or True\n"
            "        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
        )
        done = tasks.cancel_when("go", 0.5, source)
        assert done.failure.kind == "cancelled"
        assert 0.4 < done.seconds < 25  # the grace, but not the whole sleep
        assert wait_gone(int(done.stdout.split()[1]))
        assert wait_gone(started(done).pid)

    def test_cancel_inside_a_call_of_c(self, tasks: Tasks) -> None:
        source = "import ctypes\nprint('go')\nctypes.PyDLL(None).sleep(60)"
        done = tasks.cancel_when("go", 0.5, source)
        assert done.failure.kind == "cancelled"
        assert done.seconds < 25  # long before it would have ended by itself

    def test_cancel_before_the_beginning(self, tasks: Tasks) -> None:
        spec, handle = tasks.submit("import time\ntime.sleep(60)")
        handle.cancel(30.0)
        done = tasks.finish(spec, handle)
        assert done.failure.kind == "cancelled"
        assert done.seconds < 25  # long before it would have ended by itself

    def test_cancel_after_the_end_does_nothing(self, tasks: Tasks) -> None:
        spec, handle = tasks.submit("x = 1")
        done = tasks.finish(spec, handle)
        handle.cancel(0.1)
        assert done.result.failure is None

    def test_timeout(self, tasks: Tasks) -> None:
        done = tasks.run("import time\nprint('go')\ntime.sleep(60)", options=StepOptions(timeout=0.7))
        assert done.failure.kind == "timeout"
        assert "0.7 s" in done.failure.message
        assert done.failure.line == 3

    def test_memory(self, tasks: Tasks) -> None:
        source = "import time\nx = bytearray(400_000_000)\ntime.sleep(30)"
        done = tasks.run(source, options=StepOptions(memory=100_000_000))
        assert done.failure.kind == "memory"
        assert done.seconds < 25  # long before it would have ended by itself

    # ------------------------------------------------------------ what a cell leaves behind

    def test_threads_are_awaited_and_named(self, tasks: Tasks) -> None:
        done = tasks.run(
            "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\n    got.append(1)\n"
            "got = []\nthreading.Thread(target=late, name='worker-bee').start()"
        )
        assert done.live() == "late\n"
        assert done.value("got") == [1]
        assert any(f.code == "left-running" and "worker-bee" in f.message for f in done.result.findings)

    def test_asyncio_tasks_are_awaited_and_named(self, tasks: Tasks) -> None:
        done = tasks.run(
            "import asyncio\ngot = []\nasync def late():\n    await asyncio.sleep(0.2)\n    got.append(1)\n"
            "asyncio.create_task(late())\nawait asyncio.sleep(0)"
        )
        assert done.result.failure is None
        assert done.value("got") == [1]
        assert any(f.code == "left-running" and "late" in f.message for f in done.result.findings)

    def test_children_are_ended_and_named(self, tasks: Tasks) -> None:
        done = tasks.run(
            "import subprocess\np = subprocess.Popen(['sleep', '77'], start_new_session=True)\nprint(p.pid)", outputs=()
        )
        assert wait_gone(int(done.stdout))
        assert any(f.code == "left-running" and "sleep 77" in f.message for f in done.result.findings)

    def test_pools_left_open(self, tasks: Tasks) -> None:
        done = tasks.run(
            "from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\n"
            "threads = ThreadPoolExecutor(2)\na = threads.submit(pow, 2, 3).result()\n"
            "processes = ProcessPoolExecutor(1)\nb = processes.submit(pow, 2, 4).result()\n"
            "from joblib import Parallel, delayed\nc = Parallel(n_jobs=2)(delayed(pow)(2, 5) for _ in range(2))",
            writes=("a", "b", "c"),
        )
        assert (done.value("a"), done.value("b"), done.value("c")) == (8, 16, [32, 32])
        assert not done.result.findings
        assert done.seconds < 25  # long before it would have ended by itself

    def test_a_fork_that_falls_through_gives_one_result(self, tasks: Tasks) -> None:
        done = tasks.run(
            "import os\nprint('once')\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nelse:\n    print('child')"
        )
        assert sum(isinstance(event, Ended) for event in done.events) == 1
        assert done.result.failure is None
        assert sorted(done.live().split()) == ["child", "once"]

    def test_exit_hooks_run(self, tasks: Tasks) -> None:
        assert tasks.run("import atexit\natexit.register(print, 'bye')\n1").live() == "bye\n"
