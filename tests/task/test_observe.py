"""What a task was seen to depend on, and the one sentence for each way in which that no longer holds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbflow.engine import reuse
from nbflow.executors.local import LocalExecutor
from nbflow.model import Observations
from nbflow.task.observe import environment, lookups, observer
from tests.support.tasks import Tasks, definition, setup

HELLO = "b3:"


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    os.environ["OBSERVED"] = "1"
    executor = LocalExecutor()
    yield executor
    executor.close()
    del os.environ["OBSERVED"]


@pytest.fixture
def tasks(executor: LocalExecutor, tmp_path: Path) -> Tasks:
    (tmp_path / "data.csv").write_text("a\n1\n")
    return Tasks(executor, tmp_path)


def seen(tasks: Tasks, source: str, **fields: object) -> Observations:
    done = tasks.run(source, **fields)
    assert done.result.failure is None, done.result.failure
    record = done.result.record
    assert record is not None
    assert record.observations == done.result.observations
    return record.observations


@pytest.mark.running
class TestFiles:
    """Read, looked for, written."""

    @pytest.mark.parametrize(
        "source",
        [
            "open('data.csv').read()",
            "import pandas as pd\npd.read_csv('data.csv')",
            "from pathlib import Path\nPath('data.csv').read_text()",
            "import numpy as np\nnp.loadtxt('data.csv', skiprows=1)",
            "import polars as pl\npl.read_csv('data.csv')",
            "import os\nos.chdir('/')\nopen(FOLDER + '/data.csv').read()",
            "import threading\nt = threading.Thread(target=lambda: open('data.csv').read()); t.start(); t.join()",
        ],
    )
    def test_read(self, tasks: Tasks, source: str) -> None:
        found = seen(tasks, source, values={"FOLDER": str(tasks.folder)})
        assert found.files == {"data.csv": environment.file_id(str(tasks.folder / "data.csv"))}
        assert found.written == {}

    def test_outside_the_folder_by_its_whole_path(self, tasks: Tasks) -> None:
        other = Path("/etc/passwd")  # not in the temporary folder, which does not count
        found = seen(tasks, f"open({str(other)!r}).read(); 1")
        assert list(found.files) == [str(other)]

    def test_looked_for_and_absent(self, tasks: Tasks) -> None:
        found = seen(tasks, "try:\n    open('none.csv')\nexcept FileNotFoundError:\n    pass")
        assert found.files == {"none.csv": ""}

    def test_written(self, tasks: Tasks) -> None:
        source = "open('out.txt', 'w').write('x')\nopen('out.txt').read()\nopen('log', 'a').write('l')"
        found = seen(tasks, source)
        assert found.files == {}
        out, log = (environment.file_id(str(tasks.folder / name)) for name in ("out.txt", "log"))
        assert found.written == {"out.txt": out, "log": f"+{log}"}
        (tasks.folder / "log").write_text("l\nl\n")
        assert reuse.holds(found, str(tasks.folder), os.environ) is None
        assert reuse.holds(found, str(tasks.folder), os.environ, {"log"}) == (
            "file",
            "log, which it wrote, has changed",
        )

    def test_removed(self, tasks: Tasks) -> None:
        (tasks.folder / "old.csv").write_text("1")
        found = seen(tasks, "import os\nos.remove('data.csv')\nos.rename('old.csv', 'new.csv')")
        assert found.written["data.csv"] == found.written["old.csv"] == ""
        assert found.written["new.csv"] == environment.file_id(str(tasks.folder / "new.csv"))
        (tasks.folder / "data.csv").write_text("again")
        assert reuse.holds(found, str(tasks.folder), os.environ) == (
            "file",
            "data.csv, which it removed, is there again",
        )

    def test_written_under_another_name_first(self, tasks: Tasks) -> None:
        found = seen(tasks, "import os\nopen('t', 'w').close()\nos.replace('t', 'final')")
        assert list(found.written) == ["final"]

    def test_read_and_then_written(self, tasks: Tasks) -> None:
        before = environment.file_id(str(tasks.folder / "data.csv"))
        found = seen(tasks, "text = open('data.csv').read()\nwith open('data.csv', 'w') as f: f.write('new')")
        assert found.files == {"data.csv": before}
        assert reuse.holds(found, str(tasks.folder), os.environ) == ("file", "data.csv has changed")

    def test_asked_for_and_not_opened(self, tasks: Tasks) -> None:
        (tasks.folder / "sub").mkdir()
        found = seen(
            tasks,
            "import os\nfrom pathlib import Path\n"
            "os.path.exists('data' + '.csv'), Path('sub').is_dir()\n"
            "os.path.isfile('none.txt'), Path('nowhere').exists()",
        )
        assert found.files == {"data.csv": "file of 4 bytes", "nowhere": "", "none.txt": "", "sub": "folder"}

    def test_looked_for_and_then_made(self, tasks: Tasks) -> None:
        found = seen(
            tasks,
            "from pathlib import Path\nPath('new/deep').mkdir(parents=True)\nkept = Path('new/deep/kept.txt')\n"
            "if not kept.exists():\n    kept.write_text('1')",
        )
        assert found.files == {}
        assert [*found.written] == ["new/deep/kept.txt"]

    def test_folders_that_were_listed(self, tasks: Tasks) -> None:
        (tasks.folder / "parts").mkdir()
        found = seen(tasks, "import glob\nglob.glob('parts/*.csv')")
        assert list(found.files) == ["parts/"]
        (tasks.folder / "parts" / "1.csv").write_text("")
        assert reuse.holds(found, str(tasks.folder), os.environ) == ("file", "parts/ has changed")

    def test_what_does_not_count(self, tasks: Tasks) -> None:
        source = (
            "import tempfile, json, decimal, matplotlib.pyplot as plt, os\n"
            "open('/proc/self/stat').read(), os.listdir('/proc')\n"
            "with tempfile.NamedTemporaryFile() as f: open(f.name).read()\nplt.plot([1])\nx = [1]"
        )
        found = seen(tasks, source)
        assert found.files == {}
        assert found.written == {}

    def test_inputs_from_the_store_do_not_count(self, tasks: Tasks) -> None:
        first = tasks.run("import numpy as np\nbig = np.arange(200_000)")
        assert seen(tasks, "big.sum()", after=first).files == {}


@pytest.mark.running
class TestModules:
    """Local files, installed distributions."""

    def test_local_modules_and_what_they_import(self, tasks: Tasks) -> None:
        (tasks.folder / "mine.py").write_text("import other\nimport yaml\n")
        (tasks.folder / "other.py").write_text("x = 1\n")
        found = seen(tasks, "import mine")
        assert set(found.files) == {"mine.py", "other.py"}
        assert found.distributions == {"PyYAML": environment.version_of("PyYAML")}

    def test_what_a_cell_changes_in_them_is_said(self, tasks: Tasks) -> None:
        text = "seen = []\nRATE = 1\ndef note(x):\n    seen.append(x)\n    return len(seen)\n"
        (tasks.folder / "notes.py").write_text(text)
        first = tasks.run("import notes\nx = 1")
        assert first.result.findings == ()
        replay = (setup("import notes"),)
        assert tasks.run("y = notes.RATE", replay=replay).result.findings == ()
        assert tasks.run("notes.RATE = 2\ny = notes.RATE", replay=replay).result.findings == ()
        (found,) = tasks.run("y = notes.note(3)", replay=replay).result.findings
        assert (found.code, found.name) == ("module-state", "notes.seen")

    def test_a_local_module_edited_meanwhile(self, tasks: Tasks) -> None:
        """Whether it was loaded before or after that cannot be told: the result is never reused."""
        (tasks.folder / "edited.py").write_text("A = 1\n")
        source = (
            "import edited, subprocess, sys\n"
            "subprocess.run([sys.executable, '-c', \"open('edited.py', 'a').write('B = 2')\"])"
        )
        assert seen(tasks, source).files["edited.py"] == "changed-while-read"

    def test_distributions_of_what_is_used(self, tasks: Tasks) -> None:
        found = seen(tasks, "import pandas as pd\nx = 1")
        assert {"pandas", "numpy"} <= set(found.distributions)
        assert "ipython" not in found.distributions
        first = tasks.run("import pandas as pd\ndf = pd.DataFrame({'a': [1]})")
        assert "pandas" in seen(tasks, "df.sum()", after=first).distributions

    def test_nothing_for_plain_python(self, tasks: Tasks) -> None:
        found = seen(tasks, "import json, random\nx = json.dumps([1])")
        assert found == Observations()

    def test_new_modules_for_the_next_preload(self, tasks: Tasks) -> None:
        assert "yaml" in seen(tasks, "import yaml").modules


@pytest.mark.running
class TestEnvironment:
    """Variables that the user's code looks up."""

    @pytest.mark.parametrize(
        "lookup",
        ["os.environ['OBSERVED']", "os.environ.get('OBSERVED')", "os.getenv('OBSERVED')", "'OBSERVED' in os.environ"],
    )
    def test_read(self, tasks: Tasks, lookup: str) -> None:
        assert seen(tasks, f"import os\n{lookup}").environment == {"OBSERVED": environment.text_id("1")}

    def test_absent(self, tasks: Tasks) -> None:
        assert seen(tasks, "import os\nos.environ.get('NOT_THERE')").environment == {"NOT_THERE": ""}

    def test_in_a_local_module_and_in_definitions(self, tasks: Tasks) -> None:
        (tasks.folder / "mine.py").write_text("import os\nos.environ['OBSERVED']\n")
        assert list(seen(tasks, "import mine").environment) == ["OBSERVED"]
        f = definition("f", "def f():\n    import os\n    return os.environ['OBSERVED']")
        assert list(seen(tasks, "f()", replay=(f,)).environment) == ["OBSERVED"]

    @pytest.mark.parametrize(
        "source",
        [
            "dict(os.environ)",
            "os.environ.copy()",
            "{**os.environ}",
            "list(os.environ.items())",
            "[*os.environb]",
            "repr(os.environ)",
            "'{OBSERVED}'.format(**os.environ)",
            "import subprocess\nsubprocess.run(['true'], env={**os.environ, 'X': '1'})",
        ],
    )
    def test_read_as_a_whole(self, tasks: Tasks, source: str) -> None:
        found = seen(tasks, f"import os\n{source}; 1")
        assert {"OBSERVED", "*"} <= found.environment.keys()
        folder, variables = str(tasks.folder), {**os.environ}
        assert reuse.holds(found, folder, variables) is None
        new = {**variables, "ONE_MORE": "1"}
        assert reuse.holds(found, folder, new) == ("environment", "ONE_MORE is set now, and it read all variables")
        assert reuse.holds(found, folder, {**variables, "OBSERVED": "2"}) == ("environment", "OBSERVED has changed")

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("os.path.expanduser('~/x')", "HOME"),
            ("from pathlib import Path\nPath.home()", "HOME"),
            ("os.path.expandvars('$OBSERVED')", "OBSERVED"),
            ("import string\nstring.Template('$OBSERVED').substitute(os.environ)", "OBSERVED"),
            ("import collections\ncollections.ChainMap({}, os.environ)['OBSERVED']", "OBSERVED"),
            ("os.environb[b'OBSERVED']", "OBSERVED"),
            ("import time\ntime.localtime(0)", "TZ"),
        ],
    )
    def test_read_through_the_standard_library(self, tasks: Tasks, source: str, name: str) -> None:
        assert [*seen(tasks, f"import os\n{source}; 1").environment] == [name]

    def test_a_secret_never_enters_a_record(self, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not even its hash: whoever has the record could try out what it may be."""
        monkeypatch.setenv("OBSERVED", "1")
        source = "import os\nos.environ['DB_PASSWORD'] = 'hunter2'\n"
        replay = (definition("look", "def look(name):\n    import os\n    return os.environ.get(name)"),)
        monkeypatch.setenv("API_KEY", "hunter2")
        other = LocalExecutor()
        found = seen(Tasks(other, tasks.folder), "look('API_KEY'); 1", replay=replay)
        other.close()
        assert found.environment["API_KEY"].startswith("own:")
        assert (
            found.environment["API_KEY"] == environment.text_id("hunter2", "API_KEY") != environment.text_id("hunter2")
        )
        assert seen(tasks, source).environment == {}

    @pytest.mark.parametrize(
        "source",
        [
            "os.environ['MADE'] = '1'\nos.environ['MADE']",
            "import matplotlib.pyplot, tempfile\ntempfile.gettempdir()",
            "os.environ['CUDA_VISIBLE_DEVICES'], os.environ['TERM'], os.environ.get('OMP_NUM_THREADS')",
        ],
    )
    def test_what_does_not_count(self, tasks: Tasks, source: str) -> None:
        assert seen(tasks, f"import os\n{source}; 1").environment == {}

    def test_secrets_are_not_kept(self, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TOKEN", "s3cr3t")
        done = tasks.run("import os\nlen(os.environ['TOKEN'])", secrets=("TOKEN",))
        assert done.shown == "6"
        assert done.result.observations.environment == {}

    def test_set_up_by_replay_does_not_count(self, tasks: Tasks) -> None:
        found = seen(tasks, "import os\nos.environ['A']", replay=(setup("import os\nos.environ['A'] = '1'"),))
        assert found.environment == {}


@pytest.mark.running
class TestVolatile:
    """Acts whose outcome another execution would not repeat."""

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("x = 1", ()),
            ("import subprocess\nsubprocess.run(['true'])", ("subprocess",)),
            ("import os\nos.system('true')", ("subprocess",)),
            ("!true", ("subprocess",)),
            (
                "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 1))\nexcept OSError:\n    pass",
                ("socket",),
            ),
            ("import sqlite3\nsqlite3.connect('file:x?mode=memory', uri=True).close()", ("database",)),
            ("import sqlite3\nsqlite3.connect(':memory:').close()", ()),  # it ends with the process
            ("import random\nrandom.random()", ("random",)),
            ("from datetime import datetime\nstamp = datetime.now().isoformat()", ("clock",)),
            ("from time import time\nbegan = time()", ("clock",)),
            ("import time\nbegan = time.perf_counter()\ntime.sleep(0)", ()),
            ("import numpy as np\nnp.random.rand()", ("random",)),
            ("import random\nrandom.seed(1)\nrandom.random()", ()),
            ("import multiprocessing as m\nwith m.get_context('fork').Pool(1) as p: p.map(abs, [1])", ()),
            ("import asyncio\nawait asyncio.sleep(0)", ()),
        ],
    )
    def test_acts(self, tasks: Tasks, source: str, expected: tuple[str, ...]) -> None:
        assert seen(tasks, source + "\nx = 1").volatile == expected


class TestHolds:
    """Look-up: nothing is run."""

    def test_unchanged(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1")
        kept = Observations(
            files={"a": environment.file_id(str(tmp_path / "a")), "none": ""},
            distributions={"msgspec": environment.version_of("msgspec")},
            environment={"NOT_SET_ANYWHERE": ""},
            written={"a": environment.file_id(str(tmp_path / "a"))},
        )
        assert reuse.holds(kept, str(tmp_path), os.environ) is None

    @pytest.mark.parametrize(
        ("kept", "reason"),
        [
            (Observations(files={"a": "b3:0"}), ("file", "a has changed")),
            (Observations(files={"gone": "b3:0"}), ("file", "gone is gone")),
            (Observations(files={"a": ""}), ("file", "a is there now")),
            (Observations(written={"gone": "+b3:0"}), ("file", "gone, which it wrote, is gone")),
            (Observations(written={"a": ""}), ("file", "a, which it removed, is there again")),
            (Observations(written={"a": "b3:0"}), ("file", "a, which it wrote, has changed")),
            (
                Observations(distributions={"msgspec": "0.0"}),
                ("package", f"msgspec 0.0 → {environment.version_of('msgspec')}"),
            ),
            (Observations(distributions={"nosuch": "1"}), ("package", "nosuch 1 is no longer installed")),
            (Observations(environment={"PATH": ""}), ("environment", "PATH is set now")),
            (Observations(environment={"PATH": "b3:0"}), ("environment", "PATH has changed")),
            (
                Observations(environment={"NOT_SET_ANYWHERE": "b3:0"}),
                ("environment", "NOT_SET_ANYWHERE is no longer set"),
            ),
        ],
        ids=lambda value: value[1] if isinstance(value, tuple) else "",
    )
    def test_reasons(self, tmp_path: Path, kept: Observations, reason: tuple[str, str]) -> None:
        (tmp_path / "a").write_text("1")
        assert reuse.holds(kept, str(tmp_path), os.environ) == reason

    def test_an_edit_of_equal_length_is_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        ids = set()
        for text in ("1", "2", "3"):
            path.write_text(text)
            ids.add(environment.file_id(str(path)))
        assert len(ids) == 3


def test_distributions_by_module_name() -> None:
    assert environment.distribution_of("yaml") == "PyYAML"
    assert environment.distribution_of("sklearn") == "scikit-learn"
    assert environment.distribution_of("no_such_module") is None


def test_origins() -> None:
    assert environment.origin_of(os.__file__) == "standard"
    assert environment.origin_of(pytest.__file__) == "installed"
    assert environment.origin_of("/home/me/notebook/mine.py") == "local"
    assert environment.origin_of("<string>") == "none"
    assert environment.origin_of(observer.__file__) == "none"


def test_the_watch_on_variables_ends() -> None:
    kind = type(os.environ)
    before = {name: kind.__dict__[name] for name in ("__getitem__", "__iter__")}
    end = lookups.watch_environment(lambda *_: None, lambda _: None, lambda: None, lambda *_: None)
    assert kind.__dict__["__getitem__"] is not before["__getitem__"]
    end()
    assert {name: kind.__dict__[name] for name in before} == before
    assert sys.platform
