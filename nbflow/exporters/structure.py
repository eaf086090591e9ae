"""Steps in document order → what runs one after another and what side by side: branches, fan-outs with their joins."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nbflow.exporters.definitions import Needs
from nbflow.exporters.exporter import Notes
from nbflow.flow.loops import Loops
from nbflow.model import Flow, Step


class Item(msgspec.Struct, frozen=True):
    """What is laid out as one: a step, or a fan-out with its body and the step that joins it."""

    steps: tuple[Step, ...]
    body: tuple[Item, ...] = ()
    join: Step | None = None

    @property
    def position(self) -> int:
        """Return where it stands: a fan-out at its last step, so that what stands among its steps comes before it."""
        return max(step.position for step in self.steps)


class Structure:
    """A flow's items, and how they may be arranged."""

    def __init__(self, flow: Flow, needs: Needs, notes: Notes) -> None:
        self.flow, self.needs, self.notes = flow, needs, notes
        self.loops = Loops(flow)
        self.whole = self.items([step for step in flow.steps if step.kind != "params"], 0)

    def items(self, steps: Sequence[Step], depth: int) -> tuple[Item, ...]:
        """Return the items of steps of one scope in the order in which they can run."""
        items: list[Item] = []
        names: set[str] = set()
        for step in steps:
            if step.name in names:
                continue
            body, join = [step], None
            if len(step.scope) > depth:
                head = step.scope[depth]
                body = [other for other in steps if other.scope[depth : depth + 1] == (head,)]
                join = next(
                    (s for s in steps if (j := self.loops.joined(s)) and j.name == head and len(s.scope) == depth), None
                )
                items.append(Item((*body, *([join] if join else [])), self.items(body, depth + 1), join))
            else:
                items.append(Item((step,)))
            names |= {other.name for other in items[-1].steps}
        items = [item for item in items if not (not item.body and any(item.steps[0] is other.join for other in items))]
        for item in items:
            self._check_order(item, items)
        return tuple(sorted(items, key=lambda item: item.position))

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
        """Return groups that run one after another, each of one or more branches that run side by side.

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
            end, branches = next(
                ((end, branches) for end, branches in windows if len(branches) > 1), (at + 1, [items[at : at + 1]])
            )
            groups.append(branches)
            at = end
        return groups

    def branches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Return the sets of items that have nothing to do with each other, each in order."""
        parts: list[list[Item]] = []
        for item in items:
            linked = [part for part in parts if any(self.linked(item, other) for other in part)]
            parts = [part for part in parts if part not in linked] + [[*(i for part in linked for i in part), item]]
        order = {id(item): at for at, item in enumerate(items)}
        return sorted((sorted(part, key=lambda i: order[id(i)]) for part in parts), key=lambda part: order[id(part[0])])

    def linked(self, one: Item, other: Item) -> bool:
        """Return whether two items have to run one after another: a name, --after, or names that may be missing."""
        mine, theirs = ({step.name for step in item.steps} for item in (one, other))
        pairs = [(edge.frm, edge.to) for edge in self.flow.edges]
        pairs += [(above, step.name) for step in self.flow.steps for above in step.ordered]  # by the files they touch
        edges = any({*pair} & mine and {*pair} & theirs for pair in pairs)
        unsure = [{name for step in item.steps for name in self.needs.unsure(step)} for item in (one, other)]
        written = [{name for step in item.steps for name in step.writes} for item in (one, other)]
        either = all(unsure) or bool((unsure[0] & written[1]) | (unsure[1] & written[0]))
        return edges or either or any(self.is_bar(step) for item in (one, other) for step in item.steps)

    def is_bar(self, step: Step) -> bool:
        """Return whether a step cannot stand in a branch: it may be skipped, or run again."""
        options = step.options
        return bool(options.condition or options.until or options.catch or self.needs.lost(step))

    def owners(self, branches: Sequence[Sequence[Item]]) -> tuple[int, list[list[str]]]:
        """Return the branch that stands for what is above all of them, and for each the names that it writes last.

        The first is the one that may leave names unbound: of the others, every name is sure to be there.
        """
        owners: dict[str, tuple[int, int]] = {}
        for at, branch in enumerate(branches):
            for step in (step for item in branch for step in item.steps):
                owners.update((name, max(owners.get(name, (0, 0)), (step.position, at))) for name in step.writes)
        unsure = (
            at for at, branch in enumerate(branches) if any(self.needs.unsure(s) for i in branch for s in i.steps)
        )
        names_by_branch = [[name for name in sorted(owners) if owners[name][1] == at] for at in range(len(branches))]
        return next(unsure, 0), names_by_branch
