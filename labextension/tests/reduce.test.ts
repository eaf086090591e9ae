import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PROTOCOL } from '../src/messages';
import type { Action, State } from '../src/state/reduce';
import { START, abilities, cardKey, reduce, shown } from '../src/state/reduce';
import { run, snapshot, step } from './sample';

const told = (data: unknown): Action => ({ type: 'message', data, at: 107 });
const after = (...actions: Action[]): State => actions.reduce(reduce, START);
const ack = (id: string, more = {}): Action =>
  told({ nbflow: PROTOCOL, kind: 'ack', session: 's', seq: 0, reply_to: id, ok: true, text: '', fix: '', ...more });

test('a snapshot is shown, an older one is not, and the clocks are compared', () => {
  const state = after(told(snapshot(2, [step('load', 'done')])), told(snapshot(1, [step('load')])));
  assert.equal(state.snapshot?.steps[0]?.state, 'done');
  assert.equal(state.skew, 7);
});

test('what is not ours changes nothing', () => {
  for (const data of [null, 3, {}, { nbflow: PROTOCOL + 1, kind: 'snapshot' }, { nbflow: PROTOCOL }]) {
    assert.equal(reduce(START, told(data)), START);
  }
});

test('a change is applied to what it is based on, and waits otherwise', () => {
  const change = (seq: number, base: number): unknown => ({
    nbflow: PROTOCOL, kind: 'change', session: 's', seq, base, now: 101, busy: true, run: run('running'), steps: [step('b', 'running')], workers: { b: 'process 7' }
  });
  const held = after(told(snapshot(1, [step('a', 'done'), step('b')])), told(change(2, 1)));
  assert.deepEqual(held.snapshot?.steps.map(one => one.state), ['done', 'running']);
  assert.deepEqual(held.snapshot.workers, { b: 'process 7' });
  assert.equal(held.snapshot.busy, true);
  assert.equal(reduce(held, told(change(9, 7))), held);
  assert.equal(after(told(change(2, 1))).snapshot, null);
});

test('another session, a lost kernel and a restart leave nothing', () => {
  const held = after({ type: 'link', link: 'listening' }, told(snapshot(5, [step('a')])));
  const other = reduce(held, told(snapshot(1, [step('b')], { session: 't' })));
  assert.equal(other.snapshot?.steps[0]?.name, 'b');
  assert.equal(reduce(held, { type: 'link', link: 'waiting' }).snapshot, null);
  assert.equal(reduce(held, { type: 'link', link: 'none' }).snapshot, null);
});

test('an acknowledgement links; a refusal is told; an unknown one is nothing', () => {
  const sent: Action = { type: 'sent', command: { kind: 'cancel', id: 'x' } };
  const held = after({ type: 'link', link: 'listening' }, sent);
  assert.equal(reduce(held, ack('x')).link, 'linked');
  assert.equal(reduce(held, ack('x', { ok: false, text: 'no', fix: 'do' })).notice?.text, 'no');
  assert.equal(reduce(held, ack('y')).link, 'listening');
  const quiet = reduce(held, { type: 'unanswered', id: 'y', notice: { level: 'note', text: 'busy', fix: '' } });
  assert.equal(quiet.notice, null);
});

test('a card is kept until another one comes; one that is known already changes nothing', () => {
  const card = (digest: string, page: string | null, whole = false): Action =>
    told({ nbflow: PROTOCOL, kind: 'card', session: 's', seq: 0, reply_to: 'x', run: 'r', step: 'a', index: [], whole, title: 'a', digest, page });
  const held = after(card('1', '<b>one</b>'), card('2', '<b>all</b>', true));
  assert.equal(held.cards[cardKey('r', 'a', [], false)]?.page, '<b>one</b>');
  assert.equal(held.cards[cardKey('r', 'a', [], true)]?.page, '<b>all</b>');
  assert.equal(reduce(held, card('1', null)).cards, held.cards);
  assert.equal(reduce(held, card('3', '')).cards[cardKey('r', 'a', [], false)]?.page, '');
});

test('buttons are dead where nothing would happen', () => {
  const linked: Action[] = [{ type: 'link', link: 'linked' }];
  const can = (...more: Action[]): string => {
    const able = abilities(after(...linked, ...more));
    return (['run', 'resume', 'cancel'] as const).filter(name => able[name]).join(' ');
  };
  assert.equal(can(), '');
  assert.equal(can(told(snapshot(1, []))), '');
  assert.equal(can(told(snapshot(1, [step('a')]))), 'run');
  assert.equal(can(told(snapshot(1, [step('a')], { run: run('failed') }))), 'run resume');
  assert.equal(can(told(snapshot(1, [step('a')], { run: run('running'), busy: true }))), 'cancel');
  const sent: Action = { type: 'sent', command: { kind: 'run', id: 'x', steps: [], params: {}, fresh: false } };
  assert.equal(can(told(snapshot(1, [step('a')])), sent), '');
});

test('an earlier run is shown until the present is asked for', () => {
  const past = { nbflow: PROTOCOL, kind: 'past', session: 's', seq: 0, reply_to: 'x', snapshot: snapshot(0, [step('old')]) };
  const held = after({ type: 'link', link: 'linked' }, told(snapshot(1, [step('new')])), told(past));
  assert.equal(shown(held)?.steps[0]?.name, 'old');
  assert.equal(shown(reduce(held, { type: 'present' }))?.steps[0]?.name, 'new');
});
