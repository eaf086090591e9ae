import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { TaskItem } from '../src/messages';
import { spansOf } from '../src/drawing/spans';
import { run, snapshot, step } from './sample';

const item = (index: number, state: string, started_at: number | null, elapsed: number | null): TaskItem => ({
  index: [index], turn: null, item: '', state, attempt: 1, started_at, elapsed, worker: `process ${index}`, note: ''
});

test('tasks that have begun stand in the order of their beginnings, with where they ran', () => {
  const steps = [
    step('load', 'done', { started_at: 91, elapsed: 2 }),
    step('old', 'done', { started_at: 20, elapsed: 2 }),
    step('reused', 'reused'),
    step('fit', 'running', { tasks: [item(0, 'running', 95, null), item(1, 'failed', 94, 1), item(2, 'queued', null, null)] })
  ];
  const { whole, spans } = spansOf(snapshot(1, steps, { run: run('running'), workers: { load: 'process 7' } }), 100);
  assert.equal(whole, 10);
  assert.deepEqual(
    spans.map(({ label, begin, length, worker }) => [label, begin, length, worker]),
    [['load', 1, 2, 'process 7'], ['fit 1', 4, 1, 'process 1'], ['fit 0', 5, 5, 'process 0']]
  );
});

test('without a run there is nothing', () => {
  assert.deepEqual(spansOf(snapshot(1, [step('a', 'done', { started_at: 1, elapsed: 1 })]), 100).spans, []);
});
