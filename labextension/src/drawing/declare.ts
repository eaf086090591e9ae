/** The form that makes a cell a step, and reads and writes the `%%step` line of one that is a step already. */

import { button, element, setHidden, setText } from './elements';
import { checked, field } from './forms';
import { headerOf, inOrderOf, nameProblem } from './header';
import type { Host } from '../host';
import type { HeaderView, SnapshotMessage } from '../messages';
import type { Checked, Notice } from '../state/reduce';

const CHECK_AFTER = 300;

/** A cell that the form can be about: a plain one, or one that a line makes a step. */
interface Entry {
  id: string;
  position: number;
  title: string;
  name: string;
  isStep: boolean;
  header: HeaderView | undefined;
}

interface Field {
  option: string;
  label: string;
  placeholder: string;
  hint: string;
}

const FIRST: readonly Field[] = [
  { option: 'foreach', label: 'For each', placeholder: 'depth in [2, 4, 8]', hint: 'runs once an item, in parallel' },
  { option: 'join', label: 'Join', placeholder: 'train', hint: 'closes that step’s fan-out: inputs holds its items' }
];
const RESOURCES: readonly Field[] = [
  { option: 'cpu', label: 'Cores', placeholder: '2', hint: '' },
  { option: 'gpu', label: 'GPUs', placeholder: '1', hint: '' },
  { option: 'memory', label: 'Memory', placeholder: '8G', hint: '' }
];
const REST: readonly Field[] = [
  { option: 'on', label: 'On', placeholder: 'ray://host:10001', hint: 'where it runs; empty: where the run does' },
  { option: 'retry', label: 'Retry', placeholder: '2', hint: 'how many more attempts' },
  { option: 'timeout', label: 'Timeout', placeholder: '90s', hint: 'seconds, or 90s, 5m, 2h' },
  { option: 'after', label: 'After', placeholder: 'load, clean', hint: 'steps that must have ended before' }
];
const FLAGS: readonly Pick<Field, 'option' | 'label'>[] = [
  { option: 'card', label: 'Show its card' },
  { option: 'no-cache', label: 'Never reuse its result' }
];

/** A snapshot in; the cells that the form can be about, in document order, out. */
function entries(snapshot: SnapshotMessage): Entry[] {
  const headers = new Map(snapshot.headers.map(header => [header.cell, header]));
  const plain = snapshot.cells.map(({ id, position, title, name }) => ({ id, position, title, name, isStep: false, header: undefined }));
  const steps = snapshot.steps
    .filter(step => step.kind === 'step' && headers.get(step.cell)?.is_line !== false)
    .map(({ cell: id, position, name }) => ({ id, position, title: `${name} (a step)`, name, isStep: true, header: headers.get(id) }));
  return [...plain, ...steps].sort((one, other) => one.position - other.position);
}

function text(placeholder: string): HTMLInputElement {
  return element('input', { type: 'text', placeholder, autocomplete: 'off', spellcheck: 'false' });
}

/** Choose a cell, name it, set options; the line is shown as it will stand in the cell, and the kernel reads it first. */
export class DeclareForm {
  readonly root: HTMLElement;
  private readonly cell = element('select');
  private readonly name = text('features');
  private readonly inputs = new Map<string, HTMLInputElement>();
  private readonly flags = new Map<string, HTMLInputElement>();
  private readonly more = text('--workers 4');
  private readonly preview = element('code', { class: 'nbf-header-line' });
  private readonly problem = element('p', { class: 'nbf-error', role: 'alert' });
  private readonly empty = element('p', {
    class: 'nbf-empty', text: 'No code cell of this notebook can be made a step.'
  });
  private readonly options: HTMLDetailsElement;
  private readonly body: HTMLElement;
  private readonly declare: HTMLButtonElement;
  private readonly show: HTMLButtonElement;
  private cells: readonly Entry[] = [];
  private steps: readonly string[] = [];
  private structure = '';
  /** The cell that a person has selected in the notebook last, if not here. */
  private followed = '';
  /** Whether something was typed for the cell that is chosen, which no snapshot takes away. */
  private touched = false;
  private checkedLine = '';
  private checkId = '';
  private timer = 0;
  private refusal: Checked | null = null;

  constructor(
    private readonly host: Host,
    private readonly notice: (notice: Notice) => void
  ) {
    this.declare = button('Declare as a step', () => this.submit(), { class: 'nbf-button nbf-main', type: 'submit' });
    this.show = button('Show the cell', () => host.reveal(this.cell.value, true));
    this.cell.addEventListener('change', () => {
      this.followed = '';
      this.chosen();
    });
    const flags = FLAGS.map(({ option, label }) => {
      const input = element('input', { type: 'checkbox' });
      this.flags.set(option, input);
      return checked(field(label, input));
    });
    this.options = element(
      'details',
      { class: 'nbf-more' },
      element('summary', { text: 'Options' }),
      element('div', { class: 'nbf-beside' }, ...RESOURCES.map(one => this.field(one))),
      ...REST.map(one => this.field(one)),
      ...flags,
      field('Other options', this.more, 'as on a %%step line')
    );
    this.body = element(
      'div',
      { class: 'nbf-fields' },
      field('Cell', this.cell),
      field('Name', this.name),
      ...FIRST.map(one => this.field(one)),
      this.options,
      element('div', { class: 'nbf-preview-line' }, this.preview),
      this.problem,
      element('div', { class: 'nbf-actions' }, this.declare, this.show)
    );
    this.root = element(
      'form',
      {
        class: 'nbf-form', 'aria-label': 'Declare a cell as a step',
        on: { submit: event => event.preventDefault(), input: event => this.typed(event.target) }
      },
      this.empty,
      this.body
    );
  }

  private field({ option, label, placeholder, hint }: Field): HTMLElement {
    const input = text(placeholder);
    this.inputs.set(option, input);
    return field(label, input, hint);
  }

  /** A snapshot and what the kernel thinks of the line in; drawn. The chosen cell and what was typed stay. */
  update(snapshot: SnapshotMessage, answer: Checked | null): void {
    this.steps = snapshot.steps.filter(step => step.kind === 'step').map(step => step.name);
    this.refusal = answer?.id === this.checkId && !answer.ok ? answer : null;
    const cells = entries(snapshot);
    const structure = JSON.stringify(cells);
    if (structure !== this.structure) {
      this.structure = structure;
      this.cells = cells;
      const before = this.cells.some(cell => cell.id === this.followed) ? this.followed : this.cell.value;
      this.touched = this.touched && before === this.cell.value;
      this.cell.replaceChildren(
        ...this.cells.map(cell => element('option', { value: cell.id, text: `${cell.position}: ${cell.title}` }))
      );
      if (this.cells.some(cell => cell.id === before)) {
        this.cell.value = before;
      } else {
        this.cell.value = this.cells.find(cell => !cell.isStep)?.id ?? this.cells[0]?.id ?? '';
        this.touched = false;
      }
      if (!this.touched) {
        this.chosen();
      }
    }
    setHidden(this.empty, this.cells.length > 0);
    setHidden(this.body, this.cells.length === 0);
    this.draw();
  }

  /** A cell that a person has selected in, if the form can be about it; whether it can out. */
  follow(cell: string): boolean {
    this.followed = cell;
    const known = this.cells.some(one => one.id === cell);
    if (known && this.cell.value !== cell) {
      this.cell.value = cell;
      this.chosen();
    }
    return known;
  }

  /** A cell that is to be declared in; what a person should know, null where the form shows it, out. */
  begin(cell: string, snapshot: SnapshotMessage): Notice | null {
    if (this.follow(cell)) {
      window.setTimeout(() => this.name.focus()); // a palette that was asked for it gives the keyboard back first
      return null;
    }
    const step = snapshot.steps.find(one => one.cell === cell);
    const said = step ? `A tag of the cell makes it a step: ${step.label}.` : 'The cell holds nothing that could be a step.';
    return { level: 'note', text: said, fix: '' };
  }

  private get view(): Entry | undefined {
    return this.cells.find(cell => cell.id === this.cell.value);
  }

  /** The fields take what the cell's line says, or the name that is proposed for one without. */
  private chosen(): void {
    const { view } = this;
    const read = new Map((view?.header?.options ?? []).map(([option = '', value = '']) => [option, value]));
    this.touched = false;
    this.name.value = view?.name ?? '';
    this.inputs.forEach((input, option) => (input.value = read.get(option) ?? ''));
    this.flags.forEach((input, option) => (input.checked = read.has(option)));
    const others = [...read].filter(([option]) => !this.inputs.has(option) && !this.flags.has(option));
    this.more.value = others.map(([option, value]) => `--${option} ${value}`.trim()).join(' ');
    const folded = [...RESOURCES, ...REST, ...FLAGS].some(({ option }) => read.has(option)) || others.length > 0;
    this.options.open = this.options.open || folded;
    this.draw();
  }

  private typed(field: EventTarget | null): void {
    this.touched = this.touched || field !== this.cell;
    this.draw();
  }

  private get line(): string {
    const options = [
      ...[...this.inputs].map(([option, input]) => [option, input.value] as const).filter(([, value]) => value.trim()),
      ...[...this.flags].filter(([, input]) => input.checked).map(([option]) => [option, ''] as const)
    ];
    const before = (this.view?.header?.options ?? []).map(([option = '']) => option);
    return headerOf({ name: this.name.value, options: inOrderOf(before, options), more: this.more.value, comment: this.view?.header?.comment ?? '' });
  }

  private draw(): void {
    const { view, line } = this;
    const taken = this.steps.filter(step => !view?.isStep || step !== view.name);
    const problem = nameProblem(this.name.value, taken);
    const refused = line === this.checkedLine ? this.refusal : null;
    setText(this.declare, view?.isStep ? 'Write the line' : 'Declare as a step');
    setText(this.preview, line);
    setText(this.problem, this.name.value ? problem || [refused?.text, refused?.fix && `(${refused.fix})`].filter(Boolean).join(' ') : '');
    setHidden(this.problem, !this.problem.textContent);
    this.declare.disabled = problem !== '' || refused !== null || !view;
    if (!problem && this.touched && line !== this.checkedLine) {
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => this.check(), CHECK_AFTER);
    }
  }

  /** Have the kernel read the line: what it cannot read is not written. */
  private check(): void {
    if (this.root.isConnected && this.line !== this.checkedLine) {
      this.checkedLine = this.line;
      this.checkId = this.host.send({ kind: 'check', header: this.line });
    }
  }

  private submit(): void {
    if (this.declare.disabled) {
      return;
    }
    this.notice(this.host.declare(this.cell.value, this.line));
    this.touched = false;
  }
}
