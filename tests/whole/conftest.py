"""What tests of whole notebooks begin with. A module whose steps run elsewhere says what `cluster` is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbflow.runs import launch
from tests.conformance.cluster import Cluster


@pytest.fixture(scope="module")
def executors(cluster: Cluster) -> Iterator[launch.Executors]:
    """The module's cluster, connected."""
    with launch.Executors(cluster.url) as executors:
        yield executors
