"""What `--pip`, `--env` and the notebook's own metadata ask for → the environment of a step's tasks.

Nothing is made here. An environment is known by its content: requirements, and the files that they name.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from nbflow.engine.keys import digest
from nbflow.errors import PlanError
from nbflow.flow.inline_metadata import NONE, inline_metadata
from nbflow.model import FileContent, Flow, Frozen, Notebook, Step, StepEnvironment, StepOptions
from nbflow.store.files import segments_of
from nbflow.store.location import Store, cache_folder
from nbflow.task.observe.environment import version_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# `packaging` and `importlib.metadata` are imported late: that takes longer than planning a small flow, which asks for
# no environment.

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"

Tool = Literal["pip", "uv", "conda"]

KINDS = "requirements.txt, pyproject.toml, uv.lock or environment.yml"

LOCAL_FILES = (".whl", ".gz", ".zip", ".bz2", ".txt", ".in")
"""Ends of the names of files that requirements name without a slash."""

NOT_SENT = frozenset({".git", ".nbflow", ".venv", "__pycache__", ".ipynb_checkpoints", "node_modules"})
"""Folders that are no part of a package's source."""


class EnvironmentSource(Frozen, frozen=True, kw_only=True):
    """An environment as the notebook's machine knows it: with the files that it is made from, by their paths."""

    environment: StepEnvironment
    files: Mapping[str, str] = msgspec.field(default_factory=dict)

    def stored(self, store: Store) -> StepEnvironment:
        """Return the environment with its files in a datastore, for whoever makes it elsewhere."""
        try:
            files = [FileContent(path=path, segments=segments_of(Path(at), store)) for path, at in self.files.items()]
        except OSError as error:  # it was there when the run began
            raise PlanError(f"{self.environment.label}: {error}", fix="start the run again") from error
        return msgspec.structs.replace(self.environment, files=tuple(files))


def environment_of(notebook: Notebook, options: StepOptions) -> EnvironmentSource | None:
    """Return the environment that a step with these options asks for, itself or by the notebook's metadata.

    None where it asks for none. Raise PlanError for what cannot be read, or asks for another Python.
    """
    if options.env is not None:
        return _of_file(Path(notebook.folder) / options.env, options)
    if options.pip:
        return _of_requirements(options.pip, Path(notebook.folder), f"--pip {' '.join(options.pip)}")
    metadata = inline_metadata(notebook)
    if metadata is NONE:
        return None
    where = "the notebook's `# /// script` block"
    _check_python(metadata.python, where)
    if not metadata.dependencies:
        return None
    return _of_requirements(metadata.dependencies, Path(notebook.folder), where)


def check(flow: Flow) -> None:
    """Raise PlanError for the first step whose environment cannot be told."""
    for step in flow.steps:
        if step.kind != "params":
            environment_for(flow.notebook, step)


def environment_for(notebook: Notebook, step: Step) -> EnvironmentSource | None:
    """Return the environment of a step; a PlanError names the step."""
    try:
        return environment_of(notebook, step.options)
    except PlanError as error:
        if error.step is None and error.cell is None:
            error.step, error.cell, error.line = step.name, step.cell, 1
        raise


# ---------------------------------------------------------------- what there is of it here


def is_met(environment: StepEnvironment) -> bool:
    """Return whether this Python has all that is asked for, so that none has to be made."""
    from packaging.requirements import Requirement

    return bool(environment.requirements) and all(_has(Requirement(each)) for each in environment.requirements)


def _has(requirement: Requirement, extra: str = "") -> bool:
    """Return whether a requirement is met here, or does not count here."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return True
    version = version_of(requirement.name)
    if not version or not requirement.specifier.contains(version, prereleases=True):
        return False
    if not requirement.extras:
        return True
    try:
        needs = [Requirement(line) for line in distribution(requirement.name).requires or ()]
    except PackageNotFoundError:
        return False
    return all(
        _has(need, name)
        for name in requirement.extras
        for need in needs
        if need.marker is not None and need.marker.evaluate({"extra": name})
    )


def home_of(environment: StepEnvironment) -> Path:
    """Return the folder of an environment that is made on top of this Python."""
    base = digest([sys.executable, sys.version, environment.id])[:16]
    return cache_folder() / "environments" / f"{MINOR}-{environment.tool}-{base}"


def python_of(environment: StepEnvironment) -> Path:
    """Return the interpreter of an environment; it is there once the environment has been made."""
    return home_of(environment) / "bin" / "python"


def versions_in(environment: StepEnvironment) -> Callable[[str], str | None]:
    """Return what gives the versions of distributions that tasks in an environment find.

    It gives None where the environment was not made here: nobody knows then.
    """
    if is_met(environment):
        return version_of
    site = home_of(environment) / "lib" / f"python{MINOR}" / "site-packages"
    if not python_of(environment).exists() or not site.exists():
        return lambda _: None
    changed = site.stat().st_mtime_ns
    return lambda name: _version_at(str(site), changed, name) or version_of(name)


@lru_cache(maxsize=10_000)
def _version_at(site: str, changed: int, name: str) -> str:
    from importlib.metadata import Distribution

    del changed
    return next((str(each.version) for each in Distribution.discover(name=name, path=[site])), "")


# ---------------------------------------------------------------- what is asked for


def _of_file(path: Path, options: StepOptions) -> EnvironmentSource:
    """Return what a file describes, and what `--pip` adds to it."""
    label = " ".join([f"--env {options.env}", *(["--pip", *options.pip] if options.pip else [])])
    if not path.is_file():
        raise PlanError(f"--env {options.env}: there is no such file", fix=f"name {KINDS}, from the notebook's folder")
    root, name = path.parent, path.name
    if name.endswith(".lock"):
        python, named = _locked(root, path)
        _check_python(python, f"--env {options.env}")
        files = {file: root / file for file in ("uv.lock", "pyproject.toml")}
        return _source("uv", options.pip, files, root, label, named=named)
    if name.endswith((".yml", ".yaml")):
        return _source("conda", options.pip, {name: path}, root, label)
    if name.endswith(".toml"):
        python, dependencies = _project(path, f"--env {options.env}")
        _check_python(python, f"--env {options.env}")
        return _of_requirements((*dependencies, *options.pip), root, label)
    if name.endswith((".txt", ".in")):
        lines = _lines(path)
        plain = _plain((*lines, *options.pip)) if not any(line.startswith("-") for line in lines) else ()
        return _source("pip", ("-r", name, *options.pip), {name: path}, root, label, plain)
    raise PlanError(f"--env {options.env}: nobody knows how to read it", fix=f"name {KINDS}")


def _of_requirements(requirements: Sequence[str], root: Path, label: str) -> EnvironmentSource:
    return _source("pip", requirements, {}, root, label, _plain(requirements))


def _source(
    tool: Tool, arguments: Sequence[str], files: Mapping[str, Path], root: Path, label: str,
    plain: Sequence[str] = (), named: Sequence[str] = (),
) -> EnvironmentSource:  # fmt: skip
    """Return an environment that is known by its arguments, and by the content of all files that are named."""
    every = {name: str(path) for name, path in files.items()}
    for path in _named((*arguments, *named), root, root):
        for file in _below(path):
            if file.is_relative_to(root):
                every.setdefault(file.relative_to(root).as_posix(), str(file))
    contents = [[name, [each.hash for each in segments_of(Path(at))]] for name, at in sorted(every.items())]
    identity = digest([tool, list(arguments), contents])
    environment = StepEnvironment(
        id=identity,
        label=label,
        tool=tool,
        arguments=tuple(arguments),
        requirements=tuple(plain),
    )
    return EnvironmentSource(environment=environment, files=every)


def _plain(requirements: Iterable[str]) -> tuple[str, ...]:
    """Return requirements that installed packages can be compared with; none if one of them is of another kind."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        parsed = [Requirement(each) for each in requirements]
    except InvalidRequirement:
        return ()
    return tuple(str(each) for each in parsed) if not any(each.url for each in parsed) else ()


def _project(path: Path, what: str) -> tuple[str, tuple[str, ...]]:
    """Return the versions of Python and the dependencies of a pyproject.toml."""
    table = _toml(path, what)
    project = table.get("project", {})
    if "dependencies" in project.get("dynamic", ()) or "dependencies" not in project:
        raise PlanError(f"{what}: it lists no dependencies", fix="list them as `dependencies` below [project]")
    if table.get("tool", {}).get("uv", {}).get("sources"):
        raise PlanError(f"{what}: only uv knows its [tool.uv.sources]", fix="`uv lock`, then `--env uv.lock`")
    return project.get("requires-python", ""), tuple(project["dependencies"])


def _locked(root: Path, path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the versions of Python that a lock is for, and the files and folders that it names."""
    if path.name != "uv.lock" or not (root / "pyproject.toml").is_file():
        raise PlanError(f"--env {path.name}: only a uv.lock beside its pyproject.toml can be read", fix=f"name {KINDS}")
    table = _toml(path, f"--env {path.name}")
    sources = [package.get("source", {}) for package in table.get("package", ())]
    named = {source[kind] for source in sources for kind in ("registry", "path", "directory") if kind in source}
    return table.get("requires-python", ""), tuple(f"file:{each}" for each in sorted(named) if "://" not in each)


def _toml(path: Path, what: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{what}: it is no TOML: {error}", fix="correct the file") from None


def _check_python(wanted: str, what: str) -> None:
    """Raise PlanError where another Python is asked for: what tasks leave is read by this one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(wanted).contains(".".join(map(str, sys.version_info[:3])), prereleases=True)
    except InvalidSpecifier:
        raise PlanError(f"{what}: {wanted!r} is no range of versions", fix="write one as `>=3.11`") from None
    if not fits:
        raise PlanError(
            f"{what} asks for Python {wanted}, and this is {MINOR}: values do not travel between the two",
            fix=f"start the notebook with that Python, or ask for {MINOR}",
        )


# ---------------------------------------------------------------- the files that requirements name


def _lines(path: Path) -> list[str]:
    """Return the lines of a requirements file without comments."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _named(words: Iterable[str], root: Path, folder: Path) -> Iterator[Path]:
    """Yield the files and folders that requirements and options name, and those that are named in these."""
    for word in words:
        path = _path(word, root, folder)
        if path is None:
            continue
        yield path
        if path.is_file() and path.suffix in (".txt", ".in"):
            inside = [part for line in _lines(path) for part in _words(line)]
            yield from _named(inside, root, path.parent)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _path(word: str, root: Path, folder: Path) -> Path | None:
    """Return the file or folder that a word names, from where pip is called or from the file that it stands in."""
    text = word.partition("=")[2] if word.startswith("--") else word.removeprefix("-r").removeprefix("-c")
    text = re.sub(r"^.*@\s*|\[[^]]*\]$", "", text.partition(";")[0].strip())
    is_path = text.startswith("file:") or "/" in text or text.endswith(LOCAL_FILES) or text == "."
    text = re.sub(r"^file:(//)?", "", text)
    if not text or "://" in text:
        return None
    if is_path:
        return next((path for base in (root, folder) if (path := (base / text).resolve()).exists()), None)
    path = (root / text).resolve()  # a bare word, as after `--find-links`
    return path if path.is_dir() and any(path.glob("*.whl")) else None


def _below(path: Path) -> Iterator[Path]:
    """Yield a file, or all those of a folder."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - NOT_SENT)
        yield from (Path(folder) / name for name in sorted(names))
