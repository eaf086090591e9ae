/**
 * What a widget inside a notebook asks of the page around it: to show a cell or a card, to write a header line, to
 * interrupt.
 *
 * The widget sends an event up the page; nbflow's extension of JupyterLab and Notebook 7 takes it. Elsewhere nobody
 * does, and the widget says what to do by hand.
 */

import type { Notice } from './state/reduce';

export const BRIDGE = 'nbflow-bridge';

export type Request =
  | { kind: 'reveal'; cell: string; focus: boolean }
  | { kind: 'declare'; cell: string; header: string; notice?: Notice }
  | { kind: 'open'; title: string; page: string }
  | { kind: 'interrupt' };

/** An element and a request in; the request as it was answered, or null when nobody took it, out. */
export function ask<R extends Request>(from: Element, request: R): R | null {
  const event = new CustomEvent<Request>(BRIDGE, { bubbles: true, composed: true, cancelable: true, detail: request });
  // whoever takes it prevents the default
  return from.dispatchEvent(event) ? null : request;
}
