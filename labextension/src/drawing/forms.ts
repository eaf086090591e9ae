/** The two forms: parameters of a run, and a plain cell that becomes a step. */

import { button, element, setHidden, setText } from './elements';
import { headerOf, nameProblem } from './header';
import type { Declared } from './header';
import type { Host } from '../host';
import { RUN } from '../messages';
import type { CellView, ParameterView, SnapshotMessage } from '../messages';
import type { Abilities, Notice } from '../state/reduce';

let made = 0;

/** A label above its field, joined for screen readers; what is said below it describes it. */
function field(label: string, input: HTMLInputElement | HTMLSelectElement, hint = ''): HTMLElement {
  made += 1;
  input.id = `nbf-field-${made}`;
  const below = element('span', { class: 'nbf-hint', id: `${input.id}-hint`, text: hint });
  input.setAttribute('aria-describedby', below.id);
  return element('div', { class: 'nbf-field' }, element('label', { for: input.id, text: label }), input, below);
}

// ---------------------------------------------------------------- parameters

interface ParameterField {
  parameter: ParameterView;
  input: HTMLInputElement;
  root: HTMLElement;
}

/** A field for each parameter; only what differs from the notebook's own value is sent. */
export class ParameterForm {
  readonly root: HTMLElement;
  private readonly fields = element('div', { class: 'nbf-fields' });
  private readonly empty = element('p', {
    class: 'nbf-empty', text: 'This notebook has no parameters. A cell that begins with %%params declares them.'
  });
  private readonly run: HTMLButtonElement;
  private readonly reset: HTMLButtonElement;
  private made: ParameterField[] = [];
  private structure = '';

  constructor(private readonly host: Host) {
    this.run = button('Run with these values', () => this.submit(), { class: 'nbf-button nbf-main', type: 'submit' });
    this.reset = button('Reset', () => this.clear());
    this.root = element(
      'form',
      { class: 'nbf-form', 'aria-label': 'Parameters', on: { submit: event => event.preventDefault() } },
      this.empty,
      this.fields,
      element('div', { class: 'nbf-actions' }, this.run, this.reset)
    );
  }

  /** A snapshot and what can be done in; drawn. What a person has typed stays. */
  update(snapshot: SnapshotMessage, abilities: Abilities): void {
    const { parameters } = snapshot;
    const structure = JSON.stringify(parameters.map(({ name, annotation, default: value, help }) => [name, annotation, value, help]));
    if (structure !== this.structure) {
      const typed = this.given();
      this.structure = structure;
      this.made = parameters.map(parameter => this.make(parameter, typed[parameter.name]));
      this.fields.replaceChildren(...this.made.map(one => one.root));
    }
    for (const { root, parameter } of this.made) {
      const value = parameters.find(other => other.name === parameter.name)?.value ?? '';
      setText(root.querySelector('.nbf-hint') as Element, hintOf(parameter, value));
    }
    setHidden(this.empty, parameters.length > 0);
    setHidden(this.run, parameters.length === 0);
    setHidden(this.reset, parameters.length === 0);
    this.run.disabled = !abilities.run;
    this.run.title = abilities.why;
  }

  private make(parameter: ParameterView, typed: string | undefined): ParameterField {
    const kind = parameter.annotation;
    const input = element('input', { name: parameter.name, autocomplete: 'off', spellcheck: 'false' });
    if (kind === 'bool') {
      input.type = 'checkbox';
      input.checked = (typed ?? parameter.default).toLowerCase() === 'true';
    } else {
      input.type = kind === 'int' || kind === 'float' ? 'number' : 'text';
      input.step = kind === 'int' ? '1' : 'any';
      input.placeholder = parameter.default;
      input.value = typed ?? '';
    }
    const root = field(parameter.name + (kind ? `: ${kind}` : ''), input, '');
    root.classList.toggle('nbf-check', kind === 'bool');
    return { parameter, input, root };
  }

  /** What a person has set, as text by name. */
  private given(): Record<string, string> {
    const found: Record<string, string> = {};
    for (const { parameter, input } of this.made) {
      if (input.type === 'checkbox') {
        const value = String(input.checked);
        if (value !== parameter.default.toLowerCase()) {
          found[parameter.name] = value;
        }
      } else if (input.value.trim() !== '') {
        found[parameter.name] = input.value;
      }
    }
    return found;
  }

  private submit(): void {
    if (!this.run.disabled) {
      this.host.send({ ...RUN, params: this.given() });
    }
  }

  private clear(): void {
    for (const { parameter, input } of this.made) {
      input.value = '';
      input.checked = parameter.default.toLowerCase() === 'true';
    }
  }
}

function hintOf(parameter: ParameterView, value: string): string {
  const parts = [parameter.help, parameter.default ? `in the notebook: ${parameter.default}` : 'has no value in the notebook'];
  if (value && value !== parameter.default) {
    parts.push(`in the run shown: ${value}`);
  }
  return parts.filter(Boolean).join(' · ');
}

// ---------------------------------------------------------------- a plain cell becomes a step

/** Choose a plain cell, name it, set options; the header line is shown as it will stand in the cell. */
export class DeclareForm {
  readonly root: HTMLElement;
  private readonly cell = element('select');
  private readonly name = text('features');
  private readonly foreach = text('depth in [2, 4, 8]');
  private readonly after = text('load, clean');
  private readonly retry = text('2');
  private readonly timeout = text('90s');
  private readonly on = text('ray://host:10001');
  private readonly more = text('--cpu 2 --card');
  private readonly noCache = element('input', { type: 'checkbox' });
  private readonly preview = element('code', { class: 'nbf-header-line' });
  private readonly problem = element('p', { class: 'nbf-error', role: 'alert' });
  private readonly empty = element('p', {
    class: 'nbf-empty', text: 'Every code cell of this notebook is a step already, or takes no part in the flow.'
  });
  private readonly body: HTMLElement;
  private readonly declare: HTMLButtonElement;
  private readonly show: HTMLButtonElement;
  private cells: readonly CellView[] = [];
  private steps: readonly string[] = [];
  private structure = '';
  private touched = false;

  constructor(
    private readonly host: Host,
    private readonly notice: (notice: Notice) => void
  ) {
    this.declare = button('Declare as a step', () => this.submit(), { class: 'nbf-button nbf-main', type: 'submit' });
    this.show = button('Show the cell', () => host.reveal(this.cell.value));
    this.cell.addEventListener('change', () => this.chosen());
    this.name.addEventListener('input', () => (this.touched = true));
    const options = element(
      'details',
      { class: 'nbf-more' },
      element('summary', { text: 'Options' }),
      field('For each', this.foreach, 'runs once an item, in parallel'),
      field('After', this.after, 'steps that must have ended before'),
      field('Retry', this.retry, 'how many more attempts'),
      field('Timeout', this.timeout, 'seconds, or 90s, 5m, 2h'),
      field('On', this.on, 'where it runs; empty: here'),
      checked(field('Never reuse its result', this.noCache)),
      field('Other options', this.more, 'as on a %%step line')
    );
    this.body = element(
      'div',
      { class: 'nbf-fields' },
      field('Cell', this.cell),
      field('Name', this.name),
      options,
      element('div', { class: 'nbf-preview-line' }, this.preview),
      this.problem,
      element('div', { class: 'nbf-actions' }, this.declare, this.show)
    );
    this.root = element(
      'form',
      {
        class: 'nbf-form', 'aria-label': 'Declare a cell as a step',
        on: { submit: event => event.preventDefault(), input: () => this.draw() }
      },
      this.empty,
      this.body
    );
  }

  /** A snapshot in; drawn. The chosen cell and what was typed stay. */
  update(snapshot: SnapshotMessage): void {
    this.steps = snapshot.steps.filter(step => step.kind === 'step').map(step => step.name);
    const structure = JSON.stringify(snapshot.cells);
    if (structure !== this.structure) {
      this.structure = structure;
      this.cells = snapshot.cells;
      const before = this.cell.value;
      this.cell.replaceChildren(
        ...this.cells.map(cell => element('option', { value: cell.id, text: `${cell.position}: ${cell.title}` }))
      );
      if (this.cells.some(cell => cell.id === before)) {
        this.cell.value = before;
      } else {
        this.touched = false;
        this.chosen();
      }
    }
    setHidden(this.empty, this.cells.length > 0);
    setHidden(this.body, this.cells.length === 0);
    this.draw();
  }

  /** A cell that a person has selected in, if it is one that can be declared; whether it is out. */
  follow(cell: string): boolean {
    const known = this.cells.some(one => one.id === cell);
    if (known && this.cell.value !== cell) {
      this.cell.value = cell;
      this.touched = false;
      this.chosen();
    }
    return known;
  }

  /** A cell that is to be declared in; what a person should know, null where the form shows it, out. */
  begin(cell: string, snapshot: SnapshotMessage): Notice | null {
    if (this.follow(cell)) {
      return null;
    }
    const step = snapshot.steps.find(one => one.cell === cell);
    const text = step ? `The cell is a step already: ${step.label}.` : 'The cell holds nothing that could be a step.';
    return { level: 'note', text, fix: '' };
  }

  private chosen(): void {
    if (!this.touched) {
      this.name.value = this.cells.find(cell => cell.id === this.cell.value)?.name ?? '';
    }
    this.draw();
  }

  private declared(): Declared {
    return {
      name: this.name.value,
      foreach: this.foreach.value,
      after: this.after.value,
      retry: this.retry.value,
      timeout: this.timeout.value,
      on: this.on.value,
      noCache: this.noCache.checked,
      more: this.more.value
    };
  }

  private draw(): void {
    const problem = nameProblem(this.name.value, this.steps);
    setText(this.preview, headerOf(this.declared()));
    setText(this.problem, this.name.value ? problem : '');
    setHidden(this.problem, !this.problem.textContent);
    this.declare.disabled = problem !== '' || !this.cell.value;
  }

  private submit(): void {
    if (this.declare.disabled) {
      return;
    }
    this.notice(this.host.declare(this.cell.value, headerOf(this.declared())));
    this.touched = false;
    for (const input of [this.foreach, this.after, this.retry, this.timeout, this.on, this.more]) {
      input.value = '';
    }
    this.noCache.checked = false;
  }
}

function text(placeholder: string): HTMLInputElement {
  return element('input', { type: 'text', placeholder, autocomplete: 'off', spellcheck: 'false' });
}

function checked(root: HTMLElement): HTMLElement {
  root.classList.add('nbf-check');
  return root;
}
