/** One step from near: state and why, error with its traceback, items, what it printed and what it left. */

import { button, element, mark, setHidden, setText } from './elements';
import { CardFrame } from './frame';
import type { Host } from '../host';
import { RUN } from '../messages';
import type { CardMessage, DetailMessage, FailureView, StepView, TaskItem } from '../messages';
import type { Abilities, Notice } from '../state/reduce';
import { MARKS, SETTLED, elapsed, place } from './words';

export interface Shown {
  step: StepView;
  /** The item whose log and card are shown. */
  index: readonly number[];
  /** Which process ran its only task, where that is known. */
  worker: string;
  detail: DetailMessage | null;
  card: CardMessage | null;
  abilities: Abilities;
  now: number;
}

export interface Asked {
  host: Host;
  /** Say something at the top of the panel. */
  notice(notice: Notice): void;
  close(): void;
  /** The item whose log is wanted. */
  item(index: number[]): void;
  /** The whole card of the step or item is wanted. */
  card(): void;
}

/** The pane below the list; its parts are made once a step and written over when something changes. */
export class Details {
  readonly root: HTMLElement;
  private readonly head = element('div', { class: 'nbf-detail-head' });
  private readonly facts = element('dl', { class: 'nbf-facts' });
  private readonly failure = element('div', { class: 'nbf-failure' });
  private readonly items = element('ul', { class: 'nbf-items', 'aria-label': 'Items' });
  private readonly artifacts = element('table', { class: 'nbf-artifacts' });
  private readonly log = element('pre', { class: 'nbf-log', role: 'log', tabindex: 0, 'aria-label': 'Log', 'aria-live': 'off' });
  private readonly card: CardFrame;
  private readonly cardHead = element('h4', { text: 'Card' });
  private readonly logHead = element('h4', { text: 'Printed' });
  private readonly title = element('h3');
  private readonly time = element('span', { class: 'nbf-detail-time' });
  private readonly toCell: HTMLButtonElement;
  private readonly toHere: HTMLButtonElement;
  private readonly again: HTMLButtonElement;
  private readonly toCard: HTMLButtonElement;
  private step: StepView | null = null;
  private drawnFacts = '';
  private drawnItems = '';
  private drawnDetail: DetailMessage | null = null;

  constructor(private readonly asked: Asked) {
    this.toCell = button('Go to cell', () => this.reveal());
    this.toHere = button('Run to here', () => this.run(false), { title: 'Run this step and what it needs, reusing results' });
    this.again = button('Run afresh', () => this.run(true), { title: 'Execute this step again even if its result could be reused' });
    this.toCard = button('Card', () => asked.card(), { title: 'Show its whole card: what it displayed, parameters, inputs, artifacts' });
    this.card = new CardFrame(asked.host.chart);
    const close = element('button', {
      type: 'button', class: 'nbf-button nbf-quiet nbf-close', 'aria-label': 'Close details', title: 'Close details (Esc)',
      text: '×', on: { click: () => asked.close() }
    });
    this.head.append(this.title, this.time, close);
    this.root = element(
      'section',
      { class: 'nbf-details', 'aria-label': 'Step', on: { keydown: event => this.pressed(event as KeyboardEvent) } },
      this.head,
      element('div', { class: 'nbf-actions' }, this.toCell, this.toHere, this.again, this.toCard),
      this.failure,
      this.facts,
      this.items,
      this.cardHead,
      this.card.root,
      this.artifacts,
      this.logHead,
      this.log
    );
  }

  dispose(): void {
    this.card.dispose();
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      event.stopPropagation();
      this.asked.close();
    }
  }

  private reveal(): void {
    if (this.step && !this.asked.host.reveal(this.step.cell, true)) {
      this.asked.notice({ level: 'note', text: `It is code cell ${this.step.position} of the notebook.`, fix: '' });
    }
  }

  private run(fresh: boolean): void {
    if (this.step) {
      this.asked.host.send({ ...RUN, steps: [this.step.name], fresh });
    }
  }

  /** What is known of a step in; drawn. */
  update(shown: Shown): void {
    const { step, abilities, now } = shown;
    if (this.step?.name !== step.name) {
      this.drawnFacts = this.drawnItems = '';
      this.drawnDetail = null;
      this.log.textContent = '';
      this.artifacts.replaceChildren();
    }
    this.step = step;
    this.root.dataset['step'] = step.name;
    this.title.replaceChildren(mark(MARKS[step.state] ?? ' ', step.state), step.label);
    setText(this.time, [step.state, elapsed(step, now)].filter(Boolean).join(' · '));
    this.toHere.disabled = this.again.disabled = !abilities.run;
    setHidden(this.toHere, step.kind === 'params');
    setHidden(this.again, step.kind === 'params');
    this.drawFacts(step, shown.worker);
    this.drawItems(step, shown.index, now);
    this.drawDetail(shown.detail, step);
    this.drawCard(shown.card, step);
  }

  private drawFacts(step: StepView, worker: string): void {
    const key = JSON.stringify([step.note, step.detail, step.reads, step.writes, step.failure, step.count, step.cell, worker]);
    if (key === this.drawnFacts) {
      return;
    }
    this.drawnFacts = key;
    const rows: [string, string][] = [
      ['why', step.failure ? '' : step.note],
      ['items', step.count],
      ['options', step.detail],
      ['reads', step.reads.join(', ')],
      ['writes', step.writes.join(', ')],
      ['worker', worker]
    ];
    this.facts.replaceChildren(
      ...rows
        .filter(([, value]) => value)
        .flatMap(([name, value]) => [
          element('dt', { text: name }),
          element('dd', { class: name === 'reads' || name === 'writes' ? 'nbf-code' : '', text: value })
        ])
    );
    setHidden(this.failure, step.failure === null);
    this.failure.replaceChildren(...(step.failure ? drawFailure(step.failure) : []));
  }

  private drawItems(step: StepView, chosen: readonly number[], now: number): void {
    const alone = step.tasks.length <= 1;
    setHidden(this.items, alone);
    const key = alone ? '' : JSON.stringify([chosen, step.tasks.map(task => [task.state, task.note, task.item, task.index, elapsed(task, now)])]);
    if (key === this.drawnItems) {
      return;
    }
    this.drawnItems = key;
    const more = step.total - step.tasks.length;
    this.items.replaceChildren(
      ...step.tasks.map(task => this.item(task, place(task.index) === place(chosen), now)),
      ...(more > 0 ? [element('li', { class: 'nbf-dim', text: `and ${more} more` })] : [])
    );
  }

  private item(task: TaskItem, isChosen: boolean, now: number): HTMLElement {
    const name = task.turn === null ? place(task.index) : `turn ${task.turn}`;
    const words = [task.item, task.state, elapsed(task, now), task.note].filter(Boolean).join(' · ');
    const press = (): void => this.asked.item(task.index);
    return element(
      'li',
      {},
      element(
        'button',
        { type: 'button', class: 'nbf-item', 'aria-label': `Item ${name}: ${words}`, title: words, 'aria-current': isChosen ? 'true' : null, on: { click: press } },
        mark(MARKS[task.state] ?? ' ', task.state),
        element('span', { class: 'nbf-code', text: name }),
        element('span', { class: 'nbf-note', text: words })
      )
    );
  }

  private drawCard(card: CardMessage | null, step: StepView): void {
    const page = card?.page ?? '';
    setHidden(this.cardHead, !page);
    setHidden(this.card.root, !page);
    this.toCard.disabled = !step.total || step.state === 'pending' || step.state === 'queued';
    void this.card.show(page ? { title: card?.title ?? '', html: page, trusted: true, height: 120 } : null);
  }

  private drawDetail(detail: DetailMessage | null, step: StepView): void {
    const log = detail?.log ?? '';
    setHidden(this.log, !log);
    setHidden(this.logHead, !log);
    setHidden(this.artifacts, !detail?.artifacts.length);
    if (detail === this.drawnDetail) {
      return;
    }
    this.drawnDetail = detail;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 24;
    const item = detail?.index.length ? `Printed by item ${place(detail.index)}` : 'Printed';
    setText(this.logHead, detail?.truncated ? `${item} (the end of it)` : item);
    setText(this.log, log);
    if (atEnd && !SETTLED.has(step.state)) {
      this.log.scrollTop = this.log.scrollHeight;
    }
    this.artifacts.replaceChildren(
      element('caption', { text: 'Artifacts' }),
      element(
        'tbody',
        {},
        ...(detail?.artifacts ?? []).map(one =>
          element(
            'tr',
            { title: one.preview },
            element('th', { scope: 'row', class: 'nbf-code', text: one.name }),
            element('td', { text: [one.type, one.shape].filter(Boolean).join(' ') }),
            element('td', { class: 'nbf-number', text: one.size }),
            element('td', { class: 'nbf-code nbf-preview', text: one.preview })
          )
        )
      )
    );
  }
}

function drawFailure(failure: FailureView): HTMLElement[] {
  const head = failure.message ? `${failure.type}: ${failure.message}` : failure.type;
  const parts: HTMLElement[] = [element('p', { class: 'nbf-error', text: failure.line ? `${head} (line ${failure.line})` : head })];
  if (failure.fix) {
    parts.push(element('p', { class: 'nbf-fix', text: `fix: ${failure.fix}` }));
  }
  if (failure.traceback) {
    parts.push(
      element(
        'details',
        {},
        element('summary', { text: 'Traceback' }),
        element('pre', { class: 'nbf-log', tabindex: 0, text: failure.traceback })
      )
    );
  }
  return parts;
}
