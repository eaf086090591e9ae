/** What a form holds in; the `%%step` line that it stands for out: pure. */

/** The fields of the form that declares a step; empty text is a field left alone. */
export interface Declared {
  name: string;
  foreach: string;
  after: string;
  retry: string;
  timeout: string;
  on: string;
  noCache: boolean;
  more: string;
}

/** Fields in; one header line out. */
export function headerOf(fields: Declared): string {
  const words = ['%%step', fields.name.trim()];
  const option = (name: string, value: string): void => {
    const text = value.trim();
    if (text) {
      words.push(`--${name}`, text);
    }
  };
  option('foreach', fields.foreach);
  option('after', fields.after.replace(/\s*,\s*/g, ','));
  option('retry', fields.retry);
  option('timeout', fields.timeout);
  option('on', fields.on);
  if (fields.noCache) {
    words.push('--no-cache');
  }
  if (fields.more.trim()) {
    words.push(fields.more.trim());
  }
  return words.join(' ');
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

/** A cell's source and a header line in; the cell with the header on top out. Blank lines above the code go. */
export function withHeader(source: string, header: string): string {
  return `${header}\n${source.replace(/^(?:[ \t]*\n)+/, '')}`;
}
