/** Steps and edges in, their places out: pure. dagre up to a few hundred steps, layers by hand beyond what it can do. */

import { Graph, layout as dagreLayout } from '@dagrejs/dagre';

export interface Point {
  x: number;
  y: number;
}

/** A step's box: `x` and `y` are its centre; `rank` counts layers from the top. */
export interface Place extends Point {
  name: string;
  width: number;
  height: number;
  rank: number;
}

export interface Line {
  frm: string;
  to: string;
  points: Point[];
}

export interface Layout {
  nodes: Map<string, Place>;
  lines: Line[];
  width: number;
  height: number;
}

/** What is laid out: a name and the length of its longest line of text. */
export interface Box {
  name: string;
  columns: number;
}

export const NODE_HEIGHT = 40;
const NARROWEST = 96;
const WIDEST = 220;
const GAP_X = 20;
const GAP_Y = 34;

/** dagre takes 0.3 s for this many steps and grows with the square: 20 s for 2,000. */
export const MOST_FOR_DAGRE = 150;

/** Boxes in document order and edges between them in; places in pixels out. Edges to unknown names are left out. */
export function layout(boxes: readonly Box[], edges: readonly { frm: string; to: string }[]): Layout {
  const known = new Set(boxes.map(box => box.name));
  const seen = new Set<string>();
  const drawn = edges.filter(({ frm, to }) => {
    const key = `${frm}\n${to}`;
    const fresh = known.has(frm) && known.has(to) && frm !== to && !seen.has(key);
    seen.add(key);
    return fresh;
  });
  return boxes.length <= MOST_FOR_DAGRE ? byDagre(boxes, drawn) : byLayers(boxes, drawn);
}

/** A box in; its width in pixels out. */
export function widthOf(box: Box): number {
  return Math.min(WIDEST, Math.max(NARROWEST, Math.ceil(box.columns * 7.2) + 38));
}

function byDagre(boxes: readonly Box[], edges: readonly { frm: string; to: string }[]): Layout {
  const graph = new Graph();
  graph.setGraph({ rankdir: 'TB', nodesep: GAP_X, ranksep: GAP_Y, edgesep: 10, marginx: 8, marginy: 8 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const box of boxes) {
    graph.setNode(box.name, { width: widthOf(box), height: NODE_HEIGHT });
  }
  for (const { frm, to } of edges) {
    graph.setEdge(frm, to);
  }
  dagreLayout(graph);
  const places = boxes.map(box => {
    const node = graph.node(box.name) as { x: number; y: number };
    return { name: box.name, x: node.x, y: node.y, width: widthOf(box), height: NODE_HEIGHT, rank: 0 };
  });
  const levels = [...new Set(places.map(place => Math.round(place.y)))].sort((a, b) => a - b);
  const rank = new Map(levels.map((level, at) => [level, at]));
  for (const place of places) {
    place.rank = rank.get(Math.round(place.y)) ?? 0;
  }
  const lines = edges.map(({ frm, to }) => {
    const edge = graph.edge(frm, to) as { points: Point[] };
    return { frm, to, points: edge.points.map(({ x, y }) => ({ x, y })) };
  });
  const size = graph.graph() as { width?: number; height?: number };
  return {
    nodes: new Map(places.map(place => [place.name, place])),
    lines,
    width: size.width ?? 0,
    height: size.height ?? 0,
  };
}

/** Layers by longest path, ordered by barycentres in two sweeps, wide layers wrapped: linear in steps and edges. */
function byLayers(boxes: readonly Box[], edges: readonly { frm: string; to: string }[]): Layout {
  const above = new Map<string, string[]>(boxes.map(box => [box.name, []]));
  const below = new Map<string, string[]>(boxes.map(box => [box.name, []]));
  const order = new Map(boxes.map((box, at) => [box.name, at]));
  for (const { frm, to } of edges) {
    // edges lead down the document; one that leads up must not make a circle
    if ((order.get(frm) ?? 0) < (order.get(to) ?? 0)) {
      above.get(to)?.push(frm);
      below.get(frm)?.push(to);
    }
  }
  const layer = new Map<string, number>();
  for (const { name } of boxes) {
    const sources = above.get(name) ?? [];
    layer.set(name, sources.reduce((deepest, source) => Math.max(deepest, (layer.get(source) ?? 0) + 1), 0));
  }
  const rows: Box[][] = [];
  for (const box of boxes) {
    (rows[layer.get(box.name) ?? 0] ??= []).push(box);
  }
  const spot = new Map<string, number>();
  const note = (row: Box[]): void => row.forEach((box, at) => spot.set(box.name, at / Math.max(1, row.length - 1)));
  rows.forEach(note);
  for (const [sweep, beside] of [[rows, above] as const, [[...rows].reverse(), below] as const]) {
    for (const row of sweep) {
      const mean = new Map(row.map(box => [box.name, meanOf(beside.get(box.name) ?? [], spot, box.name)]));
      row.sort((a, b) => (mean.get(a.name) ?? 0) - (mean.get(b.name) ?? 0));
      note(row);
    }
  }
  return placed(rows, edges);
}

function meanOf(names: readonly string[], spot: ReadonlyMap<string, number>, self: string): number {
  if (!names.length) {
    return spot.get(self) ?? 0;
  }
  return names.reduce((sum, name) => sum + (spot.get(name) ?? 0), 0) / names.length;
}

const WIDEST_ROW = 2400;

function placed(rows: readonly Box[][], edges: readonly { frm: string; to: string }[]): Layout {
  const wrapped: Box[][] = [];
  for (const row of rows) {
    let current: Box[] = [];
    let used = 0;
    for (const box of row) {
      if (used + widthOf(box) > WIDEST_ROW) {
        wrapped.push(current);
        [current, used] = [[], 0];
      }
      current.push(box);
      used += widthOf(box) + GAP_X;
    }
    wrapped.push(current);
  }
  const widths = wrapped.map(row => row.reduce((sum, box) => sum + widthOf(box) + GAP_X, -GAP_X));
  const width = Math.max(0, ...widths) + 16;
  const nodes = new Map<string, Place>();
  wrapped.forEach((row, rank) => {
    let x = (width - (widths[rank] ?? 0)) / 2;
    const y = 8 + NODE_HEIGHT / 2 + rank * (NODE_HEIGHT + GAP_Y);
    for (const box of row) {
      const own = widthOf(box);
      nodes.set(box.name, { name: box.name, x: x + own / 2, y, width: own, height: NODE_HEIGHT, rank });
      x += own + GAP_X;
    }
  });
  const lines = edges.map(({ frm, to }) => {
    const [start, end] = [nodes.get(frm) as Place, nodes.get(to) as Place];
    const side = start.y <= end.y ? NODE_HEIGHT / 2 : -NODE_HEIGHT / 2;
    return { frm, to, points: [{ x: start.x, y: start.y + side }, { x: end.x, y: end.y - side }] };
  });
  return { nodes, lines, width, height: 16 + wrapped.length * (NODE_HEIGHT + GAP_Y) - GAP_Y };
}

/** A layout, a step and an arrow key in; the step that it leads to, or null, out. */
export function neighbour(
  plan: Layout,
  from: string,
  key: 'ArrowUp' | 'ArrowDown' | 'ArrowLeft' | 'ArrowRight'
): string | null {
  const here = plan.nodes.get(from);
  if (!here) {
    return null;
  }
  const nearest = (names: Place[]): string | null =>
    names.sort((a, b) => Math.hypot(a.x - here.x, a.y - here.y) - Math.hypot(b.x - here.x, b.y - here.y))[0]?.name ??
    null;
  const all = [...plan.nodes.values()].filter(place => place.name !== from);
  if (key === 'ArrowLeft' || key === 'ArrowRight') {
    const side = key === 'ArrowLeft' ? -1 : 1;
    return nearest(all.filter(place => place.rank === here.rank && (place.x - here.x) * side > 0));
  }
  const down = key === 'ArrowDown';
  const joined = plan.lines.filter(line => (down ? line.frm : line.to) === from).map(line => (down ? line.to : line.frm));
  const linked = joined.map(name => plan.nodes.get(name)).filter((place): place is Place => place !== undefined);
  if (linked.length) {
    return nearest(linked);
  }
  return nearest(all.filter(place => (down ? place.rank > here.rank : place.rank < here.rank)));
}
