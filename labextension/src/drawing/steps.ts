/** The list of steps: only the rows in sight are in the page, so that 2,000 steps scroll as 20 do. */

import { element, setAttribute, setText } from './elements';
import type { StepView } from '../messages';
import { cellMark, elapsed, noteOf, spoken, stateOf } from './words';

const ROW = 42;
const BEYOND = 6;

interface Row {
  root: HTMLElement;
  mark: HTMLElement;
  label: HTMLElement;
  time: HTMLElement;
  state: HTMLElement;
  note: HTMLElement;
  bar: HTMLElement;
}

export interface Choice {
  /** Select a step. */
  select(name: string): void;
  /** Do what Enter and a double click do: show the step's cell. */
  open(name: string): void;
}

/** A list box with one option a step; arrows, Home, End, Page keys and typing move, Enter opens the cell. */
export class StepList {
  readonly root: HTMLElement;
  private readonly inner: HTMLElement;
  private readonly rows = new Map<number, Row>();
  private readonly id = `nbf-${Math.random().toString(36).slice(2, 8)}`;
  private steps: readonly StepView[] = [];
  private selected: string | null = null;
  private now = 0;
  private running = '';
  private typed = '';
  private typedAt = 0;

  constructor(private readonly choice: Choice) {
    this.inner = element('div', { class: 'nbf-rows', role: 'presentation' });
    this.root = element(
      'div',
      {
        class: 'nbf-list',
        role: 'listbox',
        tabindex: 0,
        'aria-label': 'Steps',
        on: {
          keydown: event => this.pressed(event as KeyboardEvent),
          scroll: () => this.paint(),
          focus: () => this.focused()
        }
      },
      this.inner
    );
  }

  /** Steps, the selected one and the kernel's time in; drawn. */
  update(steps: readonly StepView[], selected: string | null, now: number): void {
    const moved = selected !== this.selected;
    this.steps = steps;
    this.selected = selected;
    this.now = now;
    this.inner.style.height = `${steps.length * ROW}px`;
    if (moved && selected !== null) {
      this.bringIntoSight(this.at());
    }
    this.followRunning();
    this.paint();
  }

  /** The step that begins to run comes into sight, unless a person is at work in the list. */
  private followRunning(): void {
    const at = this.steps.findIndex(step => step.state === 'running');
    const name = this.steps[at]?.name ?? '';
    if (name !== this.running) {
      this.running = name;
      if (this.selected === null && !this.root.matches(':hover, :focus-within')) {
        this.bringIntoSight(at);
      }
    }
  }

  /** Draw the rows in sight; also when the size has changed. */
  paint(): void {
    const height = this.root.clientHeight || 600;
    const first = Math.max(0, Math.floor(this.root.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.steps.length, Math.ceil((this.root.scrollTop + height) / ROW) + BEYOND);
    const chosen = this.at();
    for (const [at, row] of this.rows) {
      if ((at < first || at >= last) && at !== chosen) {
        row.root.remove();
        this.rows.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) {
      this.row(at);
    }
    if (chosen >= 0) {
      this.row(chosen);
    }
    setAttribute(this.root, 'aria-activedescendant', chosen >= 0 ? `${this.id}-${chosen}` : null);
  }

  private row(at: number): void {
    const step = this.steps[at];
    if (!step) {
      return;
    }
    const row = this.rows.get(at) ?? this.make(at);
    const { root } = row;
    setAttribute(root, 'aria-setsize', String(this.steps.length));
    setAttribute(root, 'aria-selected', String(step.name === this.selected));
    setAttribute(root, 'aria-label', spoken(step, this.now));
    setAttribute(root, 'data-step', step.name);
    setAttribute(root, 'data-state', step.state);
    const state = stateOf(step);
    setAttribute(row.mark, 'class', `nbf-mark nbf-is-${state}`);
    setText(row.mark, cellMark(state) || ' ');
    setText(row.label, step.label);
    setAttribute(row.label, 'title', step.label);
    setText(row.time, elapsed(step, this.now));
    setAttribute(row.state, 'class', `nbf-state nbf-is-${state}`);
    setText(row.state, state);
    const note = [step.count, noteOf(step) || step.detail].filter(Boolean).join(' · ');
    setText(row.note, note);
    setAttribute(row.note, 'title', note || null);
    row.bar.style.width = step.total > 1 ? `${(100 * step.settled) / step.total}%` : '0';
  }

  private make(at: number): Row {
    const [mark, label, time, state, note, bar] = ['mark', 'label', 'time', 'state', 'note', 'bar'].map(name =>
      element('span', { class: `nbf-${name}`, 'aria-hidden': 'true' })
    ) as [HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement];
    const root = element(
      'div',
      {
        id: `${this.id}-${at}`,
        class: 'nbf-row',
        role: 'option',
        'aria-posinset': at + 1,
        on: {
          // the details that open may move what is under the pointer before it is released
          mousedown: () => this.select(at),
          click: () => this.select(at),
          dblclick: () => this.open(at)
        }
      },
      mark,
      element('span', { class: 'nbf-line', 'aria-hidden': 'true' }, label, time),
      element('span', { class: 'nbf-line nbf-second', 'aria-hidden': 'true' }, state, note),
      bar
    );
    root.style.top = `${at * ROW}px`;
    const row = { root, mark, label, time, state, note, bar };
    this.rows.set(at, row);
    // options stand in document order for readers that walk through the page
    const next = [...this.rows.keys()].filter(other => other > at).sort((a, b) => a - b)[0];
    this.inner.insertBefore(root, next === undefined ? null : (this.rows.get(next)?.root ?? null));
    return row;
  }

  private at(): number {
    return this.selected === null ? -1 : this.steps.findIndex(step => step.name === this.selected);
  }

  private select(at: number): void {
    const step = this.steps[at];
    if (step) {
      this.choice.select(step.name);
    }
  }

  private open(at: number): void {
    const step = this.steps[at];
    if (step) {
      this.choice.open(step.name);
    }
  }

  private focused(): void {
    if (this.at() < 0 && this.steps.length && this.root.matches(':focus-visible')) {
      this.select(0);
    }
  }

  private bringIntoSight(at: number): void {
    if (at < 0) {
      return;
    }
    const top = at * ROW;
    const height = this.root.clientHeight;
    if (top < this.root.scrollTop) {
      this.root.scrollTop = top;
    } else if (height && top + ROW > this.root.scrollTop + height) {
      this.root.scrollTop = top + ROW - height;
    }
  }

  private pressed(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const at = this.at();
    const page = Math.max(1, Math.floor(this.root.clientHeight / ROW) - 1);
    const last = this.steps.length - 1;
    const target: Record<string, number> = {
      ArrowDown: Math.min(last, at + 1),
      ArrowUp: Math.max(0, at - 1),
      Home: 0,
      End: last,
      PageDown: Math.min(last, at + page),
      PageUp: Math.max(0, at - page)
    };
    const next = target[event.key];
    if (next !== undefined) {
      this.select(next);
    } else if (event.key === 'Enter') {
      this.open(at);
    } else if (event.key.length === 1 && event.key !== ' ') {
      this.type(event.key);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Typing letters goes to the next step whose label begins with them. */
  private type(letter: string): void {
    const now = Date.now();
    this.typed = now - this.typedAt < 700 ? this.typed + letter.toLowerCase() : letter.toLowerCase();
    this.typedAt = now;
    const from = Math.max(0, this.at()) + (this.typed.length > 1 ? 0 : 1);
    const order = [...this.steps.slice(from), ...this.steps.slice(0, from)];
    const found = order.find(step => step.label.toLowerCase().startsWith(this.typed));
    if (found) {
      this.choice.select(found.name);
    }
  }
}
