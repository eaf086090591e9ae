/** What a person should know about cells, above the list of steps. */

import { button, element, setHidden } from './elements';
import type { Host } from '../host';
import type { FindingView } from '../messages';
import { many } from './words';

export class Findings {
  readonly root = element('details', { class: 'nbf-findings' });
  private drawn = '';

  constructor(private readonly host: Host) {}

  update(findings: readonly FindingView[]): void {
    const key = JSON.stringify(findings);
    setHidden(this.root, findings.length === 0);
    if (key === this.drawn) {
      return;
    }
    this.drawn = key;
    const errors = findings.filter(finding => finding.level === 'error').length;
    const others = findings.length - errors;
    const count = [errors ? many(errors, 'error') : '', others ? many(others, 'finding') : ''];
    this.root.open = errors > 0;
    this.root.replaceChildren(
      element('summary', { class: errors ? 'nbf-error' : '', text: count.filter(Boolean).join(', ') }),
      element('ul', {}, ...findings.map(finding => this.finding(finding)))
    );
  }

  private finding(finding: FindingView): HTMLElement {
    const words = element('span', {}, element('b', { text: `${finding.level}: ` }), finding.message, finding.fix ? ` (${finding.fix})` : '');
    const cell = finding.cell;
    return element('li', { 'data-level': finding.level }, words, cell ? button('Go to cell', () => this.host.reveal(cell, true), { class: 'nbf-button nbf-quiet' }) : null);
  }
}
