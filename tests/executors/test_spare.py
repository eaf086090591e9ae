"""The lane of spare workers, forced on Linux: what every executor does."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from nbflow.executors.local import LocalExecutor
from nbflow.executors.spare import SpareLane
from tests.conformance.executor import ExecutorConformance

pytestmark = [pytest.mark.running, pytest.mark.skipif(sys.platform == "win32", reason="needs pipes that can be polled")]


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor(lane="spare")
    yield executor
    executor.close()


class TestSpare(ExecutorConformance):
    """One process a task, started ahead."""


def test_the_environment_forces_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBFLOW_LANE", "spare")
    executor = LocalExecutor()
    assert isinstance(executor.lane, SpareLane)
    executor.close()
