"""Whole notebooks whose steps run on a Dask cluster: the same as top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.runs import launch
from tests.support.clusters import DaskCluster
from tests.support.drivers import killed_and_attached, nbflow_command
from tests.support.kernel import NotebookFile
from tests.whole.elsewhere import SOME, run, shows_the_same

pytest.importorskip("distributed", reason="Dask has an environment of its own: make remote")

pytestmark = [
    pytest.mark.remote, pytest.mark.timeout(400),
    # Dask's client leaves sockets to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), PYTHONHASHSEED="0") as cluster:
        cluster.start()
        cluster.add("--no-nanny")  # a nanny gives workers a PYTHONHASHSEED of its own, and so sets another order
        yield cluster


@pytest.mark.parametrize("name", SOME)
def test_every_cell_shows_there_what_it_shows_here(name: str, executors: launch.Executors, tmp_path: Path) -> None:
    shows_the_same(name, executors, tmp_path)


def test_a_sweep_and_its_join(executors: launch.Executors, tmp_path: Path) -> None:
    cells = {
        "a": "%%step a\nxs = list(range(40))\nbig = list(range(100_000))",
        "b": "%%step b --foreach x in xs\ny = x + len(big)\nprint('item', x)",
        "g": "%%step g --gpu 2\nimport os\ngpus = os.environ['CUDA_VISIBLE_DEVICES']",
        "j": "%%step j --join b\ntotal = sum(each.y for each in inputs)",
    }
    done = run(NotebookFile(tmp_path / "flow.ipynb", cells).path, executors)
    assert done.status == "done", done.error
    assert (done.data.total, done.data.gpus) == (sum(range(40)) + 40 * 100_000, "0,1")
    assert [task.stdout for task in done["b"].tasks] == [f"item {x}\n" for x in range(40)]


def test_a_run_whose_driver_is_killed_is_taken_up(cluster: DaskCluster, tmp_path: Path) -> None:
    """What still runs on the cluster is awaited and not run again."""
    cells = {
        "a": "%%step a\nx = 1",
        "b": f"%%step b\nimport pathlib, time\nwith open('{tmp_path}/ran', 'a') as f:\n    _ = f.write('b')\n"
             f"print('go')\nwhile not pathlib.Path('{tmp_path}/go').exists():\n    time.sleep(0.05)\ny = x + 1",
    }  # fmt: skip
    path = NotebookFile(tmp_path / "flow.ipynb", cells).path
    driver = nbflow_command("run", str(path), "--on", cluster.url)
    store = str(tmp_path / ".nbflow")
    _, taken_up, _ = killed_and_attached(driver, store, tmp_path / "ran", tmp_path / "go")
    assert (taken_up.status, taken_up.data.y) == ("done", 2)
    assert (tmp_path / "ran").read_text() == "b"
    assert taken_up["b"].task.stdout == "go\n"


def test_what_cannot_run_there_is_one_error_and_an_exit_code(tmp_path: Path, cluster: DaskCluster) -> None:
    path = NotebookFile(tmp_path / "flow.ipynb", {"a": "%%step a\nx = 1", "b": "%%step b --gpu 0.5\ny = x"}).path
    cases = {
        "dask://127.0.0.1:1": (3, "nothing answers at dask://127.0.0.1:1"),
        cluster.url: (2, "Dask counts whole GPUs (--gpu 0.5)"),
    }
    for url, (code, said) in cases.items():
        process = nbflow_command("run", str(path), "--on", url)
        output, _ = process.communicate(timeout=200)
        assert (process.returncode, said in output, "Traceback" in output) == (code, True, False), output
    assert not (tmp_path / ".nbflow" / "flows").exists()
