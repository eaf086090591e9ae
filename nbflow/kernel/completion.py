"""Help where one types: completion and inspection of header lines, of `%flow`, and of names that wait in the store."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nbflow.analysis.lines import header_of
from nbflow.errors import NbflowError
from nbflow.flow.options import OPTIONS
from nbflow.kernel.stand_in import StandIn
from nbflow.render import preview

if TYPE_CHECKING:
    from nbflow.kernel.session import Session

NAMES_STEPS = frozenset({"after", "join"})
PLACES = ("local", "ray://", "dask://", "ssh://")
RUNS = 30
"""Runs that are offered, the newest ones."""
FLOW_LINE = re.compile(r"\s*%flow\b(.*)")
OWNER = re.compile(r"(\w+)\s*[.\[][^()]*$")
"""The name at the beginning of what is typed: `model.co`, `frame["a`."""


class Completion:
    """What a kernel's completer and inspector say more than IPython's; asked in the kernel's main thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ip = session.ip
        kernel = getattr(self._ip, "kernel", None)
        self._stand_in = StandIn(kernel, "do_inspect", self._inspecting) if kernel is not None else None

    def attach(self) -> None:
        """Be asked from now on."""
        from IPython.core.completer import context_matcher

        @context_matcher(identifier="nbflow")  # type: ignore[untyped-decorator]
        def match(context: Any) -> Any:
            return self._match(context)

        self._matcher = match
        self._ip.Completer.custom_matchers.insert(0, match)
        if self._stand_in is not None:
            self._stand_in.attach()

    def detach(self) -> None:
        """Be asked no more."""
        if self._matcher in self._ip.Completer.custom_matchers:
            self._ip.Completer.custom_matchers.remove(self._matcher)
        if self._stand_in is not None:
            self._stand_in.detach()

    # ------------------------------------------------------------ completion

    def _match(self, context: Any) -> Any:
        from IPython.core.completer import SimpleCompletion

        lines = context.full_text.split("\n")
        before = lines[context.cursor_line][: context.cursor_position]
        typed = re.search(r"[^\s,=]*$", before)
        fragment = typed[0] if typed is not None else ""
        offered = self._offered(lines, context.cursor_line, before, fragment)
        if offered is None:
            self._bind_owner(before)
            fragment = context.token
            names = self._session.known.waiting.names() if fragment.isidentifier() else []
            found = [SimpleCompletion(name, type="instance") for name in names if name.startswith(fragment)]
            return {"completions": found, "suppress": False, "matched_fragment": fragment}
        found = [SimpleCompletion(word, type="keyword") for word in offered if word.startswith(fragment)]
        return {"completions": found, "suppress": True, "matched_fragment": fragment}

    def _offered(self, lines: list[str], at: int, before: str, fragment: str) -> Iterable[str] | None:
        """Return the words that may stand where something is typed; None where that is Python, or a file."""
        header = header_of(lines)
        if header is not None and header.at == at and header.kind == "step":
            words = before[: len(before) - len(fragment)].split("%%step", 1)[-1].split()
            return self._of_step(words, fragment)
        match = FLOW_LINE.match(before)
        return self._of_flow(match[1][: len(match[1]) - len(fragment)].split(), fragment) if match is not None else None

    def _of_step(self, words: list[str], fragment: str) -> Iterable[str] | None:
        if not words:
            return ()  # a name of its own
        last = next((word[2:] for word in reversed(words) if word.startswith("--")), "")
        if fragment.startswith("-") or last not in OPTIONS or not OPTIONS[last].value:
            given = {word[2:] for word in words if word.startswith("--")}
            return [f"--{name}" for name in OPTIONS if name not in given]
        if last in NAMES_STEPS:
            return self._steps()
        if last == "on":
            return PLACES
        return None

    def _of_flow(self, words: list[str], fragment: str) -> Iterable[str] | None:
        import click

        from nbflow.kernel.commands import flow
        from nbflow.runs.command_words import Word

        if not words:
            return flow.commands
        command = flow.commands.get(words[0])
        if words[0] == "help":
            return flow.commands
        if command is None:
            return ()
        options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
        if fragment.startswith("-"):
            return [word for each in options for word in each.opts]
        awaited = next((each for each in options if words[-1] in each.opts and not each.is_flag), None)
        if awaited is not None and awaited.metavar not in ("STEP", "NAME=VALUE", "RUN"):
            return PLACES if awaited.name == "on" else None
        found = list(self._steps())
        if any(each.name == "params" for each in options):
            found += [f"{each.name}=" for each in self._session.flow().parameters]
        if any("RUN" in (each.metavar or "") for each in command.params if isinstance(each, Word)):
            found += ["latest", *self._runs()]
        return found

    def _steps(self) -> list[str]:
        return [step.name for step in self._session.flow().steps if step.kind == "step"]

    def _runs(self) -> list[str]:
        from nbflow.runs import client

        try:
            return [each.run for each in client.list_runs(self._session.known.store().url, None, ())[:RUNS]]
        except NbflowError:  # there is no store yet, or it cannot be read
            return []

    def _bind_owner(self, before: str) -> None:
        """Bind the name whose attributes or keys are asked for, where its value waits in the store."""
        owner = OWNER.search(before)
        if owner is not None:
            self._bind(owner[1])

    def _bind(self, name: str) -> None:
        free = not self._session.in_cell and threading.current_thread() is threading.main_thread()
        if free and name in self._session.known.waiting.names():
            try:
                self._session.known.waiting.bind([name])
            except Exception:  # the user's own types: a cell that reads the name says it
                return

    # ------------------------------------------------------------ inspection

    def _inspecting(self, inspect: Callable[..., Any]) -> Callable[..., Any]:
        def do_inspect(code: str, cursor_pos: int, *args: Any, **options: Any) -> Any:
            try:
                text = self._said(code, cursor_pos)
            except NbflowError:
                text = None
            if text is None:
                return inspect(code, cursor_pos, *args, **options)
            return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}

        return do_inspect

    def _said(self, code: str, at: int) -> str | None:
        """Return what is said of the word at a place, None where IPython knows it."""
        from nbflow.kernel import reference

        lines = code.split("\n")
        number = code.count("\n", 0, at)
        column = at - (code.rfind("\n", 0, at) + 1)
        line = lines[number] if number < len(lines) else ""
        word = _word_at(line, column)
        header = header_of(lines)
        if header is not None and header.at == number:
            name = word.lstrip("-")
            return reference.option_text(name) if name in OPTIONS else reference.header_text(header.kind)
        match = FLOW_LINE.match(line)
        if match is not None:
            verb = next(iter(match[1].split()), "")
            return reference.flow_text(verb)
        name = re.sub(r"\W", "", word.partition(".")[0])
        return self._of_waiting(name)

    def _of_waiting(self, name: str) -> str | None:
        """Return what the manifest of a value that waits says of it."""
        manifest = self._session.known.waiting.manifest(name)
        if manifest is None:
            return None
        shape = preview.shape(manifest.shape)
        parts = [manifest.type, shape, preview.size(manifest.nbytes)]
        said = "  ".join(part for part in parts if part)
        return f"{name}: {said}\n{manifest.preview}\nIn the store; a cell that reads it loads it."


def _word_at(line: str, column: int) -> str:
    return next(
        (found[0] for found in re.finditer(r"[^\s,()\[\]]+", line) if found.start() <= column <= found.end()), ""
    )
