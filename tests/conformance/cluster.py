"""What every cluster that shares out its machines must do; the tests of its engine subclass this beside the suite."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

import pytest

from nbflow.errors import PlanError
from nbflow.executors.remote import handle as handles
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import read_notebook
from nbflow.model import Ended, HeldUp, Noticed, Output, Started, StepOptions
from nbflow.plugins import load
from tests.conformance.executor import ExecutorConformance, alive
from tests.support.drivers import pid_once_it_speaks
from tests.support.kernel import NotebookFile
from tests.support.servers import Link
from tests.support.tasks import Tasks


class Cluster(Protocol):
    """A cluster that a test has started: two cores and two GPUs in name."""

    url: str
    client_port: int


def connected(url: str) -> RemoteExecutor:
    executor = load("executors", url.partition("://")[0])(url)
    assert isinstance(executor, RemoteExecutor)
    return executor


def refused(executor: RemoteExecutor, folder: Path, options: str) -> str:
    """What is said before a run of a step with options that the place cannot honour."""
    source = {"a": f"%%step a {options}\nx = 1"}
    flow = build_flow(read_notebook(NotebookFile(folder / "flow.ipynb", source).path))
    with pytest.raises(PlanError) as caught:
        executor.check(flow.steps)
    return caught.value.message


class ClusterConformance(ExecutorConformance):
    """Subclass with a fixture `cluster`, and `executor` for it."""

    # ------------------------------------------------------------ resources

    def test_gpus_are_shared_out(self, tasks: Tasks) -> None:
        source = (
            "import os, pathlib, time\ng = os.environ['CUDA_VISIBLE_DEVICES']\npathlib.Path(f'gpu-{g}').touch()\n"
            "while len(list(pathlib.Path().glob('gpu-*'))) < 2:\n    time.sleep(0.05)"
        )
        both = [tasks.submit(source, options=StepOptions(gpu=1.0)) for _ in range(2)]
        assert {tasks.finish(*each).value("g") for each in both} == {"0", "1"}
        both_gpus = tasks.run("import os\nos.environ['CUDA_VISIBLE_DEVICES']", options=StepOptions(gpu=2.0))
        assert both_gpus.shown == "'0,1'"

    def test_a_task_that_waits_says_for_what(self, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handles, "PATIENCE", 1.0)
        first = tasks.submit(
            "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)",
            options=StepOptions(gpu=2.0),
        )
        assert isinstance(next(first[1].events()), Started)
        _, second = tasks.submit("x = 1", options=StepOptions(gpu=1.0))
        events = second.events()
        held = next(events)
        assert isinstance(held, HeldUp)
        assert "1 GPUs wanted, 0 free" in held.reason
        (tasks.folder / "go").touch()
        assert isinstance([*events][-1], Ended)
        assert tasks.finish(*first).result.failure is None

    def test_a_task_that_waits_is_taken_from_the_queue(self, tasks: Tasks) -> None:
        first = tasks.submit("import time\nprint('go')\ntime.sleep(60)", options=StepOptions(gpu=2.0))
        pid_once_it_speaks(first[1])
        _, second = tasks.submit("x = 1", options=StepOptions(gpu=2.0))
        second.cancel(0.0)
        ended = [*second.events()][-1]
        assert isinstance(ended, Ended)
        assert ended.result.failure is not None
        assert ended.result.failure.kind == "cancelled"
        first[1].cancel(0.0)
        assert tasks.finish(*first).failure.kind == "cancelled"

    def test_what_no_node_has_is_known_before(self, executor: RemoteExecutor, tmp_path: Path) -> None:
        assert "no node has 8 GPUs; the largest has 2" in refused(executor, tmp_path, "--gpu 8")

    # ------------------------------------------------------------ drivers and links

    def test_a_task_outlives_its_driver(self, cluster: Cluster, tmp_path: Path) -> None:
        """The driver goes without a word; another one takes the result from the datastore, from a task that went on."""
        first = connected(cluster.url)
        tasks = Tasks(first, tmp_path)
        spec, handle = tasks.submit(
            "import pathlib, time\nprint('go')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\nx = 42"
        )
        pid = pid_once_it_speaks(handle)
        first.engine.close()
        assert alive(pid)
        (tmp_path / "go").touch()
        with contextlib.closing(connected(cluster.url)) as second:
            done = Tasks(second, tmp_path).finish(spec, second.submit(spec))
            assert done.value("x") == 42
            assert done.live() == "go\n"

    def test_a_link_that_is_cut_loses_nothing_and_is_told(self, cluster: Cluster, tmp_path: Path) -> None:
        """What ends meanwhile counts at once, what is submitted meanwhile begins once it is healed."""
        with contextlib.ExitStack() as stack:
            link = stack.enter_context(contextlib.closing(Link(cluster.client_port)))
            scheme = cluster.url.partition("://")[0]
            executor = stack.enter_context(contextlib.closing(connected(f"{scheme}://127.0.0.1:{link.port}")))
            stack.callback(link.heal)
            tasks = Tasks(executor, tmp_path)
            wait = (
                "import pathlib, time\nprint('go')\nwhile not pathlib.Path('{}').exists():\n    time.sleep(0.05)\nx = 1"
            )
            first, second = (tasks.submit(wait.format(name)) for name in ("first", "second"))
            for _, handle in (first, second):
                assert any(isinstance(event, Output) for event in handle.events())
            link.cut()
            (tmp_path / "first").touch()
            assert tasks.finish(*first).value("x") == 1
            told = next(event for event in second[1].events() if isinstance(event, Noticed))
            assert "has not answered for 20 s" in told.finding.message
            link.heal()
            told = next(event for event in second[1].events() if isinstance(event, Noticed))
            assert "answers again" in told.finding.message
            (tmp_path / "second").touch()
            assert tasks.finish(*second).value("x") == 1
            assert tasks.run("x = 2").value("x") == 2
