"""What tests of the datastore begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.store.location import Store, open_store
from tests.support.dumping import MAIN


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def inner_folder(tmp_path: Path, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder below one that tests may use too; a cache of its own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def clean_main() -> Iterator[None]:
    """Put `__main__` back after the test."""
    before = dict(MAIN)
    yield
    MAIN.clear()
    MAIN.update(before)
