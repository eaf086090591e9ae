"""A notebook run plainly and as a flow, side by side, and both compared.

Both run in copies of the notebook's folder, so that neither finds what the other has written. The plain notebook runs
twice: what differs between these two is not reproducible, and nothing can be said of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from nbflow.engine import facts
from nbflow.errors import NbflowError, PlanError, TaskError
from nbflow.model import Flow
from nbflow.runs import client, launch
from nbflow.runs.run_options import PathLike, RunOptions
from nbflow.store import location
from nbflow.store.location import Store
from nbflow.store.verified import hash_of

LEFT_OUT = (".nbflow", ".git", "__pycache__", ".ipynb_checkpoints", ".venv", "node_modules")
"""Folders beside a notebook that are no data of it."""

MOST = 4 << 30
"""Bytes of a notebook's folder that are copied; more is refused."""

ROUNDS = 6
"""Times that more steps are run together before a difference is left as it is."""

OUTSIDE = {"socket": "the network", "subprocess": "programs", "database": "data bases"}
WHY = "it is not what it was once it was stored: nbflow verify has seen that"


class PlainJob(msgspec.Struct, frozen=True):
    """A notebook to run plainly."""

    notebook: str
    store: str
    params: dict[str, Any]
    all_cells: bool = False


class PlainEnd(msgspec.Struct, frozen=True):
    """What a plain run left: a mark of each name's value, None where there is no equality; or its error."""

    prints: dict[str, str | None] = msgspec.field(default_factory=dict)
    error: str = ""


class RunComparison(msgspec.Struct, frozen=True):
    """The names that a run left otherwise than the plain notebook: name -> a preview of each; the run's error.

    Of `unknown` nobody can tell.
    """

    different: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    error: str = ""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification has seen.

    `differences` are (cell, name or file, as the plain notebook leaves it, as the flow does); `not_reproducible` are
    names and files that two plain runs leave in two ways, `not_compared` names without an equality; `together` are the
    steps that run in one process from now on, as that took a difference away.
    """

    flow: str
    values: int
    files: int
    differences: tuple[tuple[str, str, str, str], ...] = ()
    not_reproducible: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the flow left what the plain notebook leaves, fresh and reused."""
        return not self.differences

    def __str__(self) -> str:
        """Return it as a person reads it."""
        lines = [f"equal: {self.values} values, {self.files} files"] if self.equal else []
        for cell, name, plain, other in self.differences:
            lines.append(f"different: {name} ({cell})\n  plain: {plain}\n  flow:  {other}")
        lines += [f"run together from now on: {', '.join(group)}" for group in self.together]
        for what, names in (("not reproducible", self.not_reproducible), ("not compared", self.not_compared)):
            lines += [f"{what}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def verify(
    path: PathLike,
    *,
    params: Mapping[str, Any] | None = None,
    on: str = "local",
    store: str | None = None,
    workers: int | None = None,
    all_cells: bool = False,
    yes: bool = False,
) -> Verified:
    """Run a notebook plainly, twice, and as a flow, fresh and reused; return what was compared, and what differed.

    Files are compared in copies of the notebook's folder, where all of this runs. Steps of which no difference is left
    once they run together do so from now on. `yes`: also where steps were seen to use the network, programs or data
    bases, which all four runs would do. Raises PlanError for a notebook with `--once`, for one that needs `yes`, and
    what `run` raises before anything runs; TaskError where the plain notebook itself fails.
    """
    options = RunOptions(params=params or {}, on=on, store=store, workers=workers, all_cells=all_cells)
    return verify_flow(launch.load_flow(path, all_cells=all_cells), options, yes=yes)


def verify_flow(flow: Flow, options: RunOptions, *, yes: bool = False) -> Verified:
    """Return what the verification of a flow has seen; as `verify`."""
    once = next((step for step in flow.steps if step.options.once), None)
    if once is not None:
        fix = "verify a copy without --once, with what it does outside replaced"
        raise PlanError(f"{once.label} has --once: it may not be executed four times", step=once.name, fix=fix)
    launch.check_flow(flow)
    store = location.open_store(location.store_url(options.store, flow.notebook.folder))
    store.require_trust()
    if not yes:
        _ask(flow, store)
    with tempfile.TemporaryDirectory(prefix="nbflow-verify-") as name:
        return _Verification(flow, options, store, Path(name)).run(yes=yes)


def _ask(flow: Flow, store: Store) -> None:
    """Raise PlanError where the last run's steps were seen to reach out of the notebook's folder."""
    try:
        run = client.Flow(flow.name, store.url).latest_run
    except NbflowError:  # it has not run yet
        return
    if run is not None:
        _refuse_outside(run)


def _refuse_outside(run: client.Run) -> None:
    for step in run.steps():
        for task in step.tasks:
            seen = [OUTSIDE[word] for word in task.metadata.get("volatile", ()) if word in OUTSIDE]
            if seen:
                raise PlanError(
                    f"{step.name} uses {', '.join(seen)}, and a verification executes it four times", step=step.name,
                    fix="say that it may: --yes (yes=True)",
                )  # fmt: skip


class _Verification:
    """One verification in a folder of its own."""

    def __init__(self, flow: Flow, options: RunOptions, store: Store, place: Path) -> None:
        self.flow = flow
        self.store = store
        self.place = place
        self.folder = Path(flow.notebook.folder)
        self.file = Path(flow.notebook.path or f"{flow.name}.ipynb").name
        self.scratch = location.open_store(str(place / "store"))
        self.options = msgspec.structs.replace(options, store=self.scratch.url, tags=(), steps=None, resume=None)
        self.unknown: set[str] = set()  # names of kinds without an equality
        self.apart: dict[str, dict[str, str]] = {}  # step -> names that do not come back as they were

    def run(self, *, yes: bool) -> Verified:
        """Run everything and compare."""
        size = sum(file.stat().st_size for file in _files(self.folder))
        if size > MOST:
            raise PlanError(
                f"the folder of {self.file} holds {size >> 30} GB, more than is copied for a verification",
                fix="verify it in a folder with its own data only",
            )
        for entry in self.store.list("facts"):  # what is known of its steps counts here, too
            self.scratch.write(entry.path, self.store.read_many([entry.path]).get(entry.path, b""))
        runs = self._flow_runs()
        if not yes:
            _refuse_outside(runs[0])
        with ExitStack() as stack:
            plain, again = (stack.enter_context(self._plain(name)) for name in ("plain", "again"))
            ends = plain.end, again.end
            for end in ends:
                if end.error:
                    raise TaskError(f"the plain notebook fails: {end.error}", fix="run it from top to bottom first")
            prints = {name: mark for name, mark in ends[0].prints.items() if mark is not None}
            unsteady = {name for name, mark in prints.items() if ends[1].prints.get(name) != mark}
            different = self._different(plain, runs, unsteady)
            for _ in range(ROUNDS):
                if not different or not self._part_less(different):
                    break
                runs = self._flow_runs()
                different = self._different(plain, runs, unsteady)
        one, two, other = (_tree(self.place / name) for name in ("plain", "again", "flow"))
        unsteady_files = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
        files = {
            name: (_said(one.get(name)), _said(other.get(name)))
            for name in (one.keys() | other.keys()) - unsteady_files if one.get(name) != other.get(name)
        }  # fmt: skip
        if not different and not files:
            self._remember()
        written = {name for name in one.keys() - unsteady_files if one[name] != _content(self.folder / name)}
        return Verified(
            flow=self.flow.name, values=len(prints.keys() - unsteady - self.unknown), files=len(written),
            differences=(
                *((self._cell(name), name, *both) for name, both in different.items()),
                *(("a file", name, *both) for name, both in sorted(files.items())),
            ),
            not_reproducible=tuple(sorted(unsteady | unsteady_files)),
            not_compared=tuple(sorted(self.unknown.union(n for n, mark in ends[0].prints.items() if mark is None))),
            together=self._groups() if self.apart and not different else (),
        )  # fmt: skip

    # ------------------------------------------------------------ the runs

    def _copy(self, name: str) -> Path:
        """Return the notebook in a copy of its folder, made anew."""
        place = self.place / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder, place, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        if self.flow.notebook.document:
            (place / self.file).write_text(self.flow.notebook.document)
        return place / self.file

    def _flow_runs(self) -> tuple[client.Run, client.Run]:
        """Run the flow, fresh and once more with all that can be reused."""
        notebook = self._copy("flow")
        fresh = launch.run_notebook(notebook, msgspec.structs.replace(self.options, fresh=True))
        return fresh, launch.run_notebook(notebook, self.options)

    @contextmanager
    def _plain(self, name: str) -> Iterator[_PlainProcess]:
        store, params = str(self.place / f"{name} store"), dict(self.options.params)
        process = _PlainProcess(PlainJob(str(self._copy(name)), store, params, self.options.all_cells))
        try:
            yield process
        finally:
            process.close()

    def _different(
        self, plain: _PlainProcess, runs: Sequence[client.Run], unsteady: set[str]
    ) -> dict[str, tuple[str, str]]:
        """Return the names that a run left otherwise, in document order; of a run that failed, that."""
        different: dict[str, tuple[str, str]] = {}
        for run in runs:
            found = plain.compare(self.scratch.url, f"{run.flow}/{run.id}")
            different |= {name: both for name, both in found.different.items() if name not in unsteady}
            self.unknown |= {*found.unknown}
        places = {name: writers[-1].position for name, writers in self.flow.writers.items() if writers}
        return dict(sorted(different.items(), key=lambda each: places.get(each[0], 0)))

    # ------------------------------------------------------------ what is done about a difference

    def _part_less(self, different: Mapping[str, tuple[str, str]]) -> bool:
        """Let the step of the first difference run with those that it reads from; return whether that is new."""
        steps = {step.name: step for step in self.flow.steps}
        first = next(iter(different))
        queue = [writer.step for writer in self.flow.writers.get(first, ())[-1:] if writer.step in steps]
        seen: set[str] = set()
        while queue:
            step = steps[queue.pop(0) or ""]
            seen.add(step.name)
            sources = {b.name: s.step for b in step.bindings for s in b.sources[:1] if s.step in steps}
            new = {n: maker for n, maker in sources.items() if maker and n not in self.apart.get(maker, {})}
            for name, maker in new.items():
                self.apart.setdefault(maker, {})[name] = WHY
                facts.remember_apart(self.scratch, steps[maker], {name: WHY})
            if new:
                return True
            queue += [maker for maker in sources.values() if maker and maker not in seen]
        return False

    def _remember(self) -> None:
        """Let steps that have to run together do so in the notebook's own runs."""
        steps = {step.name: step for step in self.flow.steps}
        for name, names in self.apart.items():
            facts.remember_apart(self.store, steps[name], names)

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        run = client.Flow(self.flow.name, self.scratch.url).latest_run
        groups = {task.together for step in run.steps() for task in step.tasks if task.together} if run else set()
        return tuple(sorted(groups))

    def _cell(self, name: str) -> str:
        writers = self.flow.writers.get(name, ())
        labels = {step.position: step.label for step in self.flow.steps}
        return labels.get(writers[-1].position, f"cell {writers[-1].position}") if writers else ""


class _PlainProcess:
    """A process that runs the plain notebook and compares runs with it."""

    def __init__(self, job: PlainJob) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nbflow.plain_run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=Path(job.notebook).parent, env={**os.environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        self._send(job)
        self.end = msgspec.json.decode(self._answer(), type=PlainEnd)

    def compare(self, store: str, run: str) -> RunComparison:
        """Return where a run left something else."""
        self._send((store, run))
        return msgspec.json.decode(self._answer(), type=RunComparison)

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()

    def _answer(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise TaskError("the process of the plain notebook has ended", fix="see what stands above")
        return line

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        yield from (Path(place, name) for name in names if Path(place, name).is_file())


def _tree(folder: Path) -> dict[str, str]:
    """Return the files of a folder with what they hold."""
    return {str(file.relative_to(folder)): hash_of(file.read_bytes()) for file in _files(folder)}


def _content(file: Path) -> str | None:
    return hash_of(file.read_bytes()) if file.is_file() else None


def _said(content: str | None) -> str:
    return "no such file" if content is None else f"content {content[-8:]}"
