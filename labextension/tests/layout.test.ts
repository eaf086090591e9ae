import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MOST_FOR_DAGRE, layout, neighbour } from '../src/drawing/layout';

function chainOf(count: number): { boxes: { name: string; columns: number }[]; edges: { frm: string; to: string }[] } {
  const boxes = Array.from({ length: count }, (_, at) => ({ name: `s${at}`, columns: 8 }));
  const edges = boxes.slice(1).map((box, at) => ({ frm: `s${Math.max(0, at - (at % 3))}`, to: box.name }));
  return { boxes, edges };
}

for (const count of [1, 8, MOST_FOR_DAGRE, MOST_FOR_DAGRE + 1, 2000]) {
  test(`${count} steps have places of their own, sources above`, () => {
    const { boxes, edges } = chainOf(count);
    const started = performance.now();
    const plan = layout(boxes, edges);
    assert.ok(performance.now() - started < 1500);
    assert.equal(plan.nodes.size, count);
    const spots = new Set([...plan.nodes.values()].map(({ x, y }) => `${Math.round(x)} ${Math.round(y)}`));
    assert.equal(spots.size, count);
    for (const { frm, to } of edges) {
      assert.ok((plan.nodes.get(frm)?.y ?? 0) < (plan.nodes.get(to)?.y ?? 0));
    }
    for (const place of plan.nodes.values()) {
      assert.ok(place.x - place.width / 2 >= 0 && place.x + place.width / 2 <= plan.width);
      assert.ok(place.y - place.height / 2 >= 0 && place.y + place.height / 2 <= plan.height);
    }
  });
}

test('edges to nowhere, to oneself and twice are left out', () => {
  const boxes = [{ name: 'a', columns: 3 }, { name: 'b', columns: 3 }];
  const edges = [{ frm: 'a', to: 'b' }, { frm: 'a', to: 'b' }, { frm: 'a', to: 'a' }, { frm: 'a', to: 'gone' }];
  assert.equal(layout(boxes, edges).lines.length, 1);
});

test('arrow keys walk along the edges and beside', () => {
  const boxes = ['a', 'b', 'c', 'd'].map(name => ({ name, columns: 3 }));
  const edges = [['a', 'b'], ['a', 'c'], ['b', 'd'], ['c', 'd']].map(([frm = '', to = '']) => ({ frm, to }));
  const plan = layout(boxes, edges);
  const [left, right] = ['b', 'c'].sort((one, two) => (plan.nodes.get(one)?.x ?? 0) - (plan.nodes.get(two)?.x ?? 0)) as [string, string];
  assert.equal(neighbour(plan, left, 'ArrowRight'), right);
  assert.equal(neighbour(plan, right, 'ArrowLeft'), left);
  assert.equal(neighbour(plan, left, 'ArrowDown'), 'd');
  assert.equal(neighbour(plan, left, 'ArrowUp'), 'a');
  assert.equal(neighbour(plan, 'd', 'ArrowDown'), null);
});
