/** States, times and labels in the few words that a panel has room for; the same words as `nbflow/render/preview.py`. */

import type { SnapshotMessage, StepView } from '../messages';

/** A state's mark: another shape for each state, so that colour is never needed. */
export const MARKS: Readonly<Record<string, string>> = {
  pending: '·',
  queued: '○',
  running: '▸',
  done: '✓',
  reused: '↺',
  failed: '✗',
  caught: '!',
  skipped: '-',
  cancelled: '■',
};

/** What a step's cell bears in; its mark out. */
export function cellMark(word: string): string {
  return { fresh: '✓', stale: '◌', new: '·' }[word] ?? MARKS[word] ?? '';
}

/** A step in; its state in a word, stale where the notebook has changed since, out. */
export function stateOf(step: StepView): string {
  return step.mark === 'stale' ? 'stale' : step.state;
}

/** A step in; what is worth saying of its state out. */
export function noteOf(step: StepView): string {
  return step.mark === 'stale' ? step.why : step.note;
}

/** A run's status in; its mark out. */
export const STATUS_MARKS: Readonly<Record<string, string>> = {
  running: '▸',
  done: '✓',
  failed: '✗',
  cancelled: '■',
  lost: '?',
};

/** States that a task does not leave any more. */
export const SETTLED: ReadonlySet<string> = new Set(['done', 'reused', 'failed', 'caught', 'skipped', 'cancelled']);

/** The order in which states are counted and announced. */
export const WORST_FIRST: readonly string[] = [
  'failed',
  'cancelled',
  'running',
  'queued',
  'pending',
  'caught',
  'skipped',
  'done',
  'reused',
];

/** Seconds in; `12 ms`, `3.2 s`, `4 min 05 s` or `2 h 07 min` out, an empty string for null. */
export function duration(seconds: number | null): string {
  if (seconds === null) {
    return '';
  }
  if (seconds < 0.9995) {
    return `${Math.round(Math.max(0, seconds) * 1000)} ms`;
  }
  if (seconds < 59.95) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${two(whole % 60)} s`
    : `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** A running time in; whole seconds, so that a ticking clock does not flicker, out. */
export function ticking(seconds: number): string {
  return seconds < 60 ? `${Math.floor(Math.max(0, seconds))} s` : duration(Math.floor(seconds));
}

/** Seconds since something happened in; `just now`, `5 min ago`, `3 h ago` or `12 days ago` out. */
export function age(seconds: number): string {
  if (seconds < 90) {
    return 'just now';
  }
  if (seconds < 5400) {
    return `${Math.round(seconds / 60)} min ago`;
  }
  return seconds < 129600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}

/** A step and the kernel's time in; how long it took, or has taken so far, as text out. */
export function elapsed(step: Pick<StepView, 'state' | 'started_at' | 'elapsed'>, now: number): string {
  if (step.state === 'running' && step.started_at !== null) {
    return ticking(now - step.started_at);
  }
  return duration(step.elapsed);
}

/** A snapshot in; the number of its steps in each state that occurs, worst first, out. */
export function counts(steps: readonly StepView[]): [string, number][] {
  const found = new Map<string, number>();
  for (const step of steps) {
    const state = stateOf(step);
    found.set(state, (found.get(state) ?? 0) + 1);
  }
  return ['stale', ...WORST_FIRST].filter(state => found.has(state)).map(state => [state, found.get(state) ?? 0]);
}

/** A number and a word in; `1 step` or `3 steps` out. */
export function many(count: number, word: string): string {
  return count === 1 ? `1 ${word}` : `${count} ${word}s`;
}

/** A snapshot in; `4 done, 2 reused` out. */
export function tally(steps: readonly StepView[]): string {
  return counts(steps)
    .map(([state, count]) => `${count} ${state}`)
    .join(', ');
}

/** The share of a snapshot's tasks that are settled, from 0 to 1. */
export function share(snapshot: SnapshotMessage): number {
  let settled = 0;
  let total = 0;
  for (const step of snapshot.steps) {
    const tasks = Math.max(1, step.total);
    total += 1;
    settled += step.total > 0 ? step.settled / tasks : SETTLED.has(step.state) ? 1 : 0;
  }
  return total ? settled / total : 0;
}

/** A step and the time in; what a screen reader says of it out. */
export function spoken(step: StepView, now: number): string {
  const parts = [`${step.label}: ${stateOf(step)}`];
  if (step.count) {
    parts.push(step.count);
  }
  const time = elapsed(step, now);
  if (time) {
    parts.push(time);
  }
  if (noteOf(step)) {
    parts.push(noteOf(step));
  }
  return parts.join(', ');
}

/** A step's place in its fan-outs in; `1` or `1.0`, as the command line takes it, out. */
export function place(index: readonly number[]): string {
  return index.join('.');
}
