"""Exporters that packages bring: found by name, called once, whatever of the protocol they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.exported import write_notebook

PACKAGE = """\
from pathlib import Path

from nbflow.errors import PlanError
from nbflow.exporters.exporter import ExportedFiles, Notes

CALLS = Path(__file__).with_name("calls")


class Names:
    def export(self, flow, environment, options):
        with CALLS.open("a") as calls:
            calls.write("x")
        files = {options.file: " ".join(step.name for step in flow.steps) + "\\n"}
        if "told" in options.words:
            notes = Notes()
            notes.lost("the cells are left out")
            return ExportedFiles(files, notes.findings)
        if "refused" in options.words:
            notes = Notes()
            notes.refused("names only", fix="take another target")
            notes.raise_refused("names")
        if "bare" in options.words:
            raise PlanError("no", fix="ask for less")
        return files
"""


@pytest.mark.running
@pytest.mark.parametrize(
    ("words", "code", "findings"),
    [
        ((), 0, []),
        (("told",), 0, [("warning", "the cells are left out", None)]),
        (("refused",), 2, [("error", "names only", "take another target")]),
        (("bare",), 2, [("error", "no", "ask for less")]),
    ],
    ids=str,
)
@pytest.mark.parametrize("check", [True, False], ids=["check", "write"])
def test_an_exporter_is_called_once(
    words: tuple[str, ...], code: int, findings: list[Any], check: bool, tmp_path: Path
) -> None:
    """Its files, what they lose and why it refuses come from one call; `--check` writes nothing and lists it all."""
    site = tmp_path / "site"
    about = site / "names-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "names_exporter.py").write_text(PACKAGE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: names\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[nbflow.exporters]\nnames = names_exporter:Names\n")
    notebook = write_notebook(["%%step one\nx = 1", "%%step two\ny = x"], tmp_path / "n.ipynb")
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    options = [f"--with={word}" for word in words] + (["--check"] if check else [])
    done = subprocess.run(
        [sys.executable, "-m", "nbflow", "export", str(notebook), "--to", "names", "-o", "out.txt", "--json", *options],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert (site / "calls").read_text() == "x"
    assert (tmp_path / "out.txt").is_file() is (code == 0 and not check)
    if code and not check:
        assert done.stderr.startswith("error: ")
        return
    answer = json.loads(done.stdout)
    assert answer["ok"] is (code == 0)
    assert [(each.get("level", "warning"), each["message"], each.get("fix")) for each in answer["findings"]] == findings
