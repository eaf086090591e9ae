/** Small messages for tests. */

import { PROTOCOL } from '../src/messages';
import type { SnapshotMessage, StepView } from '../src/messages';

export function step(name: string, state = 'pending', more: Partial<StepView> = {}): StepView {
  return {
    name, label: name, kind: 'step', cell: `c-${name}`, position: 1, detail: '', reads: [], writes: [], state,
    count: '', settled: 0, total: 1, started_at: null, elapsed: null, note: '', mark: '', why: '', failure: null, tasks: [], ...more
  };
}

export function snapshot(seq: number, steps: StepView[], more: Partial<SnapshotMessage> = {}): SnapshotMessage {
  return {
    nbflow: PROTOCOL, kind: 'snapshot', session: 's', seq, now: 100, flow: 'digits', order: '', busy: false, untrusted: '', verified: null, run: null,
    steps, workers: {}, edges: [], layout: { width: 0, height: 0, box: 40, places: [], lines: [] }, parameters: [], findings: [], cells: [], headers: [], exporters: [], further: {}, ...more
  };
}

export function run(status: string): NonNullable<SnapshotMessage['run']> {
  return { run: 'r1', status, by_hand: false, started_at: 90, finished_at: status === 'running' ? null : 95, error: null, tags: [] };
}
