"""What of a flow's definitions stands at the top of the file, and what each step has to bind before its cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import msgspec

from nbflow.analysis.cell import analyse
from nbflow.exporters.cell_text import TextPiece, split_pieces
from nbflow.exporters.exporter import Notes
from nbflow.flow.scope import gather, sources_of
from nbflow.model import Binding, Definition, Flow, Step, StepOptions

PLAIN = StepOptions()


def with_classes(flow: Flow) -> Flow:
    """Return a flow with each step depending on what methods of classes above it use.

    An instance may come to any step below, and its methods take global names as they are there.
    """
    above: set[str] = set()
    steps = []
    for step in flow.steps:
        need = gather(flow.writers, flow.definitions, dict.fromkeys(above, False), position=step.position)
        bindings = {bind.name for bind in step.bindings}
        more = tuple(need.bindings[name] for name in sorted(need.bindings.keys() - bindings - above))
        orders = need.definitions - set(step.own_definitions)
        steps.append(msgspec.structs.replace(
            step, definitions=tuple(sorted({*step.definitions, *orders})), bindings=(*step.bindings, *more),
        ))  # fmt: skip
        used = [flow.definitions[order] for order in (*step.definitions, *step.own_definitions)]
        above |= {d.names[0] for d in used if d.names and d.source.startswith(("class ", "@"))}
    return msgspec.structs.replace(flow, steps=tuple(steps))


class Needs:
    """A flow's definitions sorted: `tops` are executed when the file is imported, the others within steps."""

    def __init__(self, flow: Flow, notes: Notes) -> None:
        self.flow, self.notes = flow, notes
        self.cells = {cell.id: cell for cell in flow.notebook.cells}
        self.alike = self._first_alike(flow.definitions)
        computing = [step.position for step in flow.steps if step.kind != "params"]
        self.first = min(computing, default=0)
        used = {
            order
            for step in [*flow.steps, *flow.lists.values()]
            for order in (*step.definitions, *step.own_definitions)
        }
        self.tops = tuple(d.order for d in flow.definitions if d.order in used and self._is_top(d, set()))
        self.last: dict[str, int] = {}  # name -> the definition that it stands for once the file is imported
        for order in self.tops:
            self.last.update(dict.fromkeys(flow.definitions[order].names, self.alike[order]))

    @staticmethod
    def _first_alike(definitions: Sequence[Definition]) -> Mapping[int, int]:
        """Return for each definition's order that of the first one with the same text and the same things behind it."""
        first: dict[tuple[object, ...], int] = {}
        alike: dict[int, int] = {}
        for d in definitions:
            key = (d.id, tuple(alike[order] for order in d.requires), d.binds)
            alike[d.order] = first.setdefault(key, d.order)
        return alike

    def _is_top(self, d: Definition, above: set[int]) -> bool:
        """Return whether a definition can run on import: it needs no data, and no step stands above a set-up."""
        if d.binds or d.order in above:
            return False
        if d.kind == "setup" and "sys.path" not in d.source and (d.names or d.position > self.first):
            return False
        return all(self._is_top(self.flow.definitions[order], above | {d.order}) for order in d.requires)

    def inlined(self, step: Step) -> tuple[Definition, ...]:
        """Return the definitions that a step has to execute itself: older than the file's last, or in need of data."""
        # The imported file holds only the last definition of each name. A step that needs an older one executes it
        # itself, then also what an inlined definition requires and the file does not show, and what binds an inlined
        # name again further down. Each addition may ask for others, so this is repeated until nothing is added.
        orders_inside: set[int] = set()
        orders = sorted(step.definitions)
        at_end = {name: order for order in orders for name in self.flow.definitions[order].names}
        while True:
            now = set(orders_inside)
            for order in orders:
                d = self.flow.definitions[order]
                stale = any(self.last.get(name) != self.alike[order] for name in d.names if at_end[name] == order)
                required = any(order in self.flow.definitions[other].requires for other in orders_inside)
                hidden = any(self.last.get(name) != self.alike[order] for name in d.names)
                after = any(
                    set(d.names) & set(self.flow.definitions[other].names) for other in orders_inside if other < order
                )
                if stale or (required and hidden) or after or (d.kind == "setup" and order not in self.tops):
                    now.add(order)
            if now == orders_inside:
                return tuple(self.flow.definitions[order] for order in sorted(orders_inside))
            orders_inside = now

    def lifted(self, step: Step) -> frozenset[int]:
        """Return the lines where definitions of a step's own cell begin that stand at the top of the file instead."""
        mine = [d for d in self.flow.definitions if d.cell == step.cell and d.order in self.tops]
        return frozenset(
            d.line for d in mine
            if not set(d.names) & set(step.writes) and all(self.last[name] == self.alike[d.order] for name in d.names)
        )  # fmt: skip

    def condition_of(self, step: Step) -> Step:
        """Return the expression of a step's --if as a step of its own, as the list of a foreach is one."""
        reads = analyse(step.options.condition or "").reads
        need = gather(self.flow.writers, self.flow.definitions, dict.fromkeys(reads, True), position=step.position)
        return msgspec.structs.replace(
            step, source=step.options.condition or "", bindings=tuple(need.bindings.values()), writes=(), options=PLAIN,
            definitions=tuple(sorted(need.definitions)), own_definitions=(), cell="", conditional=(),
        )  # fmt: skip

    def free(self, step: Step) -> frozenset[str]:
        """Return the names that functions used by a step read or write as globals."""
        orders = {*step.definitions, *(d.order for d in self.flow.definitions if d.cell == step.cell)}
        used = [self.flow.definitions[order] for order in orders]
        return frozenset(name for d in used for name in (*d.free, *d.free_writes) if not name.startswith("<"))

    # ------------------------------------------------------------ values that may be missing

    def can_miss(self, binding: Binding) -> bool:
        """Return whether no step is sure to have given a name its value."""
        for source in binding.sources:
            if source.definition is not None or binding.name in self.steps[source.step or ""].targets:
                return False
            if source.sure and not self._may_not_give(source.step or "", binding.name):
                return False
        return True

    def _may_not_give(self, step: str, name: str) -> bool:
        """Return whether a step may be skipped, or fail before it has written a name."""
        options = self.steps[step].options
        failing = options.catch is not None and options.catch != name
        return failing or self.may_be_skipped(self.steps[step])

    def lost(self, step: Step) -> tuple[str, ...]:
        """Return the names without which a step is skipped: their maker may have been skipped or caught.

        Where it may only have run without binding them, their reader fails, here and elsewhere. A join is skipped with
        the list of its fan-out.
        """
        bindings = (bind for bind in step.bindings if bind.sure and bind.sources and self.can_miss(bind))
        names = [bind.name for bind in bindings if self._is_excused(bind, step)]
        for head in {self.steps[name].scope[-1] for name in step.options.join if self.steps[name].scope}:
            names += self.lost(self.flow.lists[head])
        return tuple(dict.fromkeys(names))

    def _is_excused(self, binding: Binding, reader: Step) -> bool:
        makers = {source.step for source in binding.sources if source.step} - {reader.name}
        return any(self._may_not_give(maker, binding.name) for maker in sorted(makers))

    def may_be_skipped(self, step: Step) -> bool:
        """Return whether a step may be skipped: by its own --if, or for a name that is missing."""
        return step.options.condition is not None or bool(self.lost(step))

    def unsure_in(self, head: str) -> frozenset[str]:
        """Return the names that an item of a fan-out may leave unwritten."""
        body = [step for step in self.flow.steps if head in step.scope]
        sure = {name for step in body if not self.may_be_skipped(step) for name in {*step.writes} - self.unsure(step)}
        return frozenset(name for step in body for name in step.writes) - sure.union(*(step.targets for step in body))

    def left_open(self, head: str) -> frozenset[str]:
        """Return the names that the items of a fan-out may leave as they were before.

        Where a step above the fan-out writes one of them, what the last item has is no sign of who wrote it: refused.
        """
        body, names = [step for step in self.flow.steps if head in step.scope], self.unsure_in(head)
        above = {name for step in self.flow.steps if step.position < body[0].position for name in step.writes}
        for name in sorted(names & above):
            writer = next(step for step in body if name in step.writes)
            text = f"{name} of {writer.label} below the fan-out: an item that leaves it alone hides the one before it"
            readers = {edge.to for edge in self.flow.edges if edge.frm == writer.name and name in edge.names}
            if readers - {step.name for step in body}:
                fix = f"give {name} a value in each item, or another name than above the fan-out"
                self.notes.refused(text, step=writer.name, cell=writer.cell, name=name, fix=fix)
            else:
                self.notes.lost(text, step=writer.name, cell=writer.cell, name=name)
        return names - above

    def unsure(self, step: Step) -> frozenset[str]:
        """Return the names that a step may leave unbound."""
        inputs = {bind.name for bind in step.bindings if bind.sources and (bind.sure or not self.can_miss(bind))}
        names = step.writes if step.options.catch else step.conditional
        return frozenset(names) - inputs - set(step.targets)

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """Return the steps by name."""
        return {step.name: step for step in self.flow.steps}

    def check_behind(self, bind: Binding) -> None:
        """Refuse a name that may hold a definition's value while an artifact that is older than that is still there."""
        definitions = [self.flow.definitions[s.definition] for s in bind.sources if s.definition is not None]
        unsure = [source.step for source in bind.sources if source.step]
        if not definitions or not unsure:
            return
        older = [s for s in self.flow.steps if bind.name in s.writes and s.position < definitions[0].position]
        if older:
            self.notes.refused(
                f"{bind.name} of {older[-1].label} is defined again in cell {definitions[0].position}, and"
                f" {unsure[0]} may leave it so: a run elsewhere would take the older value",
                step=unsure[0], name=bind.name, fix=f"give it another name from cell {definitions[0].position} on",
            )  # fmt: skip

    def check_versions(self, step: Step) -> None:
        """Refuse what needs a value that is not held any more: a default taken from a name that is rewritten since."""
        for d in self.inlined(step):
            for bind in d.binds:
                if sources_of(self.flow.writers.get(bind.name, ()), step.position)[0] != bind.sources:
                    self.notes.refused(
                        f"{', '.join(d.names) or 'set-up'} was made from {bind.name}, which is rewritten before"
                        f" {step.label} uses it: a run elsewhere holds one value a name",
                        step=step.name, cell=d.cell, line=d.line, name=bind.name,
                        fix=f"keep the old value under a name of its own, and use that in cell {d.position}",
                    )  # fmt: skip


def pieces_of(source: str, skipped: Iterable[int]) -> list[TextPiece]:
    """Return a cell's pieces without the statements that begin at the lines in `skipped`."""
    lines = set(skipped)
    return [
        piece for piece in split_pieces(source)
        if not piece.statements or not all(statement.line in lines for statement in piece.statements)
    ]  # fmt: skip
