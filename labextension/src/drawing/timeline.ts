/** A run on its time line: a row a task, with when it ran, how long and in which process; only rows in sight are in the page. */

import { element, setAttribute, setHidden, setText } from './elements';
import type { SnapshotMessage } from '../messages';
import type { Span, Spans } from './spans';
import { spansOf } from './spans';
import type { Choice } from './steps';
import { MARKS, duration } from './words';

const ROW = 26;
const BEYOND = 6;

interface Row {
  root: HTMLElement;
  label: HTMLElement;
  bar: HTMLElement;
  time: HTMLElement;
  worker: HTMLElement;
}

export class Timeline {
  readonly root: HTMLElement;
  private readonly rows = element('div', { class: 'nbf-rows', role: 'presentation' });
  private readonly list: HTMLElement;
  private readonly scale = [0, 0.5, 1].map(() => element('span'));
  private readonly axis = element('div', { class: 'nbf-axis', 'aria-hidden': 'true' }, element('span', { class: 'nbf-ticks' }, ...this.scale));
  private readonly empty = element('p', { class: 'nbf-empty', text: 'Nothing has run yet.' });
  private readonly drawn: Row[] = [];
  private shown: Spans = { whole: 0, spans: [] };
  private selected: string | null = null;

  constructor(private readonly choice: Choice) {
    this.list = element('div', { class: 'nbf-spans', role: 'list', 'aria-label': 'Tasks of the run', on: { scroll: () => this.paint() } }, this.rows);
    this.root = element('div', { class: 'nbf-timeline', role: 'region', 'aria-label': 'Timeline' }, this.empty, this.axis, this.list);
  }

  /** A snapshot, the selected step and the kernel's time in; drawn. */
  update(snapshot: SnapshotMessage, selected: string | null, now: number): void {
    this.shown = spansOf(snapshot, now);
    this.selected = selected;
    const { whole, spans } = this.shown;
    setHidden(this.empty, spans.length > 0);
    setHidden(this.axis, spans.length === 0);
    this.scale.forEach((tick, at) => setText(tick, duration((whole * at) / 2)));
    this.rows.style.height = `${spans.length * ROW}px`;
    this.paint();
  }

  /** Draw the rows in sight; also when the size has changed. */
  paint(): void {
    const { spans } = this.shown;
    const height = this.list.clientHeight || 600;
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW) - BEYOND);
    const last = Math.min(spans.length, Math.ceil((this.list.scrollTop + height) / ROW) + BEYOND);
    for (let at = first; at < last; at += 1) {
      this.fill(this.drawn[at - first] ?? this.make(), spans[at] as Span, at);
    }
    this.drawn.splice(Math.max(0, last - first)).forEach(row => row.root.remove());
  }

  private make(): Row {
    const [label, bar, time, worker] = ['label', 'span', 'time', 'worker'].map(name => element('span', { class: `nbf-${name}`, 'aria-hidden': 'true' })) as [
      HTMLElement, HTMLElement, HTMLElement, HTMLElement
    ];
    const step = (): string => root.dataset['step'] ?? '';
    const press = element(
      'button',
      { type: 'button', class: 'nbf-span-row', on: { click: () => this.choice.select(step()), dblclick: () => this.choice.open(step()) } },
      label, element('span', { class: 'nbf-lane', 'aria-hidden': 'true' }, bar), time, worker
    );
    const root = element('div', { class: 'nbf-span-place', role: 'listitem' }, press);
    const row = { root: root, label, bar, time, worker };
    this.drawn.push(row);
    this.rows.append(root);
    return row;
  }

  private fill({ root, label, bar, time, worker }: Row, span: Span, at: number): void {
    const whole = Math.max(this.shown.whole, 1e-6);
    const press = root.firstElementChild as HTMLElement;
    root.style.top = `${at * ROW}px`;
    setAttribute(root, 'data-step', span.step);
    setAttribute(root, 'data-state', span.state);
    setAttribute(press, 'aria-pressed', String(span.step === this.selected));
    const took = duration(span.length);
    const said = `${span.label}: ${span.state}, from ${duration(span.begin)} on for ${took}${span.worker ? `, ${span.worker}` : ''}`;
    setAttribute(press, 'aria-label', said);
    setAttribute(press, 'title', said);
    setText(label, `${MARKS[span.state] ?? ''} ${span.label}`);
    setAttribute(bar, 'class', `nbf-span nbf-is-${span.state}`);
    bar.style.left = `${(100 * span.begin) / whole}%`;
    bar.style.width = `${(100 * span.length) / whole}%`;
    setText(time, took);
    setText(worker, span.worker);
  }
}
