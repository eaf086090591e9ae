import assert from 'node:assert/strict';
import { test } from 'node:test';

import { announcement } from '../src/drawing/announce';
import { age, duration, share, tally, ticking } from '../src/drawing/words';
import { run, snapshot, step } from './sample';

test('times in words', () => {
  const cases: [number | null, string][] = [
    [null, ''], [0.0123, '12 ms'], [3.21, '3.2 s'], [59.97, '1 min 00 s'], [245, '4 min 05 s'], [7620, '2 h 07 min']
  ];
  for (const [seconds, words] of cases) {
    assert.equal(duration(seconds), words);
  }
  assert.equal(ticking(7.9), '7 s');
  assert.equal(age(10), 'just now');
  assert.equal(age(600), '10 min ago');
  assert.equal(age(86400 * 5), '5 days ago');
});

test('a run in numbers', () => {
  const steps = [step('a', 'done', { settled: 1 }), step('b', 'running', { settled: 1, total: 4 }), step('c')];
  assert.equal(tally(steps), '1 running, 1 pending, 1 done');
  assert.equal(share(snapshot(1, steps)), (1 + 0.25) / 3);
});

test('what changed, said once and short', () => {
  const before = snapshot(1, [step('a'), step('b'), step('c'), step('d'), step('e')], { run: run('running') });
  const one = snapshot(2, [step('a', 'done'), step('b', 'running'), step('c'), step('d'), step('e')], { run: run('running') });
  assert.equal(announcement(before, one), 'b running. a done');
  const all = snapshot(3, 'abcde'.split('').map(name => step(name, 'done')), { run: run('done') });
  assert.equal(announcement(before, all), 'Run done after 5.0 s: 5 done. 5 steps done');
  assert.equal(announcement(all, all), '');
  assert.equal(announcement(null, all), '');
});
