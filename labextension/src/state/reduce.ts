/** The page's knowledge of one kernel: `reduce(state, action) -> state`, pure. The drawing shows it, the link feeds it. */

import type { CardMessage, ChangeMessage, Command, DetailMessage, KernelMessage, PageMessage, RunRow, SnapshotMessage } from '../messages';
import { PROTOCOL } from '../messages';

/**
 * How the page hangs together with the kernel: no kernel; a kernel without nbflow; messages heard that nobody answers
 * yet; commands answered.
 */
export type Link = 'none' | 'waiting' | 'listening' | 'linked';

/** Something that a person must know about what they asked for. */
export interface Notice {
  level: 'error' | 'note';
  text: string;
  fix: string;
}

/** What the kernel thinks of a header line, by the id of the command that asked. */
export interface Checked extends Omit<Notice, 'level'> {
  id: string;
  ok: boolean;
}

export interface State {
  readonly link: Link;
  readonly session: string;
  readonly seq: number;
  readonly snapshot: SnapshotMessage | null;
  /** An earlier run that is looked at instead of the present one. */
  readonly past: SnapshotMessage | null;
  /** Seconds that the page's clock is ahead of the kernel's. */
  readonly skew: number;
  /** Commands that wait for their acknowledgement, by id. */
  readonly pending: Readonly<Record<string, Command['kind']>>;
  readonly notice: Notice | null;
  /** What tasks printed and left, by `detailKey`. */
  readonly details: Readonly<Record<string, DetailMessage>>;
  /** Cards as they were told, by `cardKey`. */
  readonly cards: Readonly<Record<string, CardMessage>>;
  readonly runs: readonly RunRow[] | null;
  readonly checked: Checked | null;
  /** The page that a command asked for last. */
  readonly page: PageMessage | null;
}

export type Action =
  | { type: 'link'; link: Link }
  | { type: 'message'; data: unknown; at: number }
  | { type: 'sent'; command: Command }
  | { type: 'unanswered'; id: string; notice: Notice }
  | { type: 'notice'; notice: Notice | null }
  | { type: 'present' };

export const START: State = {
  link: 'none',
  session: '',
  seq: -1,
  snapshot: null,
  past: null,
  skew: 0,
  pending: {},
  notice: null,
  details: {},
  cards: {},
  runs: null,
  checked: null,
  page: null,
};

const KEPT_DETAILS = 20;
const KEPT_CARDS = 8;

/** A run, a step and a place in; the key of its detail out. */
export function detailKey(run: string, step: string, index: readonly number[]): string {
  return JSON.stringify([run, step, index]);
}

/** The same and whether the whole card is meant in; the key of the card out. */
export function cardKey(run: string, step: string, index: readonly number[], whole: boolean): string {
  return JSON.stringify([run, step, index, whole]);
}

/** Anything that came from a comm in; whether it is one of ours out. */
export function isKernelMessage(data: unknown): data is KernelMessage {
  return (
    typeof data === 'object' &&
    data !== null &&
    (data as { nbflow?: unknown }).nbflow === PROTOCOL &&
    typeof (data as { kind?: unknown }).kind === 'string'
  );
}

/** What the page knew and what happened in; what it knows now out. The same object when nothing changed. */
export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case 'link':
      return linked(state, action.link);
    case 'message':
      return isKernelMessage(action.data) ? told(state, action.data, action.at) : state;
    case 'sent':
      return {
        ...state,
        notice: isAsked(action.command.kind) ? null : state.notice,
        pending: { ...state.pending, [action.command.id]: action.command.kind },
      };
    case 'unanswered':
      if (!(action.id in state.pending)) {
        return state;
      }
      return { ...state, pending: without(state.pending, action.id), notice: action.notice };
    case 'notice':
      return state.notice === action.notice ? state : { ...state, notice: action.notice };
    case 'present':
      return state.past === null ? state : { ...state, past: null };
  }
}

/** Whether a person asked for it: its answer takes the place of the last notice. */
function isAsked(kind: Command['kind']): boolean {
  return ['run', 'resume', 'cancel', 'past', 'compare', 'export', 'verify', 'trust'].includes(kind);
}

/** A kernel that is gone, or another one, leaves nothing of what was known. */
function linked(state: State, link: Link): State {
  if (state.link === link) {
    return state;
  }
  if (link === 'none' || link === 'waiting') {
    return { ...START, link };
  }
  return { ...state, link };
}

/** Another session of the kernel leaves nothing of the one before; commands that were sent to the first are kept. */
function inSession(state: State, session: string): State {
  if (state.session === session) {
    return state;
  }
  return state.session ? { ...START, link: state.link, session } : { ...state, session };
}

function told(state: State, message: KernelMessage, at: number): State {
  const known = inSession(state, message.session);
  switch (message.kind) {
    case 'snapshot':
      if (message.seq <= known.seq) {
        return known;
      }
      return { ...known, snapshot: message, seq: message.seq, skew: at - message.now };
    case 'change':
      return changed(known, message, at);
    case 'ack': {
      if (!(message.reply_to in known.pending)) {
        return known;
      }
      const answered: State = { ...known, link: 'linked', pending: without(known.pending, message.reply_to) };
      const kind = known.pending[message.reply_to];
      const { text, fix, ok, reply_to: id } = message;
      if (kind === 'check') {
        return { ...answered, checked: { id, ok, text, fix } };
      }
      if (!text || kind === 'document') {
        return answered;
      }
      return { ...answered, notice: { level: ok ? 'note' : 'error', text, fix } };
    }
    case 'refused':
    case 'said':
      return { ...known, notice: { level: message.kind === 'said' ? 'note' : 'error', text: message.text, fix: message.fix } };
    case 'page':
      return { ...known, page: message };
    case 'detail': {
      const key = detailKey(message.run, message.step, message.index);
      const others = Object.entries(known.details).filter(([other]) => other !== key);
      return { ...known, details: Object.fromEntries([...others.slice(1 - KEPT_DETAILS), [key, message]]) };
    }
    case 'card': {
      const key = cardKey(message.run, message.step, message.index, message.whole);
      if (message.page === null) {
        return known; // the page has it already
      }
      const others = Object.entries(known.cards).filter(([other]) => other !== key);
      return { ...known, cards: Object.fromEntries([...others.slice(1 - KEPT_CARDS), [key, message]]) };
    }
    case 'runs':
      return { ...known, runs: message.runs };
    case 'past':
      return { ...known, past: message.snapshot };
    default:
      return known;
  }
}

/** A change of what is held in; the snapshot after it out. What is new to the page waits for the next snapshot. */
function changed(state: State, message: ChangeMessage, at: number): State {
  if (state.snapshot === null || message.base !== state.seq) {
    return state;
  }
  const changed = new Map(message.steps.map(step => [step.name, step]));
  const steps = state.snapshot.steps.map(step => changed.get(step.name) ?? step);
  const { run, busy, seq, now } = message;
  const workers = { ...state.snapshot.workers, ...message.workers };
  return { ...state, snapshot: { ...state.snapshot, steps, workers, run, busy, seq, now }, seq, skew: at - now };
}

function without<V>(record: Readonly<Record<string, V>>, key: string): Record<string, V> {
  return Object.fromEntries(Object.entries(record).filter(([other]) => other !== key));
}

/** The snapshot that is drawn: an earlier run where one is looked at, else the present. */
export function shown(state: State): SnapshotMessage | null {
  return state.past ?? state.snapshot;
}

/** What a person can do now, and why not: buttons are dead where nothing would happen. */
export interface Abilities {
  run: boolean;
  stale: boolean;
  resume: boolean;
  cancel: boolean;
  /** Why running is not possible, for the buttons' titles; empty when it is. */
  why: string;
}

/** What cells bear whose results are not those of the notebook as it stands. */
const STALE: ReadonlySet<string> = new Set(['stale', 'new', 'failed', 'cancelled']);

/** What the page knows in; which buttons are alive out. */
export function abilities(state: State): Abilities {
  const nothing = { run: false, stale: false, resume: false, cancel: false };
  if (state.link === 'none') {
    return { ...nothing, why: 'no kernel' };
  }
  if (state.link === 'waiting' || state.snapshot === null) {
    return { ...nothing, why: 'nbflow is not loaded in this kernel' };
  }
  const { busy, run, steps } = state.snapshot;
  const cancel = busy && !Object.values(state.pending).includes('cancel');
  if (state.past !== null) {
    return { ...nothing, resume: state.link === 'linked' && !busy, cancel, why: 'an earlier run is shown' };
  }
  if (busy) {
    return { ...nothing, cancel, why: 'a run is under way' };
  }
  if (state.link !== 'linked') {
    return { ...nothing, why: 'not connected to the kernel yet' };
  }
  const starting = Object.values(state.pending).some(kind => kind === 'run' || kind === 'resume');
  const ended = run !== null && !run.by_hand && ['failed', 'cancelled', 'lost'].includes(run.status);
  const stale = steps.some(step => STALE.has(step.mark));
  return {
    run: steps.length > 0 && !starting,
    stale: stale && !starting,
    resume: ended && !starting,
    cancel: false,
    why: !steps.length ? 'the notebook declares no step' : stale ? '' : 'nothing is stale',
  };
}
