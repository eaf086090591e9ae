"""What every exporter must do, ours and others': subclass `ExporterConformance`, say which one by `exporter` and `run`.

Data in, text out: no files, no clock, the same text for the same flow; what it cannot say is refused or told.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nbflow.errors import PlanError
from nbflow.exporters.exporter import Environment, Exporter, Options
from nbflow.flow.graph import build_flow
from nbflow.flow.notebook import RawCell, parse_cells
from nbflow.model import Flow

CELLS = {
    "title": ("", "# Barrels\n\nHow much is left, and for how long."),
    "imports": (
        """import math\n\nROUND = 2\n\n\ndef area(width):\n    # Of a circle.
    return round(math.pi * width**2 / 4, ROUND)""",
        "",
    ),
    "params": ("%%params\nwidth: float = 0.8  # of a barrel, in metres", "What can be set."),
    "load": ("%%step load\nlevels = [1.2, 0.4, 0.9]\nnote = 'übrig \"heute\"'", "## Levels\n\nMeasured by hand."),
    "volume": ("%%step volume --foreach level in levels\nleft = area(width) * level", ""),
    "sum": ("%%step total --join volume\ntotal = sum(one.left for one in inputs)", "All together."),
    "low": ("%%step low --if total < 1\nnote = note + '!'", ""),
    "scratch": ("unused = 3", ""),
    "tell": ("%%step tell --card\nsaid = f'{total:.1f} {note}'", ""),
}
"""Cell id -> (source, the Markdown above it)."""


def flow_of(cells: Mapping[str, tuple[str, str]], name: str = "barrels") -> Flow:
    """Cells in, their flow out; nothing is read from anywhere."""
    raw = [RawCell(identity, source, (), text) for identity, (source, text) in cells.items()]
    return build_flow(parse_cells(raw, name=name, folder="."), replays_settings=True)


class ExporterConformance:
    """The suite; pytest collects it in subclasses."""

    options = Options(file="barrels.py")
    environment = Environment(python="3.11.7")

    def exporter(self) -> Exporter:
        """The exporter under test."""
        raise NotImplementedError

    def run(self, folder: Path) -> Mapping[str, Any]:
        """Files lie in `folder`; they are run; the values that the last step holds out."""
        raise NotImplementedError

    def export(self, cells: Mapping[str, tuple[str, str]] = CELLS) -> Mapping[str, str]:
        return self.exporter().export(flow_of(cells), self.environment, self.options)

    def test_it_is_an_exporter(self) -> None:
        assert isinstance(self.exporter(), Exporter)

    def test_the_main_file_is_named_as_wished_and_is_python(self) -> None:
        files = self.export()
        assert self.options.file in files
        for name, text in files.items():
            assert not Path(name).is_absolute()
            assert text.endswith("\n")
            assert not text.endswith("\n\n")
            if name.endswith(".py"):
                compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def test_the_same_flow_gives_the_same_text(self) -> None:
        assert self.export() == self.export()

    def test_nothing_is_read_or_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.export()  # what is imported lazily is there now

        def refuse(*words: Any, **more: Any) -> Any:
            raise AssertionError(f"opened {words}")

        monkeypatch.setattr(builtins, "open", refuse)
        monkeypatch.setattr("io.open", refuse)
        self.export()

    def test_every_cell_can_be_told_in_it(self) -> None:
        text = self.export()[self.options.file]
        for word in ("Barrels", "Measured by hand.", "What can be set.", "of a barrel, in metres", "All together."):
            assert word in text, word
        for line in (
            "levels = [1.2, 0.4, 0.9]",
            "left = area(width) * level",
            "total = sum(one.left for one in inputs)",
            "note = note + '!'",
            "said = f'{total:.1f} {note}'",
            "def area(width):",
            "ROUND = 2",
        ):
            assert line in text, line

    def test_a_flow_that_cannot_run_is_refused_with_its_reason(self) -> None:
        broken = {"one": ("%%step one\ny = later", ""), "two": ("%%step two\nlater = 1", "")}
        with pytest.raises(PlanError, match="later") as caught:
            self.export(broken)
        findings = caught.value.findings
        assert any(finding.level == "error" and "later" in finding.message for finding in findings)

    def test_a_notebook_without_steps_is_refused(self) -> None:
        with pytest.raises(PlanError, match="no step"):
            self.export({"one": ("x = 1", "")})

    def test_an_unknown_word_is_refused_with_the_known_ones(self) -> None:
        options = Options(file="barrels.py", words=("teapot",))
        with pytest.raises(PlanError, match="teapot") as caught:
            self.exporter().export(flow_of(CELLS), self.environment, options)
        assert "known" in (caught.value.fix or "")

    def test_files_come_with_what_is_lost_and_nothing_that_is_refused(self) -> None:
        findings = getattr(self.export(), "findings", ())
        assert all(finding.level != "error" for finding in findings)

    def test_helper_modules_come_along_when_the_files_lie_elsewhere(self) -> None:
        modules = {"helper.py": "x = 1\n"}
        elsewhere = Environment(python="3.11.7", modules=modules, beside=False)
        files = self.exporter().export(flow_of(CELLS), elsewhere, self.options)
        assert files["helper.py"] == "x = 1\n"
        beside = Environment(python="3.11.7", modules=modules, beside=True)
        assert "helper.py" not in self.exporter().export(flow_of(CELLS), beside, self.options)

    @pytest.mark.export
    def test_it_runs_and_leaves_the_notebooks_values(self, tmp_path: Path) -> None:
        for name, text in self.export().items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        values = self.run(tmp_path)
        expected = {
            "levels": [1.2, 0.4, 0.9],
            "note": 'übrig "heute"',
            "total": 0.6 + 0.2 + 0.45,
            "said": '1.2 übrig "heute"',
        }
        assert values["levels"] == expected["levels"]
        assert values["total"] == pytest.approx(expected["total"])
        assert (values["note"], values["said"]) == (expected["note"], expected["said"])
