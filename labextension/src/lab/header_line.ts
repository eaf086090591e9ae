/** The words of a cell's header line in colour: what it declares, its name, its options. */

import { RangeSetBuilder } from '@codemirror/state';
import type { DecorationSet, EditorView, ViewUpdate } from '@codemirror/view';
import { Decoration, ViewPlugin } from '@codemirror/view';

import type { HeaderWord } from '../drawing/header_words';
import { headerWords } from '../drawing/header_words';

/** Lines that are looked at for the header: above it there are comments alone. */
const NEAR = 20;
const MARKS = Object.fromEntries(
  (['magic', 'name', 'option', 'value', 'comment'] as const).map(kind => [kind, Decoration.mark({ class: `nbf-header-${kind}` })])
) as Record<HeaderWord['kind'], Decoration>;

function decorated(view: EditorView): DecorationSet {
  const builder = new RangeSetBuilder<Decoration>();
  const { doc } = view.state;
  for (let number = 1; number <= Math.min(NEAR, doc.lines); number += 1) {
    const line = doc.line(number);
    const words = headerWords(line.text);
    words.forEach(({ kind, from, to }) => builder.add(line.from + from, line.from + to, MARKS[kind]));
    if (words.length || (line.text.trim() && !line.text.trimStart().startsWith('#'))) {
      break;
    }
  }
  return builder.finish();
}

class HeaderLine {
  decorations: DecorationSet;

  constructor(view: EditorView) {
    this.decorations = decorated(view);
  }

  update(update: ViewUpdate): void {
    if (update.docChanged) {
      this.decorations = decorated(update.view);
    }
  }
}

/** An extension of CodeMirror's editors. */
export const headerLine = ViewPlugin.fromClass(HeaderLine, { decorations: plugin => plugin.decorations });
