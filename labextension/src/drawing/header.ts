/** What a form holds in; the `%%step` line that it stands for out, and its place in a cell: pure. */

/** The fields of the form: options in their order with what stands behind them, none behind one that is a flag. */
export interface Declared {
  name: string;
  options: readonly (readonly [option: string, text: string])[];
  /** Options that the form has no field for, as they stand on the line. */
  more: string;
  comment: string;
}

/** Options whose words are names in a list. */
const LISTS: ReadonlySet<string> = new Set(['after', 'join']);

/** Fields in; one header line out. */
export function headerOf({ name, options, more, comment }: Declared): string {
  const words = ['%%step', name.trim()];
  for (const [option, text] of options) {
    const value = LISTS.has(option) ? text.replace(/\s*,\s*/g, ',') : text;
    words.push(`--${option}`, value.trim());
  }
  words.push(more.trim(), comment);
  return words.filter(Boolean).join(' ');
}

/** Options of a form, and those that a line has already, in its order, in; those of the form in the line's order out. */
export function inOrderOf<T extends readonly [string, string]>(line: readonly string[], options: readonly T[]): T[] {
  const place = ([option]: T): number => (line.includes(option) ? line.indexOf(option) : line.length);
  return [...options].sort((one, other) => place(one) - place(other));
}

/** What no name may hold; the same as in `nbflow/flow/options.py`. */
// eslint-disable-next-line no-control-regex -- control characters are what it is about
const REFUSED = /[\x00-\x1f\x7f"'`\\/<>|*?#{}[\],;=]|\.\.|^-|^\.|\s/;

/** A name and those that are taken in; what is wrong with it, empty when nothing is, out. */
export function nameProblem(name: string, taken: readonly string[]): string {
  const word = name.trim();
  if (!word) {
    return 'a step needs a name';
  }
  if (REFUSED.test(word)) {
    return 'a name is one word of letters, digits, _, - and .';
  }
  return taken.includes(word) ? `there is a step named ${word} already` : '';
}

/** A cell's lines in; the place of its `%%step` line, below empty lines and comments alone, or -1, out. */
export function headerAt(lines: readonly string[]): number {
  for (const [at, line] of lines.entries()) {
    if (/^%%step(?![\w?])/.test(line)) {
      return at;
    }
    if (line.trim() && !line.trimStart().startsWith('#')) {
      break;
    }
  }
  return -1;
}

/** A cell's source and a header line in; the cell with the line instead of the one it has, or on top, out. */
export function withHeader(source: string, header: string): string {
  const lines = source.split('\n');
  const at = headerAt(lines);
  if (at >= 0) {
    return [...lines.slice(0, at), header, ...lines.slice(at + 1)].join('\n');
  }
  return `${header}\n${source.replace(/^(?:[ \t]*\n)+/, '')}`; // blank lines above the code go
}
