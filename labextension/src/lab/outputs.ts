/** What steps of a run show, under their own cells: as if each cell had been run there. */

import type { ICodeCellModel } from '@jupyterlab/cells';
import type { NotebookPanel } from '@jupyterlab/notebook';

import type { CellOutputs, OutputsMessage } from '../messages';

/** A display's id in; the places of its outputs in the cell out. */
type Named = Map<string, number[]>;
type Output = Record<string, unknown>;
type Saved = Parameters<ICodeCellModel['outputs']['add']>[0];

/** The code cells of one notebook, as the kernel's runs change what they show. */
export class CellsOutputs {
  private readonly named = new WeakMap<ICodeCellModel, Named>();

  constructor(private readonly panel: NotebookPanel) {}

  /** What the kernel tells in; shown. Cells that are gone, or are no code cells any more, are left out. */
  place(message: OutputsMessage): void {
    const wanted = new Map(message.cells.map(cell => [cell.cell, cell]));
    for (const model of this.panel.content.model?.cells ?? []) {
      const told = model.type === 'code' ? wanted.get(model.id) : undefined;
      if (told) {
        this.show(model as ICodeCellModel, told);
      }
    }
  }

  private show(model: ICodeCellModel, told: CellOutputs): void {
    if (told.whole) {
      this.named.set(model, new Map());
      if (told.outputs.length === model.outputs.length && told.outputs.every((output, at) => same(output, model.outputs.get(at).toJSON()))) {
        told.outputs.forEach((output, at) => this.name(model, output, at));
        return;
      }
      model.outputs.clear(told.outputs.length > 0); // those that follow take the place at once: nothing flickers
    }
    told.outputs.forEach(output => this.add(model, output));
  }

  private add(model: ICodeCellModel, output: Output): void {
    if (output['output_type'] === 'update_display_data') {
      for (const at of this.named.get(model)?.get(identityOf(output)) ?? []) {
        model.outputs.set(at, saved({ ...output, output_type: 'display_data' }));
      }
      return;
    }
    this.name(model, output, model.outputs.add(saved(output)) - 1);
  }

  private name(model: ICodeCellModel, output: Output, at: number): void {
    const identity = identityOf(output);
    const named = this.named.get(model) ?? new Map<string, number[]>();
    if (identity) {
      named.set(identity, [...(named.get(identity) ?? []), at]);
    }
    this.named.set(model, named);
  }
}

function identityOf(output: Output): string {
  const { display_id: identity } = (output['transient'] ?? {}) as { display_id?: string };
  return identity ?? '';
}

/** An output in; as a notebook keeps it out. */
function saved(output: Output): Saved {
  return Object.fromEntries(Object.entries(output).filter(([name]) => name !== 'transient')) as unknown as Saved;
}

/** Whether a cell shows this output already; the number of its execution does not count. */
function same(output: Output, shown: Saved): boolean {
  return plain(saved(output)) === plain(shown);
}

/** An output in; a text that is the same for outputs that look the same out: lines joined, keys in order. */
function plain(output: Saved): string {
  const ordered = (_: string, value: unknown): unknown => {
    if (Array.isArray(value) && value.every(line => typeof line === 'string')) {
      return value.join('');
    }
    return value && typeof value === 'object' && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1))) : value;
  };
  return JSON.stringify({ ...output, execution_count: null }, ordered);
}
