/** Two snapshots in; the one sentence that a screen reader says about what happened between them out: pure. */

import type { SnapshotMessage, StepView } from '../messages';
import { SETTLED, WORST_FIRST, duration, tally } from './words';

const NAMED = 3;

/** What was drawn and what is drawn now in; words out, empty when nothing is worth saying. */
export function announcement(before: SnapshotMessage | null, after: SnapshotMessage | null): string {
  if (after === null || before === null || before.session !== after.session) {
    return '';
  }
  const said = [...runChange(before, after), ...stepChanges(before.steps, after.steps)];
  return said.join('. ');
}

function runChange(before: SnapshotMessage, after: SnapshotMessage): string[] {
  const run = after.run;
  if (run === null || run.by_hand) {
    return [];
  }
  const known = before.run?.run === run.run ? before.run.status : '';
  if (known === run.status) {
    return [];
  }
  if (run.status === 'running') {
    return [`Run of ${after.flow} started`];
  }
  const took = run.finished_at === null ? '' : ` after ${duration(run.finished_at - run.started_at)}`;
  return [`Run ${run.status}${took}: ${tally(after.steps)}`];
}

function stepChanges(before: readonly StepView[], after: readonly StepView[]): string[] {
  const states = new Map(before.map(step => [step.name, step.state]));
  const changed = after.filter(step => states.has(step.name) && states.get(step.name) !== step.state);
  const telling = changed.filter(step => SETTLED.has(step.state) || step.state === 'running');
  const said: string[] = [];
  for (const state of WORST_FIRST) {
    const labels = telling.filter(step => step.state === state).map(step => step.label);
    if (labels.length > NAMED) {
      said.push(`${labels.length} steps ${state}`);
    } else if (labels.length) {
      said.push(`${labels.join(', ')} ${state}`);
    }
  }
  return said;
}
