/** A snapshot in; who ran when, in the order of their beginnings, out: pure. */

import type { SnapshotMessage, StepView, TaskItem } from '../messages';
import { place } from './words';

/** One task on a run's time line; times are seconds since the run's start. */
export interface Span {
  step: string;
  label: string;
  state: string;
  begin: number;
  length: number;
  worker: string;
}

export interface Spans {
  /** Seconds from the run's start to its end, or to now. */
  whole: number;
  spans: Span[];
}

/** A snapshot and the kernel's time in; its tasks that have begun, out. */
export function spansOf(snapshot: SnapshotMessage, now: number): Spans {
  const { run } = snapshot;
  if (!run) {
    return { whole: 0, spans: [] };
  }
  const spans = snapshot.steps.flatMap(step => tasksOf(step, snapshot).flatMap(task => spanOf(step, task, run.started_at, now)));
  spans.sort((one, other) => one.begin - other.begin);
  const ends = spans.map(span => span.begin + span.length);
  const whole = ends.reduce((last, end) => Math.max(last, end), (run.finished_at ?? now) - run.started_at);
  return { whole, spans };
}

type Timed = Pick<TaskItem, 'state' | 'started_at' | 'elapsed' | 'worker'> & { name: string };

function tasksOf(step: StepView, { workers }: SnapshotMessage): Timed[] {
  if (step.tasks.length > 1) {
    return step.tasks.map(task => ({ ...task, name: task.turn === null ? place(task.index) : `turn ${task.turn}` }));
  }
  return [{ ...step, worker: workers[step.name] ?? '', name: '' }];
}

function spanOf(step: StepView, task: Timed, start: number, now: number): Span[] {
  const { state, worker, started_at: began } = task;
  if (began === null || began < start - 1) {
    return []; // it has not begun, or in an earlier run
  }
  const length = Math.max(0, state === 'running' ? now - began : (task.elapsed ?? 0));
  return [{ step: step.name, label: [step.label, task.name].filter(Boolean).join(' '), state, begin: Math.max(0, began - start), length, worker }];
}
