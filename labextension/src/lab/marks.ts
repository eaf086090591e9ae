/** Each step's state in the margin of its cell: what it is by the kernel's own plan, and why. */

import type { NotebookPanel } from '@jupyterlab/notebook';

import { element, setAttribute, setText } from '../drawing/elements';
import { cellMark } from '../drawing/words';
import type { StepView } from '../messages';
import type { State } from '../state/reduce';

const CLASS = 'nbf-cell-mark';

/** The marks of one notebook; drawn once a frame at most, and only where they change. */
export class CellMarks {
  private steps = new Map<string, StepView>();
  private drawn: readonly StepView[] | null = null;
  private frame = 0;

  constructor(private readonly panel: NotebookPanel) {
    panel.content.modelContentChanged.connect(this.plan, this);
    panel.disposed.connect(() => window.cancelAnimationFrame(this.frame));
  }

  /** What the page knows of the kernel in; its steps' cells bear it soon. */
  update(state: State): void {
    const steps = state.snapshot?.steps ?? null;
    if (steps !== this.drawn) {
      this.drawn = steps;
      const marked = (steps ?? []).filter(step => step.kind === 'step' && step.mark);
      this.steps = new Map(marked.map(step => [step.cell, step]));
      for (const [cell, name] of Object.entries(state.snapshot?.further ?? {})) {
        const step = marked.find(one => one.name === name);
        if (step) {
          this.steps.set(cell, step);
        }
      }
      this.plan();
    }
  }

  private plan(): void {
    if (!this.frame && !this.panel.isDisposed) {
      this.frame = window.requestAnimationFrame(() => {
        this.frame = 0;
        this.draw();
      });
    }
  }

  private draw(): void {
    for (const cell of this.panel.content.widgets) {
      const step = this.steps.get(cell.model.id);
      const there = cell.node.querySelector<HTMLElement>(`:scope > .${CLASS}`);
      if (!step) {
        there?.remove();
        continue;
      }
      const shown = there ?? element('span', { class: CLASS, role: 'img' });
      const words = step.why ? `${step.mark}: ${step.why}` : step.mark;
      setText(shown, cellMark(step.mark));
      setAttribute(shown, 'data-mark', step.mark);
      setAttribute(shown, 'title', words);
      setAttribute(shown, 'aria-label', `${step.label} is ${words}`);
      if (!there) {
        cell.node.append(shown);
      }
    }
  }
}
