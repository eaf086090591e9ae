/** Views of which one is seen: their names in a row, arrows between them. */

import { element, setAttribute, setHidden } from './elements';

export class Tabs<Name extends string> {
  readonly list: HTMLElement;
  readonly panels: HTMLElement[];
  private readonly names: Name[];
  private readonly buttons = new Map<Name, HTMLButtonElement>();
  private readonly places = new Map<Name, HTMLElement>();
  current: Name;

  /** What stands in each view, and what is done when a person turns to one. */
  constructor(
    content: Record<Name, HTMLElement[]>,
    private readonly turned: (name: Name) => void
  ) {
    this.names = Object.keys(content) as Name[];
    this.current = this.names[0] as Name;
    const id = `nbf-tab-${Math.random().toString(36).slice(2, 8)}`;
    for (const name of this.names) {
      const own = element('button', {
        type: 'button', class: 'nbf-tab', role: 'tab', id: `${id}-${name}`, 'aria-controls': `${id}-${name}-panel`, text: name,
        on: { click: () => turned(name) }
      });
      const panel = element('div', {
        class: `nbf-tabpanel nbf-${name.toLowerCase()}-panel`, role: 'tabpanel', id: `${own.id}-panel`, 'aria-labelledby': own.id
      }, ...content[name]);
      this.buttons.set(name, own);
      this.places.set(name, panel);
    }
    this.panels = [...this.places.values()];
    this.list = element('div', {
      class: 'nbf-tabs', role: 'tablist', 'aria-label': 'Views', on: { keydown: event => this.walk(event as KeyboardEvent) }
    }, ...this.buttons.values());
    this.show(this.current);
  }

  show(current: Name): void {
    this.current = current;
    for (const [name, own] of this.buttons) {
      setAttribute(own, 'aria-selected', String(name === current));
      setAttribute(own, 'tabindex', name === current ? '0' : '-1');
      setHidden(this.places.get(name) as HTMLElement, name !== current);
    }
  }

  private walk(event: KeyboardEvent): void {
    const count = this.names.length;
    const at = this.names.indexOf(this.current);
    const steps: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1 + count, Home: 0, End: count - 1 };
    const next = steps[event.key];
    if (next === undefined) {
      return;
    }
    const name = this.names[next % count] as Name;
    this.turned(name);
    this.buttons.get(name)?.focus();
    event.preventDefault();
    event.stopPropagation();
  }
}
