"""What programs leave in a folder is found by comparing it with itself; what they are told of, by its name."""

from __future__ import annotations

import os
from pathlib import Path

from nbflow.task.observe.subprocesses import Programs, files_below, named_files


def test_changes_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (tmp_path / ".git").mkdir()
    for path in (tmp_path / "same", tmp_path / "old", folder / "grown", tmp_path / ".git" / "index"):
        path.write_text("1")
    programs = Programs(str(tmp_path))
    assert not programs.started
    assert programs.changes() == (set(), set())
    programs.start("/bin/sh", ["/bin/sh", "-c", b"cat same > new; rm old"], None, None)
    (tmp_path / "new").write_text("1")
    (tmp_path / "old").unlink()
    (folder / "grown").write_text("12")
    (tmp_path / ".git" / "index").write_text("12")
    assert programs.started
    assert programs.changes() == ({str(tmp_path / "new"), str(folder / "grown")}, {str(tmp_path / "old")})
    assert {"cat", "same", "new", "rm", "old"} <= programs.words


def test_the_state_before_the_first_program_counts(tmp_path: Path) -> None:
    programs = Programs(str(tmp_path))
    programs.start("one")
    (tmp_path / "made").write_text("1")
    programs.start("two")
    assert programs.changes() == ({str(tmp_path / "made")}, set())


def test_a_rewrite_of_the_same_size_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    os.utime(path, ns=(1, 1))
    before = files_below(str(tmp_path))
    path.write_text("2")
    assert files_below(str(tmp_path)) != before


def test_files_that_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "told.txt", "other"):
        (tmp_path / name).write_text("")
    sources = ["pl.read_csv('a.csv')", 'x = "no such file"', "glob('*.csv')", 'url = "http://other"']
    found = {Path(path).name for path in named_files(sources, str(tmp_path), ["told.txt", "-l"])}
    assert found == {"a.csv", "b.csv", "told.txt"}
