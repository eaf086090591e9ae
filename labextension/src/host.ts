/** What a drawing may ask of the page that it stands in. */

import type { Wish } from './messages';
import type { Notice } from './state/reduce';

export interface Host {
  /** Send a command to the kernel; the id that its acknowledgement bears out. */
  send(wish: Wish): string;
  /** Show the cell with that id, and give it the keyboard where `focus` says so; false where the page cannot. */
  reveal(cell: string, focus: boolean): boolean;
  /** Put a header line on top of a cell; a notice that says what was done, or what to do by hand, out. */
  declare(cell: string, header: string): Notice;
  /** Show a page with that title in a place of its own; false where there is none. */
  open(title: string, page: string): boolean;
  /** A Vega-Lite specification in; a picture of it as a data URI out; where the page can draw charts. */
  chart?(specification: object): Promise<string>;
  /** Show the graph and the time line in a place of their own, where there is one. */
  spread?(): void;
  /** Load nbflow into the kernel, where the page can. */
  load?(): void;
}
