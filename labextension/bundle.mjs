/**
 * node bundle.mjs FOLDER: the widget as one module and one style sheet in FOLDER.
 * node bundle.mjs --test: the tests of the pure files, for node, in build/frontend/.
 */
import { build } from 'esbuild';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2];

if (target === '--test') {
  const tests = readdirSync(join(here, 'tests')).filter(name => name.endsWith('.test.ts'));
  await build({
    entryPoints: tests.map(name => join(here, 'tests', name)),
    outdir: join(here, '..', 'build', 'frontend'),
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'warning'
  });
} else {
  await build({
    entryPoints: { widget: join(here, 'src', 'widget.ts'), panel: join(here, 'style', 'panel.css') },
    outdir: target,
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2020',
    legalComments: 'linked',
    logLevel: 'warning'
  });
}
