/** What a drawing may ask of the page that it stands in. */

import type { Wish } from './messages';
import type { Notice } from './state/reduce';

export interface Host {
  /** Send a command to the kernel; the id that its acknowledgement bears out. */
  send(wish: Wish): string;
  /** Show the cell with that id; false where the page cannot. */
  reveal(cell: string): boolean;
  /** Put a header line on top of a cell; a notice that says what was done, or what to do by hand, out. */
  declare(cell: string, header: string): Notice;
  /** Show a page with that title in a place of its own; false where there is none. */
  open(title: string, page: string): boolean;
  /** A Vega-Lite specification in; a picture of it as a data URI out; where the page can draw charts. */
  chart?(specification: object): Promise<string>;
  /** Load nbflow into the kernel, where the page can. */
  load?(): void;
}
