"""What a worker has ready before its task comes, and what one that runs several keeps between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbflow import limits, shell, storage
from nbflow.import_settings import ImportSettings


@dataclass
class Kept:
    """What a process that runs one task after another keeps between them."""

    replayed: Callable[[], None] = lambda: None  # called when definitions and set-up of a task have been replayed
    stores: dict[str, storage.Store] = field(default_factory=dict)
    exit_hooks: int = 0  # those that are not the task's
    ended: bool = False  # a task has left something that was ended with the process's exit hooks and pools
    imports: ImportSettings = field(default_factory=ImportSettings)

    def store(self, url: str) -> storage.Store:
        """A store's URL in; the store, opened once, out."""
        if url not in self.stores:
            self.stores[url] = storage.open_store(url)
        return self.stores[url]


@dataclass
class Prepared:
    """What a worker has made ahead of its task: a warm shell, thread pools' controls, the user's thread variables.

    `kept` only in a process that is not the task's own.
    """

    shell: shell.Shell
    pools: Any = None
    thread_variables: Mapping[str, str | None] = field(default_factory=dict)
    kept: Kept | None = None

    @classmethod
    def make(cls) -> Prepared:
        """Everything ready for a task, in about 0.3 s; the environment must still be the user's."""
        own = {name: os.environ.get(name) for name in limits.THREAD_VARIABLES}
        return cls(shell.make_shell(), limits.controller(), own)
