/** The form of a run's parameters, and the fields that forms are made of. */

import { button, element, setHidden, setText } from './elements';
import type { Host } from '../host';
import { RUN } from '../messages';
import type { ParameterView, SnapshotMessage } from '../messages';
import type { Abilities } from '../state/reduce';

let made = 0;

/** A label above its field, joined for screen readers; what is said below it describes it. */
export function field(label: string, input: HTMLInputElement | HTMLSelectElement, hint = ''): HTMLElement {
  made += 1;
  input.id = `nbf-field-${made}`;
  const below = element('span', { class: 'nbf-hint', id: `${input.id}-hint`, text: hint });
  input.setAttribute('aria-describedby', below.id);
  return element('div', { class: 'nbf-field' }, element('label', { for: input.id, text: label }), input, below);
}

/** The field of a box to check in; the same with its label beside it out. */
export function checked(root: HTMLElement): HTMLElement {
  root.classList.add('nbf-check');
  return root;
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
