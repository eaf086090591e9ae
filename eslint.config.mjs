import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['labextension/lib/**', '**/node_modules/**', 'nbflow/**', 'build/**', '.venv/**', '.yarn/**'] },
  js.configs.recommended,
  {
    files: ['labextension/src/**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { project: 'labextension/tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/explicit-function-return-type': ['error', { allowExpressions: true }],
      // numbers in template texts are what a panel is made of
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': 'error',
      // Lumino's signals take a method and its owner
      '@typescript-eslint/unbound-method': 'off',
      'max-lines': ['error', 500],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
      eqeqeq: 'error'
    }
  },
  {
    // what draws, and what is drawn, stand in VS Code and Notebook 7 too: nothing of JupyterLab is there
    files: ['labextension/src/drawing/**/*.ts', 'labextension/src/state/**/*.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['@jupyterlab/*', '@lumino/*', '**/lab/*'] }] }
  },
  { files: ['labextension/tests/**/*.ts'], extends: [...tseslint.configs.recommended] },
  { files: ['**/*.mjs'], languageOptions: { globals: { process: 'readonly', console: 'readonly', window: 'readonly' } } }
);
