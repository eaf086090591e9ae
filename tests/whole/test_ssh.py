"""Whole notebooks whose steps run on a box behind a real sshd: the same as top to bottom."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbflow
from nbflow.executors.ssh.connection import Channel, Connection, parse_address
from nbflow.executors.ssh.messages import Request, SegmentPart
from nbflow.runs import launch
from tests.support.drivers import killed_and_attached, nbflow_command
from tests.support.kernel import NotebookFile
from tests.support.ssh_server import SshServer, hiding, is_installed, serving
from tests.support.waiting import eventually
from tests.support.wheels import make_wheel
from tests.whole.elsewhere import EXAMPLES, SOME, runs_the_quickstart, shows_the_same

pytestmark = [
    pytest.mark.remote,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason="needs OpenSSH's server and client: make remote"),
]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("box"), NBFLOW_GPUS="1", PYTHONHASHSEED="0") as box:
        yield box


@pytest.fixture(scope="module")
def executors(box: SshServer) -> Iterator[launch.Executors]:
    with launch.Executors(box.url) as executors:
        yield executors


def test_the_quickstart_with_every_step_elsewhere(executors: launch.Executors, tmp_path: Path) -> None:
    path = tmp_path / "quickstart.ipynb"
    path.write_bytes((EXAMPLES / "quickstart.ipynb").read_bytes())
    runs_the_quickstart(path, executors)


@pytest.mark.parametrize("name", SOME)
def test_every_cell_shows_there_what_it_shows_here(name: str, executors: launch.Executors, tmp_path: Path) -> None:
    shows_the_same(name, executors, tmp_path)


@hiding
def test_a_whole_flow_on_a_box_that_sees_nothing_of_this_machine(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with serving(there, hidden=(here,)) as box:
        notebook = NotebookFile(here / "flow.ipynb", {
            "a": "%%params\nfactor = 3",
            "b": "%%step load --on local\nimport os\nblock = os.urandom(4_000_000)\nwhere = os.getcwd()",
            "c": "%%step work --foreach n in range(40)\nsize = len(block) + n * factor\nprint('item', n)",
            "d": "%%step pick --join work\ntotal = sum(each.size for each in inputs)\nseen = os.listdir(where)",
        })  # fmt: skip
        sent: list[int] = []
        send = Channel.send

        def counting(self: Channel, request: Request) -> None:
            sent.extend([len(request.data)] if isinstance(request, SegmentPart) else [])
            send(self, request)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Channel, "send", counting)
            run = nbflow.run(notebook.path, on=box.url)
        assert run.status == "done", run.error
        assert run.data.total == 40 * 4_000_000 + 3 * sum(range(40))
        assert run.data.seen == []  # it did run elsewhere
        assert 4_000_000 <= sum(sent) < 4_001_000  # for forty tasks once
        assert run["work"][7].stdout == "item 7\n"
        again = nbflow.run(notebook.path, on=box.url)
        assert (again["load"].state, again["work"].state) == ("reused", "reused")


@hiding
def test_a_step_that_asks_about_runs_which_nobody_there_can_see_fails(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with serving(there, hidden=(here,)) as box:
        notebook = NotebookFile(here / "flow.ipynb", {
            "a": "%%step a\nfrom nbflow import Flow\nfrom nbflow.errors import NotFoundError\n"
                 "try:\n    before = Flow('flow').latest_run\nexcept NotFoundError:\n    before = None",
        })  # fmt: skip
        run = nbflow.run(notebook.path, on=box.url)
        assert run.status == "failed"
        assert "asked about runs of flow, which ssh://box cannot see" in str(run.error)


@hiding
def test_a_sweep_through_a_cut_connection_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    marks = tmp_path / "marks"
    marks.mkdir()
    with serving(there, hidden=(here,)) as box:
        notebook = NotebookFile(here / "flow.ipynb", {
            "a": f"%%step work --foreach n in range(40)\nimport os, uuid, numpy as np\n"
                 f"open(f'{marks}/{{n}}-{{uuid.uuid4()}}', 'w').close()\n"
                 "values = np.full(200_000, n) + np.arange(200_000)\n"
                 f"print('item', n)",
            "b": "%%step close --join work\ntotal = sum(int(each.values[0]) for each in inputs)",
        })  # fmt: skip
        connection = Connection(parse_address(box.url))

        def cut_in_the_middle() -> None:
            eventually(lambda: len([*marks.iterdir()]) >= 10)
            box.cut(connection)

        cutting = threading.Thread(target=cut_in_the_middle, daemon=True)
        cutting.start()
        run = nbflow.run(notebook.path, on=box.url)
        cutting.join(60)
    assert run.status == "done", run.error
    assert run.data.total == sum(range(40))
    assert [task.stdout for task in run["work"].tasks] == [f"item {n}\n" for n in range(40)]
    assert sorted(int(path.name.partition("-")[0]) for path in marks.iterdir()) == [*range(40)]


@hiding
def test_files_that_a_step_writes_there_come_back(tmp_path: Path) -> None:
    here, there = _made(_made(tmp_path / "hidden") / "here"), _made(tmp_path / "there")
    with serving(there, hidden=(here.parent,)) as box:
        path = NotebookFile(here / "flow.ipynb", {
            "a": "%%step a\nimport os\nplace = os.getcwd()\n"
                 "with open('out.txt', 'w') as file:\n    _ = file.write('made' * 500_000)",
            "b": "%%step b --on local\nsize = len(open('out.txt').read())",
        }).path  # fmt: skip
        run = nbflow.run(path, on=box.url)
    assert run.status == "done", run.error
    assert run.data.place != str(here)
    assert run.data.size == 2_000_000


@hiding
def test_a_run_whose_driver_is_killed_is_taken_up(tmp_path: Path) -> None:
    """What was done is reused; what still runs there, seen by nobody here, is awaited and not run again."""
    here, there = _made(tmp_path / "here"), _made(tmp_path / "there")
    ran, go = tmp_path / "ran", tmp_path / "go"
    cells = {
        "a": f"%%step a\nx = 1\nwith open('{ran}', 'a') as f:\n    _ = f.write('a')",
        "b": f"%%step b\nimport pathlib, time\nwith open('{ran}', 'a') as f:\n    _ = f.write('b')\nprint('go')\n"
             f"while not pathlib.Path('{go}').exists():\n    time.sleep(0.05)\ny = [x + 1] * 100_000",
        "c": "%%step c\nz = y[-1] + 1",
    }  # fmt: skip
    path = NotebookFile(here / "flow.ipynb", cells).path
    store = str(here / ".nbflow")
    with serving(there, hidden=(here,)) as box:
        driver = nbflow_command("run", str(path), "--on", box.url)
        _, taken_up, _ = killed_and_attached(driver, store, ran, go)
    assert (taken_up.status, taken_up.data.z) == ("done", 3)
    assert ran.read_text() == "ab"
    assert taken_up["a"].state == "reused"
    assert taken_up["b"].task.stdout == "go\n"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@hiding
def test_packages_of_a_step_are_installed_on_a_box_that_sees_nothing_of_this_machine(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make_wheel(here / "wheels", "nbtiny", "1.0")
    there.mkdir()
    with serving(there, hidden=(here,)) as box:
        notebook = NotebookFile(here / "flow.ipynb", {
            "a": '%%step a --pip "nbtiny --no-index --find-links wheels"\nimport nbtiny, sys\n'
                 "version, where = nbtiny.VERSION, sys.prefix",
            "b": "%%step b --on local\nlonger = version + '.0'",
        })  # fmt: skip
        run = nbflow.run(notebook.path, on=box.url)
        assert run.status == "done", run.error
        assert run.data.longer == "1.0.0"
        assert run.data.where.startswith(str(box.cache / "environments"))
        assert nbflow.run(notebook.path, on=box.url)["a"].state == "reused"


FILES = {
    "p": "%%params\nsource: File = 'given.txt'",
    "a": "%%step named --on {box}\nimport tools\nfrom pathlib import Path\n"
         "text = open('data/a.csv').read() + Path('data', 'b.csv').read_text() + open(source).read() + tools.word()\n"
         "with open('log.txt', 'a') as log:\n    log.write('more\\n')\n"
         "Path('old.txt').unlink()\nPath('empty').mkdir()\n"
         "Path('out/new.txt').parent.mkdir()\nPath('out/new.txt').write_text('new')",
    "b": "%%step computed --on {box} --foreach n in [1, 2]\nfrom pathlib import Path\nprint('item', n)\n"
         "here = Path('items')\n"
         "found = here.joinpath(f'{{n}}.txt').read_text() if here.joinpath(f'{{n}}.txt').exists() else 'none'",
    "c": "%%step listed --on {box}\nfrom pathlib import Path\n"
         "names = sorted(each.name + each.read_text() for each in Path('items').glob('*.txt'))",
    "d": "%%step last --join computed\nall_of_them = [each.found for each in inputs]",
}  # fmt: skip


@hiding
def test_files_beside_the_notebook_travel_to_a_box_that_does_not_see_them(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    beside = {
        "given.txt": "given ", "data/a.csv": "a ", "data/b.csv": "b ", "log.txt": "first\n", "old.txt": "", "tools.py":
        "from words import WORD\n\ndef word():\n    return WORD\n", "words.py": "WORD = 'module'\n",
        "items/1.txt": "one", "items/2.txt": "two", "items/3.txt": "three",
    }  # fmt: skip
    for name, text in beside.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    with serving(there, hidden=(here,)) as box:
        cells = {name: source.format(box=box.url) for name, source in FILES.items()}
        path = NotebookFile(here / "flow.ipynb", cells).path
        run = nbflow.run(path)
        assert run.status == "done", run.error
        assert run.data.text == "a b given module"
        assert run.data.all_of_them == ["one", "two"]
        assert run.data.names == ["1.txtone", "2.txttwo", "3.txtthree"]
        assert (here / "log.txt").read_text() == "first\nmore\n"
        assert (here / "out" / "new.txt").read_text() == "new"
        assert (here / "empty").is_dir()
        assert not (here / "old.txt").exists()
        sent = {finding.step for finding in run._past.snapshot.findings if finding.code == "file-sent"}
        assert sent == {"computed", "listed"}  # nobody could tell these by their text
        assert [task.attempt for task in run["computed"].tasks] == [1, 1]
        assert run["computed"].tasks[0].stdout == "item 1\n"
        again = nbflow.run(path)
        assert {step.name: step.state for step in again.steps() if step.name != "named"} == {
            "computed": "reused", "listed": "reused", "last": "reused",
        }  # fmt: skip
        fresh = nbflow.run(path, fresh=["computed", "listed"])
        assert fresh.data.all_of_them == ["one", "two"]
        assert [
            finding for finding in fresh._past.snapshot.findings if finding.code == "file-sent"
        ] == []  # seen the last time


@hiding
def test_a_step_that_comes_to_a_file_after_an_effect_fails_and_says_what_to_do(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "data.txt").write_text("here")
    (tmp_path / "beyond.txt").write_text("beyond")
    with serving(there, hidden=(here,)) as box:
        path = NotebookFile(here / "flow.ipynb", {
            "a": "%%step a\nimport subprocess\nsubprocess.run(['true'])\nend = 'txt'\nx = open(f'data.{end}').read()",
            "b": "%%step b\ny = open('../beyond.txt').read()",
        }).path  # fmt: skip
        run = nbflow.run(path, on=box.url)
        error = run["a"].task.error
        assert error is not None
        assert "looked for data.txt on ssh://box, which does not see the notebook's folder" in error.message
        (told,) = [finding for finding in run._past.snapshot.findings if finding.code == "file-elsewhere"]
        assert (told.step, "../beyond.txt" in told.message) == ("b", True)


@hiding
def test_a_plan_says_what_would_be_sent_and_how_long_it_takes(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "data.bin").write_bytes(bytes(range(256)) * 4000)
    with serving(there, hidden=(here,), NBFLOW_GPUS="0") as box:
        path = NotebookFile(here / "flow.ipynb", {
            "a": "%%step make --on local\nimport os\nblock = os.urandom(3_000_000)",
            "b": "%%step work --foreach n in [1, 2]\nimport time\ntime.sleep(0.3)\nsize = len(block) + n\n"
                 "data = len(open('data.bin', 'rb').read())",
            "c": "%%step pick --join work\nsizes = [each.size for each in inputs]",
        }).path  # fmt: skip
        (first,) = [place for place in nbflow.plan(path, on=box.url).places if place.place != "local"]
        assert (first.run, first.reuse, first.seconds, first.sends_more) == (2, 0, None, True)
        done = nbflow.run(path, on=box.url)
        assert done.status == "done", done.error
        nothing = nbflow.plan(path, on=box.url)
        assert [(each.place, each.run, each.upload) for each in nothing.places] == [(box.url, 0, 0), ("local", 0, 0)]
        (here / "data.bin").write_bytes(bytes(range(1, 256)) * 4000)
        changed = next(each for each in nbflow.plan(path, on=box.url).places if each.place != "local")
        assert (changed.run, changed.reuse) == (3, 0)
        assert changed.upload == 255 * 4000  # the values are there already
        assert changed.seconds is not None
        assert changed.seconds >= 0.3
        told, _ = nbflow_command("plan", str(path), "--on", box.url).communicate(timeout=60)
        assert "3 tasks run, 0 are reused; at least 1.0 MB to send; about " in told
        assert nbflow.run(path, on=box.url).data.sizes == [3_000_001, 3_000_002]
