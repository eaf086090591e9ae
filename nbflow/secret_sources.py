"""Where the values of secrets come from: the environment of whoever starts the run, else an installed provider."""

from __future__ import annotations

import os
from collections.abc import Iterable

from nbflow import plugins
from nbflow.errors import PlanError
from nbflow.model import Step


def find(name: str) -> str | None:
    """A secret's name in; its value out, None where it is set nowhere."""
    if name in os.environ:
        return os.environ[name]
    for provider in plugins.names("secrets"):
        try:
            return str(plugins.load("secrets", provider)().get(name))
        except KeyError:
            continue
    return None


def refuse_missing(steps: Iterable[Step]) -> None:
    """Steps that are about to run in; PlanError naming every secret of theirs that is set nowhere."""
    wanted: dict[str, Step] = {}
    for step in steps:
        for name in step.options.secret:
            wanted.setdefault(name, step)
    missing = [name for name in wanted if find(name) is None]
    if missing:
        step = wanted[missing[0]]
        many = f"the secrets {', '.join(missing)} are" if len(missing) > 1 else f"the secret {missing[0]!r} is"
        raise PlanError(
            f"{many} set nowhere", step=step.name, cell=step.cell, line=1,
            fix=f"export {missing[0]}=… and start again",
        )  # fmt: skip
