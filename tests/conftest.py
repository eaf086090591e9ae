"""What tests of several folders begin with."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.by_hand import Start
from tests.support.kernel import Kernel, NotebookFile
from tests.support.nursery import Nursery

# What is trusted is kept in a folder of the tests' own.
STATE = tempfile.TemporaryDirectory(prefix="nbflow-state-")
os.environ["NBFLOW_STATE"] = STATE.name

# A check of internationalised addresses, which no notebook's schema asks for: nbformat's jsonschema takes it when it is
# there, and its grammar takes 1.4 s to build in each process that imports nbformat.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]


def pytest_collection_finish() -> None:
    """Spare the collector what stays until the end: thousands of tests, and libraries."""
    gc.freeze()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and each notebook's datastore beside it."""
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NBFLOW_STORE", raising=False)


@pytest.fixture
def folder(tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A kernel for a notebook of these cells, by id."""
    with contextlib.ExitStack() as stack:

        def begin(cells: dict[str, str], **options: object) -> Kernel:
            notebook = NotebookFile(tmp_path / "flow.ipynb", {"ext": "%load_ext nbflow", **cells})
            return stack.enter_context(Kernel(notebook, **options))  # type: ignore[arg-type]

        yield begin


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server; the variables with which a process finds it."""
    with servers.s3() as variables:
        yield variables


@pytest.fixture(scope="session")
def nursery_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Nursery]]:
    """Plain kernels of a hash seed; the first that asks for one waits for the libraries."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def begin(seed: int) -> Nursery:
            return stack.enter_context(contextlib.closing(Nursery(tmp_path_factory.mktemp("nursery"), seed)))

        yield begin


@pytest.fixture(scope="session")
def nursery(nursery_of: Callable[[int], Nursery]) -> Nursery:
    """Plain kernels, all of one hash seed."""
    return nursery_of(0)
