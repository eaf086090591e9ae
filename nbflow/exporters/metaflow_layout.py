"""Steps in document order → Metaflow's graph: branches where steps do not depend on each other, splits, joins, switches.

Everything is laid from its end, so that each step knows what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nbflow.exporters.interface import Notes
from nbflow.exporters.metaflow_names import Names
from nbflow.exporters.metaflow_steps import StepTexts
from nbflow.exporters.needs import Needs
from nbflow.exporters.text import indent
from nbflow.looping import Loops
from nbflow.model import Flow, Step
from nbflow.regions import carried_names


@dataclass
class Node:
    """One step of the FlowSpec: `text` is its body without the last line, `call` what `self.next` is given."""

    name: str
    step: Step | None = None
    doc: str = ""
    text: str = ""
    call: str = ""
    join: bool = False


@dataclass
class Entry:
    """The way into what follows: what `self.next` is given, lines that must stand before it, and who goes there."""

    name: str
    call: str = ""
    before: tuple[str, ...] = ()
    doc: str = ""
    join: bool = False
    open: bool = False  # a join that still waits for its branches
    callers: list[str] = field(default_factory=list)

    @property
    def plain(self) -> bool:
        """Whether any step can go there, a join too."""
        return not self.before and self.call == f"self.{self.name}"


@dataclass(frozen=True)
class Item:
    """What is laid as one: a step, or a fan-out with its body and the step that joins it."""

    steps: tuple[Step, ...]
    body: tuple[Item, ...] = ()
    join: Step | None = None

    @property
    def position(self) -> int:
        """Where it stands: a fan-out at its last step, so that what stands among its steps comes before it."""
        return max(step.position for step in self.steps)


class Layout:
    """A flow as nodes, in the order in which they are written."""

    def __init__(self, flow: Flow, needs: Needs, names: Names, texts: StepTexts, notes: Notes) -> None:
        self.flow, self.needs, self.names, self.texts, self.notes = flow, needs, names, texts, notes
        self.loops = Loops(flow)
        self.carried = carried_names(flow.steps)
        self.nodes: list[Node] = []
        steps = [step for step in flow.steps if step.kind != "params"]
        self.entry = self.lay(self.items(steps, 0), Entry("end", "self.end"))

    # ------------------------------------------------------------ what belongs together

    def items(self, steps: Sequence[Step], depth: int) -> tuple[Item, ...]:
        """Steps of one scope in; its items in the order in which they can run, out."""
        found: list[Item] = []
        seen: set[str] = set()
        for step in steps:
            if step.name in seen:
                continue
            body, join = [step], None
            if len(step.scope) > depth:
                head = step.scope[depth]
                body = [other for other in steps if other.scope[depth : depth + 1] == (head,)]
                join = next((s for s in steps if (j := self.loops.joined(s)) and j.name == head and len(s.scope) == depth), None)
                found.append(Item((*body, *([join] if join else [])), self.items(body, depth + 1), join))
            else:
                found.append(Item((step,)))
            seen |= {other.name for other in found[-1].steps}
        found = [item for item in found if not (not item.body and any(item.steps[0] is other.join for other in found))]
        for item in found:
            self._check_order(item, found)
        return tuple(sorted(found, key=lambda item: item.position))

    def _check_order(self, loop: Item, items: Sequence[Item]) -> None:
        """Refuse a name that is rewritten among the steps of a fan-out, which then run after that."""
        for other in items:
            for writer in other.steps if other is not loop and loop.body and other.position < loop.position else ():
                for step in loop.steps:
                    names = {bind.name for bind in step.bindings} & set(writer.writes)
                    if names and step.position < writer.position:
                        self.notes.refused(
                            f"{writer.label} rewrites {min(names)} between {step.label} and the end of the fan-out",
                            step=writer.name, cell=writer.cell, fix="move it above the fan-out or below its join",
                        )  # fmt: skip

    def arrange(self, items: Sequence[Item]) -> list[list[Sequence[Item]]]:
        """Items in; groups that run one after another, each of one or more branches that run side by side, out.

        Below branches stands one step that joins them: in Metaflow a join cannot split again.
        """
        groups: list[list[Sequence[Item]]] = []
        at = 0
        while at < len(items):
            if groups and len(groups[-1]) > 1:
                groups.append([items[at : at + 1]])
                at += 1
                continue
            windows = ((end, self.branches(items[at:end])) for end in range(len(items), at + 1, -1))
            end, found = next(((end, found) for end, found in windows if len(found) > 1), (at + 1, [items[at : at + 1]]))
            groups.append(found)
            at = end
        return groups

    def branches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Items in; the sets of them that have nothing to do with each other out, each in order."""
        parts: list[list[Item]] = []
        for item in items:
            linked = [part for part in parts if any(self.linked(item, other) for other in part)]
            parts = [part for part in parts if part not in linked] + [[*(i for part in linked for i in part), item]]
        order = {id(item): at for at, item in enumerate(items)}
        return sorted((sorted(part, key=lambda i: order[id(i)]) for part in parts), key=lambda part: order[id(part[0])])

    def linked(self, one: Item, other: Item) -> bool:
        """Whether two items have to run one after another: a name, --after, or names that may be missing."""
        mine, theirs = ({step.name for step in item.steps} for item in (one, other))
        edges = any({edge.frm, edge.to} & mine and {edge.frm, edge.to} & theirs for edge in self.flow.edges)
        unsure = all(any(self.needs.unsure(step) for step in item.steps) for item in (one, other))
        return edges or unsure or any(self._is_bar(step) for item in (one, other) for step in item.steps)

    def _is_bar(self, step: Step) -> bool:
        options = step.options
        return bool(options.condition or options.until or options.catch or self.needs.lost(step))

    # ------------------------------------------------------------ laying

    def lay(self, items: Sequence[Item], after: Entry) -> Entry:
        """Items and what follows them in; the way into the first out."""
        groups = self.arrange(items)
        for at in range(len(groups) - 1, -1, -1):
            if len(groups[at]) > 1:
                after = self.fork(groups[at], after)
                continue
            (item,) = groups[at][0]
            forked = at > 0 and len(groups[at - 1]) > 1
            if forked and not item.body and not self._is_bar(item.steps[0]):
                after = self.lay_step(item.steps[0], after, join=True)  # it joins the branches above itself
                after.open = True
            else:
                after = self.lay_loop(item, after) if item.body else self.lay_step(item.steps[0], after)
        return after

    def fork(self, branches: Sequence[Sequence[Item]], after: Entry) -> Entry:
        """Branches in; the way into all of them out. The step below joins them, or one that is added."""
        if not after.open:
            after = self.plain(after)
            name = self.names.free("join_" + "_".join(self.names.steps[branch[-1].steps[-1].name] for branch in branches))
            self.nodes.insert(0, Node(name, doc="Puts together what the branches have left.", call=self.go(after, name), join=True))
            after = Entry(name, f"self.{name}", join=True)
        joining = self.nodes[0]
        ends: list[str] = []
        calls = []
        for branch in reversed(branches):
            calls.insert(0, self.plain(self.lay(branch, after)))
            ends.insert(0, after.callers[-1])
        joining.text = "\n".join(part for part in [*self.merges(branches, ends), joining.text] if part)
        return Entry(calls[0].name, ", ".join(entry.call for entry in calls))

    def merges(self, branches: Sequence[Sequence[Item]], ends: Sequence[str]) -> list[str]:
        """Branches and their last steps in; the lines that take each name from the branch that wrote it last, out.

        What stood above the branches comes from one of them: from the one that may leave names unbound.
        """
        owners: dict[str, tuple[int, int]] = {}
        for at, branch in enumerate(branches):
            for step in (step for item in branch for step in item.steps):
                for name in step.writes:
                    owners[name] = max(owners.get(name, (0, 0)), (step.position, at))
        lines = []
        unsure = [at for at, branch in enumerate(branches) for item in branch if any(map(self.needs.unsure, item.steps))]
        base = unsure[0] if unsure else 0
        for at, end in enumerate(ends):
            names = [self.names.artifacts[name] for name in sorted(owners) if owners[name][1] == at]
            if at != base and names:
                listing = ", ".join(f'"{name}"' for name in names)
                lines.append(f"self.merge_artifacts([inputs.{end}], include=[{listing}])")
        return [*lines, f"self.merge_artifacts([inputs.{ends[base]}])"]

    def plain(self, after: Entry, *, switch: bool = False) -> Entry:
        """A way in; one that any step can take, out: a step is added that prepares a fan-out or decides a switch."""
        if after.plain and not (switch and after.join):
            return after
        name = self.names.free(f"before_{after.name}")
        self.nodes.insert(0, Node(name, doc=after.doc, text="\n".join(after.before), call=self.go(after, name)))
        return Entry(name, f"self.{name}")

    @staticmethod
    def go(after: Entry, caller: str) -> str:
        """A way in and who takes it in; what its `self.next` is given out."""
        after.callers.append(caller)
        return after.call

    def lay_step(self, step: Step, after: Entry, text: str | None = None, *, join: bool = False) -> Entry:
        """One step in; the way into it out; with --if a switch stands before it, with --until one in it."""
        name = self.names.steps[step.name]
        options = step.options
        switched = bool(options.until or options.condition or self.needs.lost(step))
        if switched or join or options.catch:
            after = self.plain(after, switch=switched)
        text = self.texts.whole(step) if text is None else text
        if options.until is not None and not join:
            call, more = self._turns(step, name, after)
            text = f"{text}\n{more}"
        else:
            call = self.go(after, name)
            text = "\n".join(part for part in [text, *after.before] if part)
        self.nodes.insert(0, Node(name, step, self.needs.cells[step.cell].markdown, text, call, join))
        lost = [f'hasattr(self, "{self.names.artifacts[each]}")' for each in self.needs.lost(step)]
        if options.condition is not None:
            lost.append(f"bool({self.texts.expression(options.condition, step.bindings, step.targets)})")
        if not lost or join:
            return Entry(name, f"self.{name}", join=join)
        flag = f"run_{name}"
        return Entry(
            name, f'{{True: self.{name}, False: {self.go(after, "")}}}, condition="{flag}"',
            (f"self.{flag} = {' and '.join(lost)}",), f"Decides whether {step.label} runs.",
        )  # fmt: skip

    def _turns(self, step: Step, name: str, after: Entry) -> tuple[str, str]:
        """An --until step in; its switch back to itself, and the lines before that, out."""
        if step.options.catch:
            self.notes.refused(f"--until with --catch at {step.label}: Metaflow's @catch takes no switch", step=step.name)
        turns, done = f"{name}_turns", f"{name}_done"
        lines = [
            f'self.{turns} = getattr(self, "{turns}", 0) + 1',
            f"self.{done} = bool({step.options.until}) or self.{turns} >= {step.options.max}",
        ]
        return f'{{True: {self.go(after, name)}, False: self.{name}}}, condition="{done}"', "\n".join(lines)

    # ------------------------------------------------------------ fan-outs

    def lay_loop(self, item: Item, after: Entry) -> Entry:
        """A fan-out in; the way into it out: a foreach, or one step with a loop where items take from each other."""
        head, join = item.steps[0], item.join
        if head.name in self.carried:
            steps = [step for step in item.steps if step is not join]
            if join is not None:
                items = f"{self.names.steps[head.name]}_items"
                after = self.lay_step(join, after, f"inputs = self.{items}\n{self.texts.whole(join)}")
            whole = self.texts.sequence(steps)
            text = self.texts.whole(whole, self._loop(item))
            return self.lay_step(whole, after, text + (f"\nself.{items} = {items}" if join is not None else ""))
        after = self.plain(after)
        if join is not None and (join.options.condition or join.options.until):
            self.notes.refused(f"--if or --until on the join {join.label}", step=join.name, fix="give it to a step below")
        last = "inputs = sorted(inputs, key=lambda task: task.index)\nself.merge_artifacts([inputs[-1]])"
        if join is not None:
            joined = self.lay_step(join, after, f"{last}\n{self.texts.whole(join)}", join=True)
        else:
            name = self.names.free(f"join_{self.names.steps[head.name]}")
            doc = "The names of the fan-out hold what its last item left."
            self.nodes.insert(0, Node(name, doc=doc, text=last, call=self.go(after, name), join=True))
            joined = Entry(name, f"self.{name}", join=True)
        return self._foreach(head, self.plain(self.lay(item.body, joined)))

    def _loop(self, item: Item) -> str:
        """A fan-out in; it as a for loop out, fan-outs within it too, each with its join below it."""
        steps = [step for step in item.steps if step is not item.join]
        inner = []
        for part in item.body:
            inner.append(self._loop(part) if part.body else self.texts.within(part.steps[0]))
            if part.join is not None:
                inner.append(self.texts.within(part.join, part.steps[0]))
        return self.texts.loop(item.steps[0], inner, steps, joined=item.join is not None)

    def _foreach(self, head: Step, body: Entry) -> Entry:
        """The head of a fan-out and the way into its body in; the way into the fan-out out."""
        options = head.options.foreach
        assert options is not None  # noqa: S101  # only foreach steps open a scope
        items = f"{self.names.steps[head.name]}_items"
        listed = self.flow.lists[head.name]
        expression = self.texts.expression(options.expr, listed.bindings)
        return Entry(
            self.names.steps[head.name], f'{body.call}, foreach="{items}"',
            (*self.texts.ahead(listed), f"self.{items} = list({expression})"), f"The items of {head.label}.",
        )  # fmt: skip
