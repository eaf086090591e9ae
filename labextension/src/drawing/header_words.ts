/** A line in; the words of a cell's header and what each is, nothing where it is none, out: pure. */

export interface HeaderWord {
  kind: 'magic' | 'name' | 'option' | 'value' | 'comment';
  from: number;
  to: number;
}

const HEADER = /^(#\s*)?(%%(step|params|config|setup))(?![\w?])/;
/** A text in quotes, a word, or what stands between them. */
const TOKEN = /"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\S+/g;

export function headerWords(line: string): HeaderWord[] {
  const head = HEADER.exec(line);
  if (!head) {
    return [];
  }
  const end = head[0].length;
  const words: HeaderWord[] = [{ kind: 'magic', from: (head[1] ?? '').length, to: end }];
  let named = head[3] !== 'step';
  let depth = 0;
  for (const match of line.slice(end).matchAll(TOKEN)) {
    const [text] = match;
    const from = end + match.index;
    if (text.startsWith('#')) {
      words.push({ kind: 'comment', from, to: line.length });
      break;
    }
    const isOption = depth <= 0 && /^--[a-z]/.test(text);
    const kind = isOption ? 'option' : named ? 'value' : 'name';
    named = true;
    words.push({ kind, from, to: from + text.length });
    depth += (text.match(/[([{]/g)?.length ?? 0) - (text.match(/[)\]}]/g)?.length ?? 0);
  }
  return words;
}
