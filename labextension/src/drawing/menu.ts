/** A button that opens a menu: arrows walk, letters and Enter choose, Escape and a click elsewhere close. */

import { element, setAttribute, setHidden } from './elements';

export interface Item {
  label: string;
  choose(): void;
}

export class Menu {
  readonly root: HTMLElement;
  readonly button: HTMLButtonElement;
  private readonly list: HTMLElement;
  private items: readonly Item[] = [];
  private readonly outside = (event: Event): void => {
    if (!this.root.contains(event.target as Node)) {
      this.close();
    }
  };

  /** The button's text, what is done when it opens, and what stands in a menu without items. */
  constructor(
    text: string,
    private readonly opens: () => void,
    private readonly none: string
  ) {
    this.button = element('button', {
      type: 'button', class: 'nbf-button nbf-opener', 'aria-haspopup': 'menu', 'aria-expanded': 'false', text, on: { click: () => this.toggle() }
    });
    this.list = element('div', { class: 'nbf-menu', role: 'menu', 'aria-label': text });
    this.list.hidden = true;
    this.root = element('div', { class: 'nbf-menu-place', on: { keydown: event => this.pressed(event as KeyboardEvent) } }, this.button, this.list);
  }

  /** What can be chosen now in; drawn where it differs. */
  offer(items: readonly Item[]): void {
    const same = items.length === this.items.length && items.every((item, at) => item.label === this.items[at]?.label);
    this.items = items;
    if (same && this.list.childElementCount) {
      return;
    }
    const drawn = items.map((item, at) =>
      element('button', { type: 'button', class: 'nbf-menu-item', role: 'menuitem', tabindex: -1, text: item.label, on: { click: () => this.choose(at) } })
    );
    const wasInside = this.list.contains(document.activeElement);
    this.list.replaceChildren(...(drawn.length ? drawn : [element('p', { class: 'nbf-dim', role: 'menuitem', 'aria-disabled': 'true', text: this.none })]));
    if (this.isOpen && (wasInside || document.activeElement === this.button)) {
      drawn[0]?.focus();
    }
  }

  open(): void {
    if (this.isOpen || this.button.disabled) {
      return;
    }
    this.opens();
    setHidden(this.list, false);
    setAttribute(this.button, 'aria-expanded', 'true');
    document.addEventListener('pointerdown', this.outside);
    this.place();
    // a palette that was asked for it gives the keyboard back first
    window.setTimeout(() => (this.list.querySelector<HTMLElement>('button') ?? this.button).focus());
  }

  close(): void {
    setHidden(this.list, true);
    setAttribute(this.button, 'aria-expanded', 'false');
    document.removeEventListener('pointerdown', this.outside);
  }

  private get isOpen(): boolean {
    return !this.list.hidden;
  }

  private toggle(): void {
    if (this.isOpen) {
      this.close();
    } else {
      this.open();
    }
  }

  /** Below its button, but within the panel. */
  private place(): void {
    const room = this.root.closest('.nbf-panel')?.getBoundingClientRect();
    const here = this.root.getBoundingClientRect();
    if (room) {
      this.list.style.maxWidth = `${room.width - 16}px`;
      const beyond = here.left + this.list.offsetWidth - (room.right - 8);
      this.list.style.left = `${Math.min(0, -beyond)}px`;
    }
  }

  private choose(at: number): void {
    this.close();
    this.button.focus();
    this.items[at]?.choose();
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'ArrowDown' && !this.isOpen) {
      this.open();
    } else if (this.isOpen) {
      const drawn = [...this.list.querySelectorAll<HTMLElement>('button')];
      const at = drawn.indexOf(document.activeElement as HTMLElement);
      const places: Record<string, number> = {
        ArrowDown: at + 1, ArrowUp: at - 1 + (at < 0 ? 1 : drawn.length), Home: 0, End: drawn.length - 1
      };
      const next = places[event.key];
      if (event.key === 'Escape') {
        this.close();
        this.button.focus();
      } else if (event.key === 'Tab') {
        this.close();
        return;
      } else if (next !== undefined && drawn.length) {
        drawn[next % drawn.length]?.focus();
      } else {
        return;
      }
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
