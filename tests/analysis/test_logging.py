"""Logging, warnings and printing show a value: no step below reads it for that, and none of it counts as a change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nbflow
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow

TOLD = {
    "a function": ("import logging", "logging.info(f'seen {x}')"),
    "with arguments": ("import logging", "logging.debug('%s of %s', x, y)"),
    "with its traceback": (
        "import logging",
        "try:\n    1 / 0\nexcept Exception as e:\n    logging.exception(x, exc_info=e)",
    ),
    "another name": ("import logging as lg", "lg.error(x)\nlg.log(10, x)"),
    "from": ("from logging import info, warning as warned", "info(x)\nwarned(x)"),
    "a logger": ("import logging\nlogger = logging.getLogger(__name__)", "logger.info('%s', x)"),
    "a logger of another name": ("import logging\naudit_log = logging.getLogger('audit')", "audit_log.warning(x)"),
    "one that is made there": (
        "import logging",
        "log = logging.getLogger()\nlog.info(x)\nlogging.getLogger().error(x)",
    ),
    "in a function": (
        "import logging\nlogger = logging.getLogger()\ndef tell(v):\n    logger.info(v)",
        "tell(x)",
    ),
    "of a class": ("import logging\nclass Job:\n    log = logging.getLogger('job')", "Job.log.critical(x)"),
    "with its set-up": ("import logging\nlogging.basicConfig(level=20)", "logging.info(x)"),
    "a warning": ("import warnings", "warnings.warn(str(x))"),
    "a warning, imported": ("from warnings import warn", "warn(f'{x}', stacklevel=2)"),
    "a warning, in full": ("import warnings", "warnings.warn_explicit(str(x), UserWarning, 'f', 1)"),
    "printed": ("import sys", "print(x)\nprint(f'{x}', file=sys.stderr)"),
    "another library": ("from loguru import logger", "logger.info('{}', x)"),
}


def flow_of(*sources: str) -> Flow:
    return build_flow(parse_cells([RawCell(f"c{at}", text) for at, text in enumerate(sources)], name="n", folder="."))


@pytest.mark.parametrize("how", TOLD)
def test_nobody_reads_what_is_only_told(how: str) -> None:
    above, told = TOLD[how]
    flow = flow_of(above, f"%%step make\nx = [1]\ny = 2\n{told}\nz = 3", "%%step other\nq = 1", "%%step reads\nw = z")
    assert [(edge.frm, edge.to, edge.names) for edge in flow.edges] == [("make", "reads", ("z",))]
    assert flow.findings == ()
    assert [step.name for step in flow.steps] == ["make", "other", "reads"]


@pytest.mark.parametrize("how", TOLD)
def test_what_is_told_is_not_changed(how: str) -> None:
    """A step that shows what another one made is in nobody's way."""
    above, told = TOLD[how]
    flow = flow_of(above, "%%step make\nx = [1]\ny = 2", f"%%step tells\n{told}\nz = 3", "%%step reads\nw = x")
    assert {(edge.frm, edge.to) for edge in flow.edges} == {("make", "tells"), ("make", "reads")}
    assert "x" not in next(step for step in flow.steps if step.name == "tells").writes


@pytest.mark.parametrize("how", TOLD)
def test_a_plain_cell_that_tells_is_no_part_of_the_flow(how: str) -> None:
    above, told = TOLD[how]
    flow = flow_of(above, "%%step make\nx = [1]\ny = 2", told, "%%step reads\nw = x")
    assert [(edge.frm, edge.to) for edge in flow.edges] == [("make", "reads")]


@pytest.mark.parametrize(
    "sets",
    ["logging.basicConfig(level=10)", "logging.getLogger('q').setLevel(10)", "logging.captureWarnings(True)",
     "logging.getLogger().addHandler(logging.NullHandler())"],
)  # fmt: skip
def test_set_up_stays_set_up(sets: str) -> None:
    flow = flow_of("import logging, warnings", sets, "%%step a\nx = 1")
    assert [step.name for step in flow.steps] == ["a"]


@pytest.mark.running
def test_a_lock_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be stored may be told of: no step below asks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBFLOW_STORE", raising=False)
    monkeypatch.setenv("NBFLOW_CACHE", str(tmp_path / "cache"))
    sources = (
        "import logging, threading\nlogger = logging.getLogger(__name__)",
        "%%step a\nlock = threading.Lock()\nlogging.warning(f'made {lock}')\nlogger.error('%s', lock)\nx = 1",
        "%%step b\nlogger.error('in b')\ny = x + 1",
    )
    cells = [
        {"cell_type": "code", "id": f"c{at}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for at, source in enumerate(sources)
    ]
    path = tmp_path / "lock.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    run = nbflow.run(path)
    assert run.successful, run.error
    assert run.data.y == 2
    assert "made <unlocked" in run["a"].task.stderr
    assert "in b" in run["b"].task.stderr
    assert "made" not in run["b"].task.stderr  # it is told once
