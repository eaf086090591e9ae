"""What a task on a Ray or Dask cluster of this machine costs, beside the engine's own no-op and the datastore's way.

Run by `bench.remote` in each engine's own Python: python -m bench.clusters ray|dask [--quick] [--input MB].
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.rows import Row, in_turns, plain
from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.plugins import load
from nbflow.store.location import Store, open_store
from tests.support.clusters import DaskCluster, RayCluster
from tests.support.servers import CountingLink, s3
from tests.support.tasks import Done, Tasks


def ray(folder: Path, variables: dict[str, str]) -> tuple[RayCluster, Callable[[], Callable[[], object]]]:
    """Return a Ray cluster, and what makes its own no-op once it runs."""
    cluster = RayCluster(folder, **variables)
    cluster.start()

    def noop() -> Callable[[], object]:
        import ray

        client = ray.init(cluster.url, namespace="bench", allow_multiple=True, log_to_driver=False)
        with client:
            nothing = ray.remote(lambda: None)

            def call() -> object:
                with client:
                    return ray.get(nothing.remote())

        return call

    return cluster, noop


def dask(folder: Path, variables: dict[str, str]) -> tuple[DaskCluster, Callable[[], Callable[[], object]]]:
    """Return a Dask cluster, and what makes its own no-op once it runs."""
    cluster = DaskCluster(folder, **variables)
    cluster.start()
    cluster.add()

    def noop() -> Callable[[], object]:
        from distributed import Client

        client = Client(cluster.url.replace("dask", "tcp"), set_as_default=False)
        return lambda: client.submit(lambda: None, pure=False).result()

    return cluster, noop


def measure(engine: str, *, quick: bool = False, megabytes: int = 1000) -> list[Row]:
    """Return an engine's rows."""
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbflow-")))
        variables = stack.enter_context(s3())
        link = stack.enter_context(
            contextlib.closing(CountingLink(int(variables["AWS_ENDPOINT_URL"].rpartition(":")[2])))
        )
        variables |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{link.port}"}
        os.environ |= variables
        cluster, noop_of = {"ray": ray, "dask": dask}[engine](
            folder, {**variables, "NBFLOW_CACHE": str(folder / "there")}
        )
        stack.callback(cluster.stop)
        executor: RemoteExecutor = load("executors", engine)(cluster.url)
        stack.enter_context(contextlib.closing(executor))
        executor.engine.connect()
        noop = noop_of()
        for name, store in {"a folder": str(folder / "store"), "S3": _bucket()}.items():
            rows += _latency(engine, name, executor, folder, store, noop, 10 if quick else 40)
        rows += _bytes(engine, executor, folder, link, megabytes, 50 if quick else 300)
    return rows


def _bucket() -> str:
    import fsspec

    name = f"bench-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/store"


def _latency(
    engine: str, name: str, executor: RemoteExecutor, folder: Path, url: str, noop: Callable[[], object], rounds: int
) -> list[Row]:
    tasks, store = Tasks(executor, folder), open_store(url).trust()

    def task() -> Done:
        return tasks.run("x = 1", store=url)

    for _ in range(3):  # the first ones start what the others are forked from
        task()
        noop()
    took = in_turns(rounds, task=task, noop=noop, trip=lambda: _trip(store))
    aim = 3 * took["noop"] + 2 * took["trip"]
    return [
        Row(f"{engine}: a task, store in {name}", "from submitting it to its end", took["task"], beside=aim,
            against=f"3 no-ops of {took['noop']:.1f} ms and 2 store round trips of {took['trip']:.1f} ms", aim="1 x"),
    ]  # fmt: skip


def _trip(store: Store) -> None:
    path = f"bench/{uuid.uuid4().hex}"
    store.write(path, b"x" * 1000)
    store.read(path)


def _bytes(
    engine: str, executor: RemoteExecutor, folder: Path, link: CountingLink, megabytes: int, count: int
) -> list[Row]:
    """Return what travels to and from S3: of a small task, and of one large input that many tasks read."""
    url = _bucket()
    tasks = Tasks(executor, folder)
    tasks.run("x = 1", store=url)
    rows = []
    with _counted(link) as small:
        tasks.run("y = 1", store=url)
    rows.append(Row(f"{engine}: what travels", f"a small task ({small['requests']} requests)", small["kB"], "kB"))
    made = tasks.run(f"import os\nblock = os.urandom({megabytes} * 1_000_000)", store=url)
    began = time.monotonic()
    with _counted(link) as wide:
        submitted = [tasks.submit("n = len(block)", after=made, store=url) for _ in range(count)]
        ended = [tasks.finish(*each) for each in submitted]
    if any(each.result.failure for each in ended):
        raise RuntimeError(str(next(each.failure for each in ended if each.result.failure)))
    seconds = time.monotonic() - began
    rows.append(Row(
        f"{engine}: what travels", f"{megabytes} MB read by {count} tasks in {seconds:.0f} s, "
        f"{wide['requests'] / count:.1f} requests a task", wide["kB"], "kB", beside=megabytes * 1000.0,
        against="the input once",
    ))  # fmt: skip
    return rows


@contextlib.contextmanager
def _counted(link: CountingLink) -> Iterator[dict[str, float]]:
    """Count what goes through a link inside."""
    counts: dict[str, float] = {}
    before = link.total, link.requests
    yield counts
    time.sleep(0.5)  # what the watcher and the worker still write belongs to it
    counts |= {"kB": (link.total - before[0]) / 1000, "requests": link.requests - before[1]}


def main() -> None:
    """Print an engine's rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["ray", "dask"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--input", type=int, default=1000, metavar="MB")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = [plain(row) for row in measure(given.engine, quick=given.quick, megabytes=given.input)]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
