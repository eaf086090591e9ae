import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ArrowKey } from '../src/drawing/neighbour';
import { neighbour } from '../src/drawing/neighbour';
import type { LayoutView } from '../src/messages';

/** `a` above `b`, `c` and `far`; `b` and `c` lead to `d`; nothing leads to `alone`, the lowest. */
const PLACES = { a: [100, 20], b: [50, 94], c: [150, 94], far: [400, 94], d: [100, 168], alone: [400, 242] };
const LAYOUT: LayoutView = {
  width: 500,
  height: 262,
  box: 40,
  places: Object.entries(PLACES).map(([name, [x = 0, y = 0]]) => ({ name, text: name, x, y, width: 96 })),
  lines: ['ab', 'ac', 'bd', 'cd'].map(([frm = '', to = '']) => ({ frm, to, points: [] }))
};

const LEADS: [string, ArrowKey, string | null][] = [
  ['b', 'ArrowRight', 'c'],
  ['c', 'ArrowRight', 'far'],
  ['far', 'ArrowRight', null],
  ['far', 'ArrowLeft', 'c'],
  ['b', 'ArrowLeft', null],
  ['a', 'ArrowRight', null],
  ['a', 'ArrowDown', 'b'],
  ['b', 'ArrowDown', 'd'],
  ['c', 'ArrowUp', 'a'],
  ['d', 'ArrowUp', 'b'],
  ['d', 'ArrowDown', 'alone'],
  ['far', 'ArrowUp', 'a'],
  ['alone', 'ArrowUp', 'far'],
  ['alone', 'ArrowDown', null],
  ['gone', 'ArrowDown', null]
];

for (const [from, key, to] of LEADS) {
  test(`${key} leads from ${from} to ${to ?? 'nowhere'}`, () => {
    assert.equal(neighbour(LAYOUT, from, key), to);
  });
}

test('an edge that leads up the page is walked along as any other', () => {
  const lines = [{ frm: 'alone', to: 'a', points: [] }];
  assert.equal(neighbour({ ...LAYOUT, lines }, 'alone', 'ArrowDown'), 'a');
  assert.equal(neighbour({ ...LAYOUT, lines }, 'a', 'ArrowUp'), 'alone');
});
