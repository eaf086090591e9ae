"""Whole notebooks whose steps run on a Ray cluster, through an S3 server or a folder: the same as top to bottom."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import nbflow
from nbflow.runs import launch
from tests.support.clusters import RayCluster
from tests.support.drivers import killed_and_attached, nbflow_command
from tests.support.kernel import Kernel, NotebookFile
from tests.support.servers import new_store
from tests.support.waiting import eventually
from tests.support.wheels import make_wheel
from tests.whole.elsewhere import EXAMPLES, run, runs_the_quickstart, shows_the_same
from tests.whole.lane_notebooks import NOTEBOOKS

pytest.importorskip("ray", reason="Ray has an environment of its own: make remote")

pytestmark = [
    pytest.mark.remote, pytest.mark.timeout(400),
    # s3fs and Ray's client leave sockets to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, s3_server: Mapping[str, str]) -> Iterator[RayCluster]:
    with RayCluster(tmp_path_factory.mktemp("r"), **s3_server, PYTHONHASHSEED="0") as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def store(s3_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket, with a segment cache that is not the workers'."""
    return new_store(s3_server, monkeypatch, tmp_path)


# ---------------------------------------------------------------- whole flows


def test_the_quickstart_with_every_step_elsewhere(executors: launch.Executors, store: str) -> None:
    runs_the_quickstart(EXAMPLES / "quickstart.ipynb", executors, store)


def test_the_example_gives_what_it_gives_top_to_bottom(cluster: RayCluster, store: str, tmp_path: Path) -> None:
    text = (EXAMPLES / "remote.ipynb").read_text()
    assert text.count("--on ray://localhost:10001") == 3
    path = tmp_path / "remote.ipynb"
    path.write_text(text.replace("ray://localhost:10001", cluster.url))
    done = nbflow.run(path, store=store, params={"trees": 5})
    assert done.status == "done", done.error
    right = nbflow.reference.run(str(path), {"trees": 5})
    assert done.data.table.equals(right["table"])
    assert (done.data.best_depth, done.data.right) == (right["best_depth"], right["right"])
    assert done["grow"].tasks[0].stdout.startswith("depth  2: ")


BY_HAND = {
    "a": "%%step a\nimport os\nx = [1, 2]",
    "b": "%%step b --on {ray} --gpu 1\ny = [*x, os.environ['CUDA_VISIBLE_DEVICES']]\nprint('there')\ny",
    "c": "%%step c\nz = len(y)\nz",
}  # fmt: skip


def test_a_cell_run_by_hand_is_sent_there(cluster: RayCluster, tmp_path: Path) -> None:
    cells = {name: source.replace("{ray}", cluster.url) for name, source in BY_HAND.items()}
    with Kernel(NotebookFile(tmp_path / "hand.ipynb", {"ext": "%load_ext nbflow", **cells})) as kernel:
        assert kernel.ok("a").status == "ok"
        there = kernel.run("b", timeout=200)
        assert there.status == "ok", there.text
        assert "there\n" in there.stdout
        assert kernel.value("y") in {"[1, 2, '0']", "[1, 2, '1']"}
        assert kernel.ok("c").status == "ok"
        assert kernel.value("z") == "3"


def test_packages_of_a_step_are_installed_there(executors: launch.Executors, store: str, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "nbtiny", "1.0")
    cells = {
        "a": '%%step a --pip "nbtiny --no-index --find-links wheels"\nimport nbtiny, sys\n'
             "version, where = nbtiny.VERSION, sys.prefix",
        "b": "%%step b --on local\nlonger = version + '.0'",
    }  # fmt: skip
    path = NotebookFile(tmp_path / "flow.ipynb", cells).path
    first = run(path, executors, store)
    assert first.status == "done", first.error
    assert (first.data.longer, "environments" in first.data.where) == ("1.0.0", True)
    assert run(path, executors, store)["a"].state == "reused"


MIXED = {
    "a": "%%step a\nimport os, socket\nxs = list(range(4))\nhere = os.environ['NBFLOW_MARK']",
    "b": "%%step b --on {ray} --foreach x in xs\ny = x * x\nprint('item', x)",
    "g": "%%step g --on {ray} --gpu 1\nimport os\ngpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
         "there = 'NBFLOW_MARK' in os.environ",
    "j": "%%step j --join b\ntotal = sum(each.y for each in inputs)\nlast = here",
}  # fmt: skip


def test_a_mixed_flow(cluster: RayCluster, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local steps, a sweep on the cluster, and one that gets a GPU; the notebook's variables stay with it."""
    monkeypatch.setenv("NBFLOW_MARK", "mine")
    cells = {name: source.replace("{ray}", cluster.url) for name, source in MIXED.items()}
    NotebookFile(tmp_path / "mixed.ipynb", cells)
    done = nbflow.run(tmp_path / "mixed.ipynb", store=store)
    assert done.status == "done", done.error
    data = done.data
    assert (data.total, data.gpu in {"0", "1"}, data.there, data.last) == (14, True, False, "mine")
    assert [task.stdout for task in done["b"].tasks] == [f"item {x}\n" for x in range(4)]


@pytest.mark.timeout(600)
def test_three_hundred_items_on_two_workers(executors: launch.Executors, tmp_path: Path) -> None:
    cells = {
        "a": "%%step a\nxs = list(range(300))\nbig = list(range(100_000))",
        "b": "%%step b --foreach x in xs\ny = x + len(big)",
        "j": "%%step j --join b\ntotal = sum(each.y for each in inputs)",
    }
    NotebookFile(tmp_path / "wide.ipynb", cells)
    done = run(tmp_path / "wide.ipynb", executors)
    assert done.status == "done", done.error
    assert done.data.total == sum(range(300)) + 300 * 100_000
    assert len(done["b"].tasks) == 300


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_shows_there_what_it_shows_here(name: str, executors: launch.Executors, tmp_path: Path) -> None:
    shows_the_same(name, executors, tmp_path)


# ---------------------------------------------------------------- the driver goes


def test_a_run_whose_driver_is_killed_is_taken_up(cluster: RayCluster, store: str, tmp_path: Path) -> None:
    """What was done is reused, what still runs on the cluster is awaited and not run again."""
    cells = {
        "a": "%%step a\nimport pathlib, time\nx = 1\nwith open('ran', 'a') as f:\n    _ = f.write('a')",
        "b": f"%%step b\nwith open('{tmp_path}/ran', 'a') as f:\n    _ = f.write('b')\nprint('go')\n"
             f"while not pathlib.Path('{tmp_path}/go').exists():\n    time.sleep(0.05)\ny = x + 1",
        "c": "%%step c\nz = y + 1",
    }  # fmt: skip
    NotebookFile(tmp_path / "flow.ipynb", cells)
    ran = tmp_path / "ran"
    driver = nbflow_command("run", str(tmp_path / "flow.ipynb"), "--on", cluster.url, "--store", store)
    lost, taken_up, said = killed_and_attached(driver, store, ran, tmp_path / "go")
    assert taken_up.id != lost
    assert (taken_up.status, taken_up.data.z) == ("done", 3)
    assert ran.read_text() == "ab"
    assert taken_up["a"].state == "reused"
    assert taken_up["b"].task.stdout == "go\n"
    assert json.loads(said.splitlines()[-1])["status"] == "done"


def test_a_cancelled_run_ends_its_tasks_there(cluster: RayCluster, store: str, tmp_path: Path) -> None:
    mark = f"pathlib.Path('{tmp_path}/pid').write_text(str(os.getpid()))"
    source = f"%%step a\nimport os, pathlib, time\n{mark}\ntime.sleep(90)"
    NotebookFile(tmp_path / "flow.ipynb", {"a": source})
    driver = nbflow_command("run", str(tmp_path / "flow.ipynb"), "--on", cluster.url, "--store", store)
    eventually(lambda: (tmp_path / "pid").exists() or driver.poll() is not None, 120)
    os.kill(driver.pid, signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    pid = int((tmp_path / "pid").read_text())

    def has_gone() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    eventually(has_gone)


# ---------------------------------------------------------------- the command line


def test_what_is_wrong_with_an_address_is_one_error_and_an_exit_code(tmp_path: Path, cluster: RayCluster) -> None:
    NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1", "b": "%%step b --gpu 9\ny = x"})
    cases = {
        "rai://x:1": (2, "no executor named 'rai'"),
        "ray://x:y": (2, "not a Ray address"),
        "ray://127.0.0.1:1": (3, "nothing answers at ray://127.0.0.1:1"),
        cluster.url: (2, "no node has 9 GPUs; the largest has 2"),
    }
    for url, (code, said) in cases.items():
        process = nbflow_command("run", str(tmp_path / "flow.ipynb"), "--on", url)
        output, _ = process.communicate(timeout=200)
        assert (process.returncode, said in output, "Traceback" in output) == (code, True, False), output
    assert not (tmp_path / ".nbflow" / "flows").exists()


OTHER_PYTHON = """\
import importlib.util, os, sys, types

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "ray.util.client.server.dataservicer" or not os.path.exists(FILE):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def older(module):
            execute(module)
            module.sys = types.SimpleNamespace(version_info=(3, 9, 1))
        spec.loader.exec_module = older
        return spec

sys.meta_path.insert(0, Finder())
"""
"""Has Ray's servers for clients say that they are of another Python while a file is there."""


def test_what_is_wrong_with_a_cluster_is_one_error_and_an_exit_code(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cluster that asks for a token, says that it has another Python, and has no nbflow: one after the other."""
    path = NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1"}).path
    there = tmp_path / "there"
    there.mkdir()
    (there / "nbflow.py").write_text("raise ModuleNotFoundError(\"No module named 'nbflow'\", name='nbflow')\n")
    (there / "sitecustomize.py").write_text(f"FILE = {str(there / 'older')!r}\n{OTHER_PYTHON}")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-this-test-0123456789abcdef"}
    cluster = RayCluster(tmp_path_factory.mktemp("w"), **token, PYTHONPATH=str(there))

    def told() -> str:
        process = nbflow_command("run", str(path), "--on", cluster.url)
        output, _ = process.communicate(timeout=200)
        assert (process.returncode, output.count("error: "), "Traceback" in output) == (3, 1, False), output
        return output

    with cluster:
        cluster.start()
        assert "RAY_AUTH_TOKEN" in told()
        for name, value in token.items():
            monkeypatch.setenv(name, value)
        (there / "older").touch()
        assert "same Python minor, on both sides" in told()
        (there / "older").unlink()
        assert "nbflow is not installed on the workers" in told()


def test_doctor_tries_the_place(cluster: RayCluster, store: str) -> None:
    process = nbflow_command("doctor", "--on", cluster.url, "--store", store)
    said, _ = process.communicate(timeout=200)
    assert "2 cores, 2 GPUs" in said
    assert f"it read and wrote {store}" in said
    process = nbflow_command("doctor", "--on", "ray://127.0.0.1:1", "--store", store)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "nothing answers at ray://127.0.0.1:1" in said
