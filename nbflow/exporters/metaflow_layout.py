"""Steps → Metaflow's graph: branches where steps do not depend on each other, splits, joins, switches.

Everything is laid from its end, so that each step knows what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nbflow.analysis.cell import analyse
from nbflow.exporters.definitions import Needs
from nbflow.exporters.exporter import Notes
from nbflow.exporters.metaflow_steps import Names, StepTexts
from nbflow.exporters.structure import Item, Structure
from nbflow.model import Flow, Step


class SpecStep(msgspec.Struct):
    """One step of the FlowSpec: `text` is its body without the last line, `call` what `self.next` gets."""

    name: str
    step: Step | None = None
    doc: str = ""
    text: str = ""
    call: str = ""
    join: bool = False

    def is_called(self, name: str) -> bool:
        """Return whether the notebook calls this step so."""
        return self.step is not None and self.step.name == name and self.step.options.until is None


class WayIn(msgspec.Struct):
    """The way into what follows: what `self.next` gets, lines that must stand before it, and who goes there."""

    name: str
    call: str = ""
    before: tuple[str, ...] = ()
    doc: str = ""
    join: bool = False
    alone: bool = False  # its lines make names global: they need a step of their own
    open: bool = False  # a join that still waits for its branches
    callers: list[str] = msgspec.field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Return whether any step can go there, a join too."""
        return not self.before and self.call == f"self.{self.name}"


class SpecLayout:
    """A flow as nodes, in the order in which they are written."""

    def __init__(self, flow: Flow, needs: Needs, names: Names, texts: StepTexts, notes: Notes) -> None:
        self.flow, self.needs, self.names, self.texts, self.notes = flow, needs, names, texts, notes
        self.structure = Structure(flow, needs, notes)
        self.nodes: list[SpecStep] = []
        self.entry = self.lay(self.structure.whole, WayIn("end", "self.end"))

    def lay(self, items: Sequence[Item], after: WayIn) -> WayIn:
        """Return the way into items, which lead to what follows them."""
        groups = self.structure.arrange(items)
        for at in range(len(groups) - 1, -1, -1):
            if len(groups[at]) > 1:
                after = self.fork(groups[at], after)
                continue
            (item,) = groups[at][0]
            forked = at > 0 and len(groups[at - 1]) > 1
            if forked and not item.body and not self.structure.is_bar(item.steps[0]):
                after = self.lay_step(item.steps[0], after, join=True)  # it joins the branches above itself
                after.open = True
            else:
                after = self.lay_loop(item, after) if item.body else self.lay_step(item.steps[0], after)
        return after

    def fork(self, branches: Sequence[Sequence[Item]], after: WayIn) -> WayIn:
        """Return the way into branches. The step below joins them, or one that is added."""
        if not after.open:
            ends = "_".join(self.names.steps[branch[-1].steps[-1].name] for branch in branches)
            after = self.join(f"join_{ends}", "Puts together what the branches have left.", "", after)
        joining, after.open = self.nodes[0], False
        lasts: list[str] = []
        calls: list[WayIn] = []
        for branch in reversed(branches):
            calls.insert(0, self.plain(self.lay(branch, after)))
            lasts.insert(0, after.callers[-1])
        first, owned = self.structure.owners(branches)
        lines = [
            f"self.merge_artifacts([inputs.{last}], include={kept})"
            for at, (last, names) in enumerate(zip(lasts, owned, strict=True))
            if at != first and (kept := [self.names.of(name) for name in names if name not in self.texts.gone])
        ]  # fmt: skip
        lines.append(f"self.merge_artifacts([inputs.{lasts[first]}])")
        joining.text = "\n".join(part for part in [*lines, joining.text] if part)
        return WayIn(calls[0].name, ", ".join(entry.call for entry in calls))

    def join(self, name: str, doc: str, text: str, after: WayIn) -> WayIn:
        """Return the way into a join that the notebook does not have, which leads to what follows it."""
        after, name = self.plain(after), self.names.free(name)
        self.nodes.insert(0, SpecStep(name, doc=doc, text=text, call=self.go(after, name), join=True))
        return WayIn(name, f"self.{name}", join=True)

    def plain(self, after: WayIn, *, switch: bool = False) -> WayIn:
        """Return a way in that any step can take: a step is added that prepares a fan-out or decides a switch."""
        if after.plain and not (switch and after.join):
            return after
        name = self.names.free(f"before_{after.name}")
        self.nodes.insert(0, SpecStep(name, doc=after.doc, text="\n".join(after.before), call=self.go(after, name)))
        return WayIn(name, f"self.{name}")

    @staticmethod
    def go(after: WayIn, caller: str) -> str:
        """Note who takes a way in, and return what its `self.next` gets."""
        after.callers.append(caller)
        return after.call

    def lay_step(self, step: Step, after: WayIn, text: str | None = None, *, join: bool = False) -> WayIn:
        """Return the way into a step; with --if a switch stands before it, with --until one in it."""
        name = self.names.steps[step.name]
        options = step.options
        switched = bool(options.until or options.condition or self.needs.lost(step))
        if switched or join or options.catch or after.alone:
            after = self.plain(after, switch=switched)
        text = self.texts.whole(step) if text is None else text
        if options.until is not None and not join:
            call, more = self._turns(step, name, after)
            text = f"{text}\n{more}"
        else:
            call = self.go(after, name)
            text = "\n".join(part for part in [text, *after.before] if part)
        self.nodes.insert(0, SpecStep(name, step, "", text, call, join))
        ahead, tests = self.texts.tests(step)
        if not tests or join:
            return WayIn(name, f"self.{name}", join=join)
        mark = self.texts.words.mark(f"run_{name}")
        call = f'{{True: self.{name}, False: {self.go(after, "")}}}, condition="{mark}"'
        lines = (*ahead, f"self.{mark} = {' and '.join(tests)}")
        return WayIn(name, call, lines, f"Decides whether {step.label} runs.", alone=bool(ahead))

    def _turns(self, step: Step, name: str, after: WayIn) -> tuple[str, str]:
        """Return an --until step's switch back to itself, and the lines before that."""
        if step.options.catch:
            self.notes.refused(
                f"--until with --catch at {step.label}: Metaflow's @catch takes no switch", step=step.name,
                fix="catch in the cell: try … except",
            )  # fmt: skip
        word, names = self.texts.words, {*step.writes, *step.reads} if analyse(step.source).awaits else ()
        turns, over = word.mark(f"{name}_turns"), word.mark(f"{name}_done")
        until = self.texts.expression(step.options.until or "", names)
        lines = [
            f'self.{turns} = {word.builtin("getattr")}(self, "{turns}", 0) + 1',
            f"self.{over} = {word.builtin('bool')}({until}) or self.{turns} >= {step.options.max}",
        ]
        return f'{{True: {self.go(after, name)}, False: self.{name}}}, condition="{over}"', "\n".join(lines)

    def lay_loop(self, item: Item, after: WayIn) -> WayIn:
        """Return the way into a fan-out: a foreach, or one step with a loop where items take from each other."""
        head, join = item.steps[0], item.join
        items = self.texts.items_name(head)
        if head.name in self.texts.carried:
            if join is not None:
                after = self.lay_step(join, after, self.texts.whole(join, before=[f"inputs = self.{items}"]))
            whole = self.texts.sequence([step for step in item.steps if step is not join])
            text = self.texts.whole(whole, self.texts.loop(item))
            return self.lay_step(whole, after, text + (f"\nself.{items} = {items}" if join is not None else ""))
        if join is None:
            doc, lines = "The names of the fan-out hold what its last item left.", self.texts.merged(head.name)
            joined = self.join(f"join_{self.names.steps[head.name]}", doc, "\n".join(lines), after)
        else:
            joined = self.lay_step(join, after, self.texts.joined_text(join), join=True)
            if join.options.condition or join.options.until:
                what = f"--if or --until on the join {join.label}"
                self.notes.refused(what, step=join.name, fix="give it to a step below")
        body = self.plain(self.lay(item.body, joined))
        assert head.options.foreach is not None  # noqa: S101  # only foreach steps open a scope
        listed, builtin = self.flow.lists[head.name], self.texts.words.builtin("list")
        if not head.options.foreach.expr.startswith("["):
            what = f"{head.label} without items: Metaflow's foreach fails there"
            self.notes.lost(what, step=head.name, cell=head.cell)
        for name in self.needs.lost(listed):
            text, fix = f"the list of {head.label} reads {name}, which may be missing", f"give {name} a value before"
            self.notes.refused(text, step=head.name, cell=head.cell, name=name, fix=fix)
        ahead = self.texts.ahead_of(listed)
        expression = self.texts.expression(head.options.foreach.expr, () if ahead else listed.reads)
        before = (
            *ahead,
            f"self.{items} = {expression if expression.startswith('[') else f'{builtin}({expression})'}",
        )
        call, doc = f'{body.call}, foreach="{items}"', f"The items of {head.label}."
        return WayIn(self.names.steps[head.name], call, before, doc, alone=bool(ahead))
