/** DOM and SVG elements in one line each; text goes in as text, never as markup. */

type Child = Node | string | null;

type Listeners = Record<string, (event: Event) => void>;

export interface Properties {
  class?: string;
  title?: string | null;
  text?: string;
  on?: Listeners;
  [attribute: string]: string | number | boolean | null | undefined | Listeners;
}

/** A tag, its attributes, listeners and children in; the element out. `null` and `false` attributes are left out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  fill(made, properties, children);
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';

/** The same for SVG. */
export function drawn<K extends keyof SVGElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS(SVG, tag);
  fill(made, properties, children);
  return made;
}

function fill(made: Element, properties: Properties, children: Child[]): void {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'object' && value !== null) {
      for (const [event, listener] of Object.entries(value)) {
        made.addEventListener(event, listener);
      }
    } else if (name === 'text') {
      made.textContent = String(value);
    } else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? '' : String(value));
    }
  }
  made.append(...children.filter((child): child is Node | string => child !== null));
}

/** Write an element's text if it is another one: an unchanged node costs no layout and no announcement. */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) {
    target.textContent = text;
  }
}

/** Write an attribute if it is another one; null takes it away. */
export function setAttribute(target: Element, name: string, value: string | null): void {
  if (value === null) {
    target.removeAttribute(name);
  } else if (target.getAttribute(name) !== value) {
    target.setAttribute(name, value);
  }
}

/** Put an element in or out of sight, for eyes and screen readers alike. */
export function setHidden(target: HTMLElement, hidden: boolean): void {
  if (target.hidden !== hidden) {
    target.hidden = hidden;
  }
}

/** A mark and its words: the mark is for eyes only. */
export function mark(sign: string, state: string): HTMLElement {
  return element('span', { class: `nbf-mark nbf-is-${state}`, 'aria-hidden': 'true', text: sign });
}

/** A button with a text; `name` is what screen readers say when the text alone is not enough. */
export function button(
  text: string,
  press: () => void,
  properties: Properties = {}
): HTMLButtonElement {
  return element('button', { type: 'button', class: 'nbf-button', ...properties, text, on: { click: press } });
}
