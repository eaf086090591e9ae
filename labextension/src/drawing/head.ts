/** The top of the panel: whose flow it is, how its run stands, what runs just now, and which earlier run is looked at. */

import { button, element, mark, setAttribute, setHidden, setText } from './elements';
import type { SnapshotMessage, StepView } from '../messages';
import type { Notice, State } from '../state/reduce';
import { MARKS, STATUS_MARKS, age, duration, many, share, tally, ticking } from './words';

/** Steps that run which are named; the others are counted. */
const NAMED = 3;

interface Asked {
  select(step: string): void;
  present(): void;
}

export class Head {
  /** What stands above the buttons, and what below. */
  readonly above: HTMLElement[];
  readonly below: HTMLElement[];
  private readonly flow = element('h2', { class: 'nbf-flow' });
  private readonly status = element('span', { class: 'nbf-status' });
  private readonly order = element('p', { class: 'nbf-order' });
  private readonly past = element('div', { class: 'nbf-past' });
  private readonly notice = element('div', { class: 'nbf-notice', role: 'status' });
  private readonly bar = element('div', { class: 'nbf-progress', role: 'progressbar', 'aria-label': 'Tasks that have ended', 'aria-valuemin': 0, 'aria-valuemax': 100 }, element('div'));
  private readonly now = element('div', { class: 'nbf-now' });
  private readonly tally = element('p', { class: 'nbf-tally' });
  private running = '';

  constructor(private readonly asked: Asked) {
    this.above = [element('header', { class: 'nbf-head' }, this.flow, this.status), this.order];
    this.below = [this.bar, this.now, this.tally, this.past, this.notice];
  }

  update(snapshot: SnapshotMessage | null, state: State, now: number): void {
    const run = snapshot?.run ?? null;
    setText(this.flow, snapshot?.flow || 'nbflow');
    setAttribute(this.flow, 'title', snapshot?.flow || null);
    setHidden(this.order, !snapshot?.order);
    setText(this.order, snapshot?.order ? `order: ${snapshot.order}` : '');
    const total = run?.finished_at ? run.finished_at - run.started_at : null;
    const words = !run || run.by_hand ? '' : run.status === 'running' ? `running for ${ticking(now - run.started_at)}` : [run.status, duration(total)].filter(Boolean).join(' in ');
    setHidden(this.status, !words);
    this.status.replaceChildren(...(words && run ? [mark(STATUS_MARKS[run.status] ?? '', run.status), words] : []));
    setHidden(this.bar, !run);
    setHidden(this.tally, !snapshot?.steps.length);
    if (snapshot && run) {
      const part = Math.round(100 * share(snapshot));
      setAttribute(this.bar, 'aria-valuenow', String(part));
      setAttribute(this.bar, 'data-status', run.status);
      (this.bar.firstElementChild as HTMLElement).style.width = `${part}%`;
    }
    const verified = snapshot?.verified ? `, verified ${age(now - snapshot.verified)}` : '';
    setText(this.tally, snapshot ? `${many(snapshot.steps.length, 'step')}: ${tally(snapshot.steps)}${verified}` : '');
    this.drawRunning(snapshot?.steps.filter(step => step.state === 'running') ?? []);
    this.drawPast(state, now);
    this.drawNotice(state.notice);
  }

  /** What runs just now, each a way to its row. */
  private drawRunning(steps: readonly StepView[]): void {
    const key = JSON.stringify(steps.map(step => [step.name, step.label, step.count]));
    if (key === this.running) {
      return;
    }
    this.running = key;
    setHidden(this.now, steps.length === 0);
    const more = steps.length - NAMED;
    this.now.replaceChildren(
      ...steps.slice(0, NAMED).map(step =>
        element(
          'button',
          { type: 'button', class: 'nbf-button nbf-quiet nbf-running', title: `${step.label} is running: show it`, on: { click: () => this.asked.select(step.name) } },
          mark(MARKS['running'] ?? '', 'running'), [step.label, step.count].filter(Boolean).join(' ')
        )
      ),
      ...(more > 0 ? [element('span', { class: 'nbf-dim', text: `and ${more} more` })] : [])
    );
  }

  private drawPast(state: State, now: number): void {
    const past = state.past?.run ?? null;
    setHidden(this.past, past === null);
    if (past && this.past.dataset['run'] !== past.run) {
      this.past.dataset['run'] = past.run;
      this.past.replaceChildren(
        element('span', { text: `Run ${past.run}, ${age(now - past.started_at)}` }),
        button('Back to the present', () => this.asked.present())
      );
    } else if (!past) {
      delete this.past.dataset['run'];
    }
  }

  private drawNotice(notice: Notice | null): void {
    setHidden(this.notice, notice === null);
    if (notice) {
      setAttribute(this.notice, 'data-level', notice.level);
      setText(this.notice, notice.fix ? `${notice.text} (${notice.fix})` : notice.text);
    }
  }
}
