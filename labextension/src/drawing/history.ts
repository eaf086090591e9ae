/** The flow's runs, newest first; choosing one shows it in the panel. */

import { element, mark, setHidden } from './elements';
import type { Chart } from './frame';
import { CardFrame } from './frame';
import type { PageMessage, RunRow } from '../messages';
import { STATUS_MARKS, age, duration } from './words';

export class History {
  readonly root: HTMLElement;
  private readonly list = element('ul', { class: 'nbf-runs', 'aria-label': 'Runs' });
  private readonly empty = element('p', { class: 'nbf-empty' });
  private drawn = '';

  private readonly page: CardFrame;

  constructor(
    private readonly look: (run: string) => void,
    chart: Chart | undefined
  ) {
    this.page = new CardFrame(chart);
    this.root = element('div', { class: 'nbf-history' }, this.empty, this.list, this.page.root);
  }

  dispose(): void {
    this.page.dispose();
  }

  /** A page about runs in, where it has no other place; shown below them. */
  show(page: PageMessage): void {
    void this.page.show({ title: page.title, html: page.page, trusted: true, height: 400 });
    this.page.root.scrollIntoView({ block: 'nearest' });
  }

  /** Runs, null while they are not known, the one shown and the kernel's time in; drawn. */
  update(runs: readonly RunRow[] | null, shown: string | null, now: number): void {
    this.empty.textContent = runs === null ? 'Asking the kernel …' : 'This flow has not been run yet.';
    setHidden(this.empty, runs !== null && runs.length > 0);
    const key = JSON.stringify([runs, shown, Math.floor(now / 30)]);
    if (key === this.drawn) {
      return;
    }
    this.drawn = key;
    this.list.replaceChildren(...(runs ?? []).map(row => this.row(row, row.run === shown, now)));
  }

  private row(row: RunRow, shown: boolean, now: number): HTMLElement {
    const facts = [row.status, duration(row.elapsed), age(now - row.started_at)].filter(Boolean).join(' · ');
    const rest = [row.by_hand ? 'cells run by hand' : '', row.tasks, ...row.tags.map(tag => `#${tag}`)];
    return element(
      'li',
      {},
      element(
        'button',
        {
          type: 'button', class: 'nbf-run', 'data-run': row.run, 'data-status': row.status,
          'aria-current': shown ? 'true' : null, title: row.note || null,
          on: { click: () => this.look(row.run) }
        },
        mark(STATUS_MARKS[row.status] ?? ' ', row.status),
        element('span', { class: 'nbf-line' }, element('span', { class: 'nbf-label nbf-code', text: row.run }),
          element('span', { class: 'nbf-time', text: facts })),
        element('span', { class: 'nbf-line nbf-second', text: rest.filter(Boolean).join(' · ') })
      )
    );
  }
}
