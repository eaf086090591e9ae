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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nbflow.engine import certificates, facts
from nbflow.errors import NbflowError, PlanError, TaskError
from nbflow.flow.notebook import document_of
from nbflow.flow.subflow import with_ancestors
from nbflow.model import Certificate, Flow
from nbflow.runs import client, launch
from nbflow.runs.run_options import PathLike, RunOptions
from nbflow.runs.shown import ShownDifference
from nbflow.store import location, records
from nbflow.store.location import LocalStore, Store
from nbflow.store.stored_run import find_run
from nbflow.store.verified import hash_of
from nbflow.task.observe.environment import version_of

LEFT_OUT = (".nbflow", ".git", "__pycache__", ".ipynb_checkpoints", ".venv", "node_modules")
"""Folders beside a notebook that are no data of it."""

MOST = 4 << 30
"""Bytes of a notebook's folder that are copied; more is refused."""

ROUNDS = 6
"""Times that more steps are run together before a difference is left as it is."""

OUTSIDE = {"socket": "the network", "subprocess": "programs", "database": "data bases"}
Place = str | tuple[str, int]
"""What is compared: a name, or the n-th thing that a cell, by its id, shows."""

WHY = "it is not what it was once it was stored: nbflow verify has seen that"


class PlainJob(msgspec.Struct, frozen=True):
    """A notebook to run plainly."""

    notebook: str
    store: str
    params: dict[str, Any]
    all_cells: bool = False


class PlainEnd(msgspec.Struct, frozen=True):
    """What a plain run left: marks of each name's value, None where there is no equality, and of what each cell shows.

    Or its error.
    """

    prints: dict[str, str | None] = msgspec.field(default_factory=dict)
    shown: dict[str, list[str]] = msgspec.field(default_factory=dict)
    error: str = ""


class RunComparison(msgspec.Struct, frozen=True):
    """The names that a run left otherwise than the plain notebook: name -> a preview of each; the run's error.

    `shown` is what cells show otherwise, by their ids. Of `unknown` nobody can tell.
    """

    different: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    shown: dict[str, list[ShownDifference]] = msgspec.field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    error: str = ""


class VerifiedDifference(NamedTuple):
    """Where a flow and its plain notebook part: the cell, the name, display or file, and what stands on either side."""

    cell: str
    name: str
    plain: str
    flow: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification has seen.

    `differences` are those that are left, and `mended` those that are no more: steps `together` run in one process
    from now on, and results of the steps `dropped`, which the notebook's datastore had and which were others, are
    reused no more. `not_reproducible` are names, displays and files that two plain runs leave in two ways,
    `not_compared` names without an equality. `groups` are all steps that run together, also those that did before.
    `certified` is when all was equal, 0 where it was not.
    """

    flow: str
    values: int
    displays: int
    files: int
    differences: tuple[VerifiedDifference, ...] = ()
    mended: tuple[VerifiedDifference, ...] = ()
    not_reproducible: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    together: tuple[tuple[str, ...], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    dropped: tuple[str, ...] = ()
    certified: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether the flow leaves and shows what the plain notebook does, fresh and reused."""
        return not self.differences

    def __str__(self) -> str:
        """Return it as a person reads it."""
        counts = (_counted(self.values, "value"), _counted(self.displays, "display"), _counted(self.files, "file"))
        lines = [f"equal: {', '.join(counts)}"] if self.equal else []
        for words, differences in (("different", self.differences), ("was different", self.mended)):
            for cell, name, plain, other in differences:
                lines.append(f"{words}: {name} ({cell})\n  plain: {plain}\n  flow:  {other}")
        lines += [f"run together from now on: {', '.join(group)}" for group in self.together]
        lines += [f"stale results dropped: {', '.join(self.dropped)}"] if self.dropped else []
        for what, names in (("not reproducible", self.not_reproducible), ("not compared", self.not_compared)):
            lines += [f"{what}: {', '.join(names)}"] if names else []
        if self.certified:
            lines.append(f"certified: `nbflow run --verified` takes {self.flow} as it is now, with these packages")
        return "\n".join(lines)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


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
        self.unsteady: dict[Place, str] = {}  # what two plain runs leave or show in two ways, as people call it
        self.apart: dict[str, dict[str, str]] = {}  # step -> names that do not come back as they were

    def run(self, *, yes: bool) -> Verified:
        """Run everything and compare."""
        size = sum(file.stat().st_size for file in _files(self.folder))
        if size > MOST:
            raise PlanError(
                f"the folder of {self.file} holds {size >> 30} GB, more than is copied for a verification",
                fix="verify it in a folder with its own data only",
            )
        _share_facts(self.store, self.scratch)
        runs = self._flow_runs()
        if not yes:
            _refuse_outside(runs[0])
        with ExitStack() as stack:
            plain, again = (stack.enter_context(self._plain(name)) for name in ("plain", "again"))
            for end in (plain.end, again.end):
                if end.error:
                    raise TaskError(f"the plain notebook fails: {end.error}", fix="run it from top to bottom first")
            self.unsteady = self._unsteady(plain.end, again.end)
            different = first = self._different(plain, runs)
            for _ in range(ROUNDS):
                if not different or not self._part_less(next(iter(different))):
                    break
                runs = self._flow_runs()
                different = self._different(plain, runs)
            kept = self._kept_run() if not different else None
            stale = self._different(plain, [kept]) if kept is not None else {}
        one, two, other = (_tree(self.place / name) for name in ("plain", "again", "flow"))
        unsteady_files = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
        files = tuple(
            VerifiedDifference("a file", name, _said(one.get(name)), _said(other.get(name)))
            for name in sorted((one.keys() | other.keys()) - unsteady_files) if one.get(name) != other.get(name)
        )  # fmt: skip
        written = {name for name in one.keys() - unsteady_files if one[name] != _content(self.folder / name)}
        prints = {name for name, mark in plain.end.prints.items() if mark is not None}
        verified = Verified(
            flow=self.flow.name, values=len(prints - self.unsteady.keys() - self.unknown), files=len(written),
            displays=sum(
                (place, number) not in self.unsteady
                for place in self._cells() for number in range(1, len(plain.end.shown.get(place, ())) + 1)
            ),
            differences=(*different.values(), *files),
            mended=(*(first[place] for place in first if place not in different), *stale.values()),
            not_reproducible=tuple(sorted([*self.unsteady.values(), *unsteady_files])),
            not_compared=tuple(sorted(self.unknown.union(plain.end.prints.keys() - prints))),
            together=self._groups() if self.apart and not different else (),
            groups=self._groups(),
            dropped=self._drop(kept, stale) if kept is not None and stale else (),
            certified=0.0 if different or files else time.time(),
        )  # fmt: skip
        self._remember(verified, runs[0])
        return verified

    # ------------------------------------------------------------ the runs

    def _copy(self, name: str) -> Path:
        """Return the notebook in a copy of its folder, made anew."""
        place = self.place / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder, place, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        cells, text = self.flow.notebook.cells, self.flow.notebook.document
        if text or self.file.endswith(".ipynb"):  # a live notebook may have no text of its own, nor be saved
            text = text or document_of(((cell.id, cell.source) for cell in cells), self.flow.name)
            (place / self.file).write_text(text, encoding="utf-8")
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

    def _kept_run(self) -> client.Run | None:
        """Run the flow with the results that the notebook's own datastore has; None where it has none of use."""
        if not isinstance(self.store, LocalStore) or not self.store.children("results"):
            return None
        copy = self.place / "kept store"
        opened = location.open_store(str(copy))
        _share_facts(self.scratch, opened)  # with what has turned out here
        for part in ("segments", "results"):
            with suppress(FileNotFoundError):
                shutil.copytree(Path(self.store.url, part), copy / part, copy_function=_link, dirs_exist_ok=True)
        options = msgspec.structs.replace(self.options, store=opened.url)
        notebook = self._copy("kept")
        if all(task.action == "run" for task in launch.plan_notebook(notebook, options).tasks):
            return None
        return launch.run_notebook(notebook, options)

    def _different(self, plain: _PlainProcess, runs: Sequence[client.Run]) -> dict[Place, VerifiedDifference]:
        """Return what runs left and showed otherwise, in document order."""
        different: dict[Place, VerifiedDifference] = {}
        for run in runs:
            found = plain.compare(run.store, f"{run.flow}/{run.id}")
            self.unknown |= {*found.unknown}
            if found.error:
                different["", 0] = VerifiedDifference("the run", "its end", "no error", found.error)
            for name, both in found.different.items():
                if name not in self.unsteady:
                    different[name] = VerifiedDifference(self._label(name), name, *both)
            for cell, shown in found.shown.items():
                for each in shown:
                    if (cell, each.number) not in self.unsteady:
                        label = self._label((cell, each.number))
                        different[cell, each.number] = VerifiedDifference(
                            label, f"display {each.number}", each.plain, each.flow
                        )
        return dict(sorted(different.items(), key=lambda entry: self._position(entry[0])))

    def _unsteady(self, one: PlainEnd, two: PlainEnd) -> dict[Place, str]:
        """Return the names and displays in which two plain runs differ, each as people call it."""
        unsteady: dict[Place, str] = {
            name: name for name, mark in one.prints.items() if mark is not None and two.prints.get(name) != mark
        }
        for cell in one.shown.keys() | two.shown.keys():
            marks = zip_longest(one.shown.get(cell, ()), two.shown.get(cell, ()))
            numbers = [number for number, (a, b) in enumerate(marks, 1) if a != b]
            unsteady |= {(cell, number): f"display {number} of {self._label((cell, number))}" for number in numbers}
        return unsteady

    def _position(self, place: Place) -> int:
        """Return where the cell stands that gives a name its last value, or shows something."""
        if isinstance(place, str):
            writers = self.flow.writers.get(place, ())
            return writers[-1].position if writers else 0
        return self.flow.notebook.positions.get(place[0], 0)

    def _label(self, place: Place) -> str:
        position = self._position(place)
        labels = {step.position: step.label for step in self.flow.steps}
        return labels.get(position, f"cell {position}") if position else ""

    def _cells(self) -> Iterator[str]:
        """Yield the cells of the flow's steps: what others show, no run shows."""
        return (step.cell for step in self.flow.steps if step.kind != "params")

    # ------------------------------------------------------------ what is done about a difference

    def _part_less(self, first: Place) -> bool:
        """Let the step of the first difference run with those that it reads from; return whether that is new."""
        steps = {step.name: step for step in self.flow.steps}
        queue = [step.name for step in self.flow.steps if step.position == self._position(first)]
        seen: set[str] = set()
        while queue:
            step = steps[queue.pop(0)]
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

    def _drop(self, kept: client.Run, stale: Mapping[Place, VerifiedDifference]) -> tuple[str, ...]:
        """Let no run take the results that have led to what is stale; return the labels of their steps."""
        steps = {step.name: step for step in self.flow.steps}
        positions = {self._position(place) for place in stale}
        names = [step.name for step in self.flow.steps if step.position in positions]
        led = [step for step in with_ancestors(self.flow, names).steps if step.name in kept]
        dropped = {
            step.name: [task.metadata["execution"] for task in kept[step.name].tasks if task.state == "reused"]
            for step in led
        }  # fmt: skip
        for name, executions in dropped.items():
            if executions:
                facts.remember_early(self.store, steps[name], executions)
        return tuple(steps[name].label for name, executions in dropped.items() if executions)

    def _remember(self, verified: Verified, fresh: client.Run) -> None:
        """Keep in the notebook's own datastore what has turned out: steps that run together, and the certificate."""
        if not verified.equal:
            certificates.certify(self.store, self.flow, None)
            return
        steps = {step.name: step for step in self.flow.steps}
        for name, names in self.apart.items():
            facts.remember_apart(self.store, steps[name], names)
        past = find_run(self.scratch, f"{fresh.flow}/{fresh.id}")
        seen = [record.observations for view in past.snapshot.tasks if (record := past.record(view)) is not None]
        packages = {name: version for each in seen for name, version in each.distributions.items()}
        certificates.certify(self.store, self.flow, Certificate(
            flow=self.flow.name, at=verified.certified, values=verified.values, displays=verified.displays,
            files=verified.files, cells=certificates.cell_codes(self.flow), python=certificates.python(),
            packages={**packages, "nbflow": version_of("nbflow")},
            modules={
                path: each.files[path] for each in seen for path in each.imports.values() if path in each.files
            },
        ))  # fmt: skip

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        run = client.Flow(self.flow.name, self.scratch.url).latest_run
        groups = {task.together for step in run.steps() for task in step.tasks if task.together} if run else set()
        return tuple(sorted(groups))


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


def _share_facts(store: Store, other: Store) -> None:
    """Let what is known of steps in one datastore count in another one, too."""
    for entry in store.list("facts"):
        other.write(entry.path, store.read_many([entry.path]).get(entry.path, b""))
    records.write_facts(other, certificates.PREFIX, {})  # where there are none: now it is made, and this user's


def _link(source: str, target: str) -> None:
    """Put a datastore's file into another one: they never change."""
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


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
