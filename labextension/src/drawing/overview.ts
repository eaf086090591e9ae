/** A flow in a place of its own: the graph, and beside it the time line of the run that is shown. */

import { element, setAttribute, setText } from './elements';
import { FlowGraph } from './graph';
import { Pace } from './pace';
import type { State } from '../state/reduce';
import { START, shown } from '../state/reduce';
import type { Choice } from './steps';
import { Timeline } from './timeline';
import { tally } from './words';

export class Overview {
  private readonly graph: FlowGraph;
  private readonly timeline: Timeline;
  private readonly head = element('p', { class: 'nbf-tally', role: 'status' });
  private readonly pace: Pace;
  private readonly size: ResizeObserver;
  private state: State = START;
  private selected: string | null = null;

  constructor(
    private readonly root: HTMLElement,
    choice: Choice
  ) {
    const chosen: Choice = {
      select: name => {
        this.select(name);
        choice.select(name);
      },
      open: name => choice.open(name)
    };
    this.graph = new FlowGraph(chosen, { whole: true });
    this.timeline = new Timeline(chosen);
    root.classList.add('nbf-panel', 'nbf-overview');
    root.append(this.head, element('div', { class: 'nbf-overview-body' }, this.graph.root, this.timeline.root));
    this.size = new ResizeObserver(() => {
      this.graph.resized();
      this.timeline.paint();
    });
    this.size.observe(root);
    this.pace = new Pace(root, () => this.draw(), () => shown(this.state)?.run?.status === 'running');
  }

  dispose(): void {
    this.size.disconnect();
    this.pace.dispose();
  }

  /** What the page knows now in; drawn soon, if somebody can see it. */
  update(state: State): void {
    if (state !== this.state) {
      this.state = state;
      this.pace.plan();
    }
  }

  /** The step that is selected elsewhere in. */
  select(name: string): void {
    if (name !== this.selected) {
      this.selected = name;
      this.pace.plan();
    }
  }

  private draw(): void {
    const snapshot = shown(this.state);
    const now = Date.now() / 1000 - this.state.skew;
    setAttribute(this.root, 'data-status', snapshot?.run?.status ?? 'none');
    setText(this.head, snapshot ? [snapshot.flow, snapshot.run?.run, tally(snapshot.steps)].filter(Boolean).join(' · ') : 'nbflow is not loaded in this notebook’s kernel.');
    if (snapshot) {
      this.graph.update(snapshot, this.selected, now);
      this.timeline.update(snapshot, this.selected, now);
    }
  }
}
