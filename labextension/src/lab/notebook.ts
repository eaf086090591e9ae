/** What the panel needs of a notebook on the page: its code cells, a cell by its id, a header line on top of it. */

import type { Cell } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';

import { withHeader } from '../drawing/header';
import type { CellText } from '../messages';
import type { Notice } from '../state/reduce';

/** A notebook in; its code cells in order out. */
export function cellsOf(panel: NotebookPanel): CellText[] {
  const found: CellText[] = [];
  for (const cell of panel.content.model?.cells ?? []) {
    if (cell.type === 'code') {
      const tags = cell.getMetadata('tags') as unknown;
      found.push({
        id: cell.id,
        source: cell.sharedModel.getSource(),
        tags: Array.isArray(tags) ? tags.filter((tag): tag is string => typeof tag === 'string') : []
      });
    }
  }
  return found;
}

function find(panel: NotebookPanel, id: string): { cell: Cell; at: number } | null {
  const at = panel.content.widgets.findIndex(widget => widget.model.id === id);
  const cell = panel.content.widgets[at];
  return cell ? { cell, at } : null;
}

/**
 * A notebook and a cell's id in; the cell is made the active one and scrolled to, and gets the keyboard where `focus`
 * says so; whether it is there out.
 */
export function reveal(panel: NotebookPanel, id: string, focus = true): boolean {
  const found = find(panel, id);
  if (!found) {
    return false;
  }
  panel.content.deselectAll();
  panel.content.activeCellIndex = found.at;
  if (focus) {
    panel.content.mode = 'command';
  }
  void panel.content.scrollToItem(found.at, 'smart').catch(() => undefined);
  if (focus) {
    panel.activate();
  }
  return true;
}

/** A notebook, a cell's id and a header line in; the cell begins with it; what a person should know out. */
export function declare(panel: NotebookPanel, id: string, header: string): Notice {
  const found = find(panel, id);
  if (!found) {
    return { level: 'error', text: 'The cell is not in the notebook any more.', fix: '' };
  }
  if (found.cell.model.getMetadata('editable') === false) {
    return { level: 'error', text: 'The cell is read-only.', fix: 'make it editable in its properties' };
  }
  const shared = found.cell.model.sharedModel;
  shared.transact(() => shared.setSource(withHeader(shared.getSource(), header)));
  reveal(panel, id);
  return { level: 'note', text: `The cell begins with ${header} now: run it, or the flow.`, fix: '' };
}
