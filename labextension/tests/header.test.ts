import assert from 'node:assert/strict';
import { test } from 'node:test';

import { headerOf, inOrderOf, nameProblem, withHeader } from '../src/drawing/header';
import { headerWords } from '../src/drawing/header_words';

const LINE = { name: ' fit ', options: [['foreach', 'd in [1, 2]'], ['after', 'a , b'], ['card', '']], more: '--workers 2', comment: '# slow' } as const;

test('fields make a line', () => {
  assert.equal(headerOf(LINE), '%%step fit --foreach d in [1, 2] --after a,b --card --workers 2 # slow');
  assert.equal(headerOf({ name: 'fit', options: [], more: '', comment: '' }), '%%step fit');
});

test('options stay in the order in which they stood', () => {
  const options = [['foreach', 'x'], ['retry', '2'], ['card', '']] as const;
  assert.deepEqual(inOrderOf(['card', 'retry'], options).map(([name]) => name), ['card', 'retry', 'foreach']);
});

test('a line takes the place of the one that is there, or the top of the cell', () => {
  assert.equal(withHeader('\n\nx = 1', '%%step a'), '%%step a\nx = 1');
  assert.equal(withHeader('# first\n%%step old --retry 2\nx = 1', '%%step new'), '# first\n%%step new\nx = 1');
  assert.equal(withHeader('x = 1\n%%step below', '%%step a'), '%%step a\nx = 1\n%%step below');
  assert.equal(withHeader('%%steps\n', '%%step a'), '%%step a\n%%steps\n');
});

test('names that no step may bear, or that one bears, are named', () => {
  for (const name of ['', 'two words', '-x', '.x', 'a/b', 'a..b', 'taken']) {
    assert.notEqual(nameProblem(name, ['taken']), '');
  }
  for (const name of ['load', 'größe', 'a.b', 'a-b_2']) {
    assert.equal(nameProblem(name, ['taken']), '');
  }
});

const WORDS: [string, string][] = [
  ['%%step fit --foreach d in [a, --b] --card # why', 'magic:%%step name:fit option:--foreach value:d value:in value:[a, value:--b] option:--card comment:# why'],
  ['%%step a --pip "x # 1" --once', 'magic:%%step name:a option:--pip value:"x # 1" option:--once'],
  ['# %%step a', 'magic:%%step name:a'],
  ['%%params', 'magic:%%params'],
  ['%%config settings.toml', 'magic:%%config value:settings.toml'],
  ['%%steps a', ''],
  ['x = "%%step a"', '']
];

for (const [line, words] of WORDS) {
  test(`the words of ${line}`, () => {
    assert.equal(headerWords(line).map(({ kind, from, to }) => `${kind}:${line.slice(from, to)}`).join(' '), words);
  });
}
