"""A drawing's nodes and edges → where they stand: layers from top to bottom, few crossings, short straight edges.

The method is Sugiyama's: layers by longest path, edges cut at every layer that they pass, order by barycentres,
places by isotonic regression ("pool adjacent violators").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from nbflow.model import Frozen

WIDEST = 6
"""Nodes that may stand side by side: a notebook's page is about that wide."""
SWEEPS = 12
PASS = 10.0
"""Pixels kept for an edge that passes a layer."""


class Layout(Frozen, frozen=True):
    """Nodes' centres (x, y), edges' points from source to target, and the size of the whole, in pixels."""

    nodes: dict[str, tuple[float, float]]
    edges: dict[tuple[str, str], tuple[tuple[float, float], ...]]
    width: float
    height: float


def lay_out(
    names: Sequence[str],
    edges: Sequence[tuple[str, str]],
    widths: Mapping[str, float],
    height: float,
    gap: tuple[float, float],
) -> Layout:
    """Nodes in document order, edges between them, the nodes' sizes and the gaps (x, y) in; their places out."""
    place = {name: number for number, name in enumerate(names)}
    down = sorted({(a, b) if place[a] < place[b] else (b, a) for a, b in edges if a != b})
    layers = _layers(names, down)
    rows, chains = _rows(names, down, layers)
    size = {node: widths.get(node, PASS) for row in rows for node in row}
    pairs = [pair for chain in chains.values() for pair in pairwise(chain)]
    above = _neighbours([(b, a) for a, b in pairs])
    below = _neighbours(pairs)
    rows = _uncross(rows, above, below)
    centre = _places(rows, above, below, size, gap[0])
    left = min((centre[node] - size[node] / 2 for node in centre), default=0.0)
    step = height + gap[1]
    at = {node: (centre[node] - left, number * step + height / 2) for number, row in enumerate(rows) for node in row}
    points = {}
    for a, b in edges:
        chain = chains.get((a, b)) or tuple(reversed(chains.get((b, a), ())))
        if chain:
            points[a, b] = tuple(at[node] for node in chain)
    return Layout(
        nodes={name: at[name] for name in names},
        edges=points,
        width=max((at[node][0] + size[node] / 2 for node in at), default=0.0),
        height=max(0.0, len(rows) * step - gap[1]),
    )


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Nodes and downward edges in; each node's layer out: below all its sources, at most WIDEST in one.

    A node without sources stands right above its first target where there is room.
    """
    sources: dict[str, list[str]] = {name: [] for name in names}
    targets: dict[str, list[str]] = {name: [] for name in names}
    for a, b in edges:
        sources[b].append(a)
        targets[a].append(b)
    layer: dict[str, int] = {}
    filled: dict[int, int] = {}
    for name in names:
        at = max((layer[source] + 1 for source in sources[name]), default=0)
        while filled.get(at, 0) >= WIDEST:
            at += 1
        layer[name] = at
        filled[at] = filled.get(at, 0) + 1
    for name in reversed(names):
        if sources[name] or not targets[name]:
            continue
        at = min(layer[target] for target in targets[name]) - 1
        if at > layer[name] and filled.get(at, 0) < WIDEST:
            filled[layer[name]] -= 1
            layer[name] = at
            filled[at] = filled.get(at, 0) + 1
    used = {old: new for new, old in enumerate(sorted(set(layer.values())))}
    return {name: used[at] for name, at in layer.items()}


def _rows(
    names: Sequence[str], edges: Sequence[tuple[str, str]], layers: Mapping[str, int]
) -> tuple[list[list[str]], dict[tuple[str, str], tuple[str, ...]]]:
    """Nodes, edges and layers in; each layer's nodes, passing edges included, and each edge's chain of nodes out."""
    rows: list[list[str]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for name in names:
        rows[layers[name]].append(name)
    chains = {}
    for a, b in edges:
        between = [f"\0{a}\0{b}\0{number}" for number in range(layers[a] + 1, layers[b])]
        for number, node in enumerate(between, start=layers[a] + 1):
            rows[number].append(node)
        chains[a, b] = (a, *between, b)
    return rows, chains


def _neighbours(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Pairs in; for each first one its second ones out."""
    found: dict[str, list[str]] = {}
    for a, b in pairs:
        found.setdefault(a, []).append(b)
    return found


def _uncross(rows: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]) -> list[list[str]]:
    """Layers in; the same in the order with the fewest crossings that sweeping down and up has found, out."""
    best, fewest = rows, _crossings(rows, below)
    current = rows
    for sweep in range(SWEEPS):
        if not fewest:
            break
        downward = sweep % 2 == 0
        order = list(current)
        for number in range(len(order)) if downward else range(len(order) - 1, -1, -1):
            beside = number - 1 if downward else number + 1
            if not 0 <= beside < len(order):
                continue
            spot = {node: place for place, node in enumerate(order[beside])}
            order[number] = _by_barycentre(order[number], above if downward else below, spot)
        current = order
        found = _crossings(current, below)
        if found < fewest:
            best, fewest = current, found
    return best


def _by_barycentre(row: list[str], beside: Mapping[str, list[str]], spot: Mapping[str, int]) -> list[str]:
    """A layer and the places of its neighbours in; the layer in the order of its neighbours' means out."""
    means = {}
    for place, node in enumerate(row):
        spots = [spot[other] for other in beside.get(node, ())]
        means[node] = sum(spots) / len(spots) if spots else float(place)
    return sorted(row, key=means.__getitem__)


def _crossings(rows: list[list[str]], below: Mapping[str, list[str]]) -> int:
    """Layers in; the number of pairs of edges that cross out."""
    total = 0
    for upper, lower in pairwise(rows):
        spot = {node: place for place, node in enumerate(lower)}
        ends = [place for node in upper for place in sorted(spot[other] for other in below.get(node, ()))]
        total += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return total


def _places(
    rows: list[list[str]],
    above: Mapping[str, list[str]],
    below: Mapping[str, list[str]],
    size: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    """Ordered layers in; each node's x, near its neighbours and apart from those beside it, out."""
    centre: dict[str, float] = {}
    for row in rows:
        centre |= zip(row, _apart(row, [0.0] * len(row), size, gap), strict=True)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            # the last sweeps look both ways; the first ones carry the layer above down, then the one below up
            if sweep >= SWEEPS - 4:
                beside = {node: [*above.get(node, ()), *below.get(node, ())] for node in row}
            else:
                beside = {node: (above if sweep % 2 == 0 else below).get(node, []) for node in row}
            wished = [
                sum(centre[other] for other in beside[node]) / len(beside[node]) if beside[node] else centre[node]
                for node in row
            ]
            centre |= zip(row, _apart(row, wished, size, gap), strict=True)
    return centre


def _apart(row: Sequence[str], wished: Sequence[float], size: Mapping[str, float], gap: float) -> list[float]:
    """A layer and where its nodes wish to be in; the nearest places (least squares) that keep order and gaps out."""
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (size[left] + size[right]) / 2 + gap)
    pools: list[list[float]] = []  # [sum of wishes, count]
    for wish, offset in zip(wished, offsets, strict=False):
        pools.append([wish - offset, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    level = [total / count for total, count in pools for _ in range(int(count))]
    return [base + offset for base, offset in zip(level, offsets, strict=False)]
