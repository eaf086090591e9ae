/** The graph and the time line of a notebook's flow in the main area, for as long as the notebook is open. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { LabIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

import { Overview } from '../drawing/overview';
import type { Link } from './link';
import { reveal } from './notebook';

class FlowPage extends Widget {
  private readonly overview: Overview;
  private readonly leave: () => void;

  constructor(panel: NotebookPanel, link: Link, icon: LabIcon) {
    super();
    this.addClass('nbf-flow-page');
    const named = (): void => {
      this.title.label = `Flow of ${panel.title.label}`;
    };
    named();
    panel.title.changed.connect(named, this);
    this.title.icon = icon;
    this.title.closable = true;
    const root = document.createElement('div');
    this.node.append(root);
    const cellOf = (step: string): string => link.store.state.snapshot?.steps.find(one => one.name === step)?.cell ?? '';
    this.overview = new Overview(root, {
      select: step => reveal(panel, cellOf(step), false),
      open: step => reveal(panel, cellOf(step))
    });
    this.leave = link.store.watch(state => this.overview.update(state));
    panel.content.activeCellChanged.connect((_, cell) => {
      const step = link.store.state.snapshot?.steps.find(one => one.cell === cell?.model.id);
      if (step && !this.isDisposed) {
        this.overview.select(step.name);
      }
    }, this);
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.leave();
      this.overview.dispose();
      super.dispose();
    }
  }
}

/** One page for each notebook. */
export class FlowPages {
  private readonly known = new WeakMap<NotebookPanel, MainAreaWidget>();

  constructor(
    private readonly link: (panel: NotebookPanel) => Link,
    private readonly icon: LabIcon
  ) {}

  /** A notebook in; its page out, made where there is none. */
  of(panel: NotebookPanel): MainAreaWidget {
    const known = this.known.get(panel);
    if (known && !known.isDisposed) {
      return known;
    }
    const page = new MainAreaWidget({ content: new FlowPage(panel, this.link(panel), this.icon) });
    this.known.set(panel, page);
    panel.disposed.connect(() => page.dispose());
    return page;
  }
}
