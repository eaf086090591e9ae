"""Where a graph's nodes and edges stand: layers from top to bottom, few crossings, straight lines.

Layers are found by longest path and ordered by barycentres (Sugiyama). Edges that pass layers run together: those of
one source, or those to one target, share a trunk, so that a table that twenty steps read is one line with twenty
branches. Nodes stand in lines from top to bottom, found as Brandes and Köpf do; then each line moves towards what it is
joined to.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from nbflow.model import Frozen

WIDEST = 6
"""Nodes that may stand side by side: a notebook's page is about that wide."""
PASS = 10.0
"""Pixels kept for a trunk that passes a layer."""
SPREAD = 26.0
"""Pixels by which the gap between two layers may grow: edges that go far to the side need height to be followed."""
FEW = 300
"""Nodes and passing trunks up to which every sweep is made; beyond, time counts for more than the last crossing."""
SWEEPS = 12
SWEEPS_OF_MANY = 4
PASSES = 2
"""Places in layers that trunks may take for each node; an edge without one goes straight, behind the nodes."""
CUTS = (0, 16, 6, 3, 2, 1)
"""Layers after which all lines may bend, tried in turn (0: nowhere): long lines look well and make wide drawings."""
WIDER = 1.6
"""How much wider than its widest layer a drawing may be for the sake of long lines."""
SAME = 0.5
"""Pixels that nobody sees: lines that bend by less are straight."""

Point = tuple[float, float]
_Edge = tuple[int, int]
_Row = list[int]
_Joined = list[list[int]]
_Key = tuple[str, int]  # "from" a node or "to" one
_Trunk = dict[int, int]  # the layers that it passes, with the number that it has there


class Layout(Frozen, frozen=True):
    """Nodes' centres, edges' points from the source's border to the target's, and the size of the whole, in pixels."""

    nodes: dict[str, Point]
    edges: dict[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def lay_out(
    names: Sequence[str], edges: Iterable[tuple[str, str]], widths: Mapping[str, float], height: float, gap: Point
) -> Layout:
    """Return the places of nodes, which come in document order and are all `height` high, and of edges between them.

    An edge to the node itself or to one that is not there has no place. One that leads up the document is laid out as
    one that leads down; its points begin at its source all the same.
    """
    number = {name: at for at, name in enumerate(names)}
    ends_of = {(a, b): (number[a], number[b]) for a, b in edges if a in number and b in number and a != b}
    down = sorted({(min(ends), max(ends)) for ends in ends_of.values()})
    layers = _layers(len(names), down)
    trunks, through = _trunks(layers, down)
    rows = _rows(layers, trunks)
    size = [*(widths[name] for name in names), *([PASS] * sum(map(len, trunks.values())))]
    pairs = _pairs(layers, down, trunks, through)
    above, below = _beside(pairs, len(size))
    sweeps = SWEEPS if len(size) <= FEW else SWEEPS_OF_MANY
    rows = _uncross(rows, above, below, sweeps)
    x = _Across(rows, above, below, len(names), size, gap[0]).places(sweeps) if names else []
    y = _downward(rows, below, x, height, gap[1])
    runs = {key: _runs(trunk, x) for key, trunk in trunks.items()}
    points = {}
    for pair, ends in ends_of.items():
        a, b = min(ends), max(ends)
        way = [(x[a], y[layers[a]] + height / 2)]
        at = layers[a] + 1
        while (a, b) in through and at < layers[b]:
            place, last = runs[through[a, b]][at]
            last = min(last, layers[b] - 1)
            way += [(place, y[at] - height / 2), (place, y[last] + height / 2)]
            at = last + 1
        way.append((x[b], y[layers[b]] - height / 2))
        points[pair] = tuple(way if ends == (a, b) else reversed(way))
    return Layout(
        nodes={name: (x[at], y[layers[at]]) for name, at in number.items()},
        edges=points,
        width=max((centre + wide / 2 for centre, wide in zip(x, size, strict=True)), default=0.0),
        height=y[-1] + height / 2 if y else 0.0,
    )


# ---------------------------------------------------------------- layers


def _layers(count: int, edges: Sequence[_Edge]) -> list[int]:
    """Return each node's layer: below all its sources, at most WIDEST nodes in one.

    A node without sources stands right above its first target where there is room.
    """
    sources: _Joined = [[] for _ in range(count)]
    targets: _Joined = [[] for _ in range(count)]
    for a, b in edges:
        sources[b].append(a)
        targets[a].append(b)
    layers: list[int] = []
    filled: Counter[int] = Counter()
    free: dict[int, int] = {}  # a full layer → one further down that was not full when this was written
    for node in range(count):
        at = wished = max((layers[source] + 1 for source in sources[node]), default=0)
        while at in free:
            at = free[at]
        while wished in free and free[wished] != at:  # whoever looks next finds it at once
            free[wished], wished = at, free[wished]
        layers.append(at)
        filled[at] += 1
        if filled[at] == WIDEST:
            free[at] = at + 1
    for node in reversed(range(count)):
        if sources[node] or not targets[node]:
            continue
        at = min(layers[target] for target in targets[node]) - 1
        if at > layers[node] and filled[at] < WIDEST:
            filled[layers[node]] -= 1
            layers[node] = at
            filled[at] += 1
    used = {old: new for new, old in enumerate(sorted(set(layers)))}
    return [used[at] for at in layers]


def _trunks(layers: Sequence[int], edges: Sequence[_Edge]) -> tuple[dict[_Key, _Trunk], dict[_Edge, _Key]]:
    """Return the trunks, which are numbered after the nodes, and which edge takes which.

    Short edges come first: what they need is needed by the long ones too. A trunk grows away from its node.
    """
    passing = sorted((layers[b] - layers[a], a, b) for a, b in edges if layers[b] - layers[a] > 1)
    leaving, arriving = Counter(a for _, a, _ in passing), Counter(b for _, _, b in passing)
    trunks: dict[_Key, _Trunk] = {}
    through: dict[_Edge, _Key] = {}
    total, most = len(layers), len(layers) * (1 + PASSES)
    for span, a, b in passing:
        from_source = leaving[a] >= arriving[b]
        key = ("from", a) if from_source else ("to", b)
        trunk = trunks.get(key, {})
        if total + span - 1 - len(trunk) > most:
            continue
        first, last = layers[a] + 1, layers[b] - 1
        for at in range(first + len(trunk), last + 1) if from_source else range(first, last + 1 - len(trunk)):
            trunk[at] = total
            total += 1
        trunks[key] = trunk
        through[a, b] = key
    return trunks, through


def _rows(layers: Sequence[int], trunks: Mapping[_Key, _Trunk]) -> list[_Row]:
    """Return what is in each layer: the nodes in document order, trunks in the middle."""
    rows: list[_Row] = [[] for _ in range(max(layers, default=-1) + 1)]
    for node, at in enumerate(layers):
        rows[at].append(node)
    passing: dict[int, _Row] = {}
    for trunk in trunks.values():
        for at, node in trunk.items():
            passing.setdefault(at, []).append(node)
    for at, trunks_here in passing.items():
        middle = (len(rows[at]) + 1) // 2
        rows[at][middle:middle] = sorted(trunks_here)
    return rows


def _pairs(
    layers: Sequence[int],
    edges: Iterable[_Edge],
    trunks: Mapping[_Key, _Trunk],
    through: Mapping[_Edge, _Key],
) -> list[_Edge]:
    """Return what is joined across a gap between layers, the upper end first."""
    pairs = {(node, trunk[at + 1]) for trunk in trunks.values() for at, node in trunk.items() if at + 1 in trunk}
    for a, b in edges:
        if (a, b) in through:
            trunk = trunks[through[a, b]]
            pairs |= {(a, trunk[layers[a] + 1]), (trunk[layers[b] - 1], b)}
        elif layers[b] - layers[a] == 1:
            pairs.add((a, b))
    return sorted(pairs)


def _beside(pairs: Iterable[_Edge], count: int) -> tuple[_Joined, _Joined]:
    """Return what is joined to each node in the layer above and in the one below."""
    above: _Joined = [[] for _ in range(count)]
    below: _Joined = [[] for _ in range(count)]
    for a, b in pairs:
        above[b].append(a)
        below[a].append(b)
    return above, below


# ---------------------------------------------------------------- order


def _uncross(rows: list[_Row], above: _Joined, below: _Joined, sweeps: int) -> list[_Row]:
    """Return the layers in the order with the fewest crossings that sweeping down and up has found."""
    best, fewest = rows, _crossings(rows, below)
    current = rows
    for sweep in range(sweeps):
        if not fewest:
            break
        downward = sweep % 2 == 0
        order = list(current)
        for number in range(1, len(order)) if downward else range(len(order) - 2, -1, -1):
            spot = {node: place for place, node in enumerate(order[number - 1 if downward else number + 1])}
            order[number] = _by_barycentre(order[number], above if downward else below, spot)
        current = order
        crossings = _crossings(current, below)
        if crossings < fewest:
            best, fewest = current, crossings
    return best


def _by_barycentre(row: _Row, neighbours: _Joined, spot: Mapping[int, int]) -> _Row:
    """Return a layer in the order of its neighbours' means."""
    means = {}
    for place, node in enumerate(row):
        spots = [spot[other] for other in neighbours[node]]
        means[node] = sum(spots) / len(spots) if spots else float(place)
    return sorted(row, key=means.__getitem__)


def _crossings(rows: Sequence[_Row], below: _Joined) -> int:
    """Count the pairs of edges that cross: the inversions of their lower ends, read from left to right."""
    total = 0
    for upper, lower in pairwise(rows):
        spot = {node: place for place, node in enumerate(lower)}
        places: list[int] = []
        for node in upper:
            for place in sorted([spot[other] for other in below[node]]):
                total += len(places) - bisect_right(places, place)
                insort(places, place)
    return total


# ---------------------------------------------------------------- places


class _Across:
    """Ordered layers → each node's x: apart from those beside it, in line with or near what it is joined to."""

    def __init__(
        self, rows: list[_Row], above: _Joined, below: _Joined, nodes: int, size: Sequence[float], gap: float
    ) -> None:
        self.rows, self.above, self.below, self.nodes, self.size, self.gap = rows, above, below, nodes, size, gap
        self.layer = [0] * len(size)
        for at, row in enumerate(rows):
            for node in row:
                self.layer[node] = at
        self.upper, self.lower = self._in_line()

    def places(self, rounds: int) -> list[float]:
        """Return each node's x, the leftmost border at 0."""
        most = WIDER * max(sum(self.size[node] + self.gap for node in row) for row in self.rows)
        for cut in CUTS:
            first = self._pack(self.rows, self._lines(self.rows, self.upper, cut))
            left, right = self._borders(first)
            if right - left <= most:
                break
        x = self._mean(cut)
        self._draw_near(x, rounds)
        left, _ = self._borders(x)
        return [place - left for place in x]

    def _borders(self, x: Sequence[float]) -> Point:
        return (
            min([place - wide / 2 for place, wide in zip(x, self.size, strict=True)]),
            max([place + wide / 2 for place, wide in zip(x, self.size, strict=True)]),
        )

    def _mean(self, cut: int) -> list[float]:
        """Return the mean of four drawings: lines found from above and from below, packed to the left and to the right.

        Of the four places the outer ones are left out; what is apart in all of them is apart in the mean.
        """
        drawings = []
        for downward in (True, False):
            for mirrored in (False, True):
                rows = [row[::-1] if mirrored else row for row in (self.rows if downward else self.rows[::-1])]
                x = self._pack(rows, self._lines(rows, self.upper if downward else self.lower, cut))
                drawings.append([-place for place in x] if mirrored else x)
        borders = [self._borders(x) for x in drawings]
        left, right = min(borders, key=lambda border: border[1] - border[0])
        a, b, c, d = (right - border[1] if at % 2 else left - border[0] for at, border in enumerate(borders))
        means = []
        for places in zip(*drawings, strict=True):
            _, second, third, _ = sorted((places[0] + a, places[1] + b, places[2] + c, places[3] + d))
            means.append((second + third) / 2)
        return means

    def _in_line(self) -> tuple[_Joined, _Joined]:
        """Return the nodes above and below with which each may stand in line.

        A trunk goes straight on, whatever branches off; what crosses one bends.
        """
        trunk = [node >= self.nodes for node in range(len(self.size))]
        onward = [trunk[node] and any(trunk[other] for other in self.below[node]) for node in range(len(trunk))]
        comes = [trunk[node] and any(trunk[other] for other in self.above[node]) for node in range(len(trunk))]
        upper: _Joined = [[] for _ in trunk]
        lower: _Joined = [[] for _ in trunk]
        for row, next_row in pairwise(self.rows):
            spot = {node: place for place, node in enumerate(row)}
            straight = [
                (place, spot[other])
                for place, node in enumerate(next_row) if comes[node]
                for other in self.above[node] if trunk[other]
            ]  # fmt: skip
            at = 0
            for place, node in enumerate(next_row):
                while at < len(straight) and straight[at][0] < place:
                    at += 1
                least = straight[at - 1][1] if at else -1
                most = straight[at][1] if at < len(straight) else len(row)
                for other in self.above[node]:
                    both = trunk[node] and trunk[other]
                    if both or (not (onward[other] or comes[node]) and least <= spot[other] <= most):
                        upper[node].append(other)
                        lower[other].append(node)
        return upper, lower

    def _lines(self, rows: Sequence[_Row], neighbours: _Joined, cut: int) -> list[int]:
        """Return for each node the first one of its line: lines go through middle neighbours and do not cross."""
        first = list(range(len(neighbours)))
        for row, next_row in pairwise(rows):
            if cut and max(self.layer[row[0]], self.layer[next_row[0]]) % cut == 0:
                continue
            spot = {node: place for place, node in enumerate(row)}
            free = 0
            for node in next_row:
                places = sorted([spot[other] for other in neighbours[node]])
                for place in places[(len(places) - 1) // 2 : len(places) // 2 + 1]:
                    if place >= free:
                        first[node], free = first[row[place]], place + 1
                        break
        return first

    def _pack(self, rows: Sequence[_Row], first: Sequence[int]) -> list[float]:
        """Return each node's x where lines stand as far left as they can, then as near to the next ones as they can."""
        after: list[list[tuple[int, float]]] = [[] for _ in first]
        waiting = [0] * len(first)
        for row in rows:
            for left, right in pairwise(row):
                after[first[left]].append((first[right], (self.size[left] + self.size[right]) / 2 + self.gap))
                waiting[first[right]] += 1
        order = [line for line, head in enumerate(first) if head == line and not waiting[line]]
        x = [0.0] * len(first)
        for line in order:  # grows: each line comes after all that are to its left
            for other, apart in after[line]:
                x[other] = max(x[other], x[line] + apart)
                waiting[other] -= 1
                if not waiting[other]:
                    order.append(other)
        for line in reversed(order):
            if after[line]:
                x[line] = max(x[line], min([x[other] - apart for other, apart in after[line]]))
        return [x[line] for line in first]

    def _draw_near(self, x: list[float], rounds: int) -> None:
        """Move each line as a whole towards the middle of what it is joined to, as far as those beside it let it."""
        line = list(range(len(x)))
        lines: dict[int, list[int]] = {}
        left: list[tuple[int, float] | None] = [None] * len(x)
        right = list(left)
        for row in self.rows:
            for one, other in pairwise(row):
                apart = (self.size[one] + self.size[other]) / 2 + self.gap
                right[one], left[other] = (other, apart), (one, apart)
            for node in row:
                line[node] = next((line[other] for other in self.upper[node] if abs(x[other] - x[node]) < SAME), node)
                lines.setdefault(line[node], []).append(node)
        movable = []
        for head, nodes in lines.items():
            neighbours = [
                other for node in nodes for other in self.above[node] + self.below[node] if line[other] != head
            ]
            lefts = [side for node in nodes if (side := left[node])]
            rights = [side for node in nodes if (side := right[node])]
            movable.append((nodes, neighbours, lefts, rights))
        for number in range(rounds):
            for nodes, neighbours, lefts, rights in movable if number % 2 == 0 else reversed(movable):
                here = x[nodes[0]]
                least = max([x[other] + apart for other, apart in lefts], default=-math.inf)
                if neighbours:
                    wished = sorted([x[other] for other in neighbours])
                    place = min(max(here, wished[(len(wished) - 1) // 2]), wished[len(wished) // 2])
                else:
                    place = least if lefts else here
                place = max(least, min(place, *[x[other] - apart for other, apart in rights], math.inf))
                if place != here:
                    for node in nodes:
                        x[node] = place


def _downward(rows: Sequence[_Row], below: _Joined, x: Sequence[float], height: float, gap: float) -> list[float]:
    """Return each layer's y: the further edges go to the side below it, the further down is the next one."""
    y = [height / 2] if rows else []
    for row in rows[:-1]:
        aside = max([abs(x[node] - x[other]) for node in row for other in below[node]], default=0.0)
        y.append(y[-1] + height + gap + min(SPREAD, aside / 24))
    return y


def _runs(trunk: _Trunk, x: Sequence[float]) -> dict[int, tuple[float, int]]:
    """Return for each layer of a trunk its x there and the last layer to which it goes straight on."""
    runs: dict[int, tuple[float, int]] = {}
    for at in sorted(trunk, reverse=True):
        here = x[trunk[at]]
        place, last = runs.get(at + 1, (here, at))
        runs[at] = (place, last) if abs(place - here) < SAME else (here, at)
    return runs
