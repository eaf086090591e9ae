"""What tests of executors begin with. A module says what `cluster` is, or `executor` itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.executors.remote.executor import RemoteExecutor
from nbflow.plugins import Executor
from tests.conformance.cluster import Cluster, connected
from tests.support.tasks import Tasks


@pytest.fixture(scope="module")
def executor(cluster: Cluster) -> Iterator[RemoteExecutor]:
    """What sends tasks to the module's cluster."""
    with contextlib.closing(connected(cluster.url)) as executor:
        yield executor


@pytest.fixture
def tasks(executor: Executor, tmp_path: Path) -> Tasks:
    """Tasks of the test's own folder and store."""
    return Tasks(executor, tmp_path)
