/** The sidebar: the drawing, following the notebook in front. */

import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { Widget } from '@lumino/widgets';

import type { Request } from '../bridge';
import { BRIDGE } from '../bridge';
import type { Tab } from '../drawing/drawing';
import { Drawing } from '../drawing/drawing';
import type { Host } from '../host';
import { Link } from './link';
import { CellMarks } from './marks';
import { CellsOutputs } from './outputs';
import { cellsOf, declare, reveal } from './notebook';
import { START } from '../state/reduce';

const SETTLES = 400;

/** One link for each notebook that is open. */
export class Links {
  private readonly known = new WeakMap<NotebookPanel, Link>();

  /** A notebook in; its link out, made on first use. */
  of(panel: NotebookPanel): Link {
    const known = this.known.get(panel);
    if (known) {
      return known;
    }
    const outputs = new CellsOutputs(panel);
    const link = new Link(panel.sessionContext, () => cellsOf(panel), message => outputs.place(message));
    this.known.set(panel, link);
    const marks = new CellMarks(panel);
    link.store.watch(state => marks.update(state));
    this.watchDocument(panel, link);
    panel.disposed.connect(() => {
      this.known.delete(panel);
      link.dispose();
    });
    return link;
  }

  /** Cells that are edited, moved or deleted are told once typing has paused. */
  private watchDocument(panel: NotebookPanel, link: Link): void {
    let timer: number | null = null;
    const changed = (): void => {
      if (timer !== null) {
        window.clearTimeout(timer);
      }
      timer = window.setTimeout(() => {
        timer = null;
        if (!panel.isDisposed) {
          link.tellDocument();
        }
      }, SETTLES);
    };
    void panel.context.ready.then(() => {
      panel.context.model.contentChanged.connect(changed);
      link.tellDocument();
    });
  }
}

/** The panel of the side area. */
export class FlowPanel extends Widget {
  private readonly drawing: Drawing;
  private notebook: NotebookPanel | null = null;
  private leave: () => void = () => undefined;

  constructor(
    private readonly tracker: INotebookTracker,
    private readonly links: Links,
    private readonly places: Pick<Host, 'open' | 'chart' | 'spread'>
  ) {
    super();
    this.id = 'nbflow-panel';
    this.title.caption = 'Flow of the current notebook';
    this.addClass('nbf-sidebar');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Flow');
    const root = document.createElement('div');
    this.node.append(root);
    this.drawing = new Drawing(root, this.host());
    this.drawing.onNotice = notice => this.link?.store.dispatch({ type: 'notice', notice });
    this.drawing.onPresent = () => this.link?.store.dispatch({ type: 'present' });
    tracker.currentChanged.connect(this.follow, this);
    tracker.activeCellChanged.connect(this.followCell, this);
    this.follow();
  }

  /** Open the form that declares the selected cell as a step. */
  declareSelected(): void {
    const cell = this.tracker.activeCell;
    if (cell) {
      this.drawing.declareAt(cell.model.id);
    }
  }

  /** Turn to a view. */
  turn(tab: Tab): void {
    this.drawing.turn(tab);
  }

  /** Open the menu of exports, or that of runs to compare with. */
  openMenu(name: 'export' | 'compare'): void {
    this.drawing.openMenu(name);
  }

  /** Whether cells and steps follow each other's selection. */
  set follows(on: boolean) {
    this.drawing.follows = on;
  }

  private followCell(): void {
    const cell = this.tracker.activeCell;
    if (cell && this.tracker.currentWidget === this.notebook) {
      this.drawing.followCell(cell.model.id);
    }
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.tracker.currentChanged.disconnect(this.follow, this);
      this.tracker.activeCellChanged.disconnect(this.followCell, this);
      this.leave();
      this.drawing.dispose();
      super.dispose();
    }
  }

  private get link(): Link | null {
    return this.notebook && !this.notebook.isDisposed ? this.links.of(this.notebook) : null;
  }

  private host(): Host {
    return {
      ...this.places,
      send: wish => this.link?.send(wish) ?? '',
      reveal: (cell, focus) => this.notebook !== null && reveal(this.notebook, cell, focus),
      declare: (cell, header) =>
        this.notebook
          ? declare(this.notebook, cell, header)
          : { level: 'error', text: 'There is no notebook.', fix: '' },
      load: () => this.link?.load()
    };
  }

  private follow(): void {
    const notebook = this.tracker.currentWidget;
    if (notebook === this.notebook) {
      return;
    }
    this.leave();
    this.leave = () => undefined;
    this.notebook = notebook;
    const named = (): void => {
      this.node.dataset['notebook'] = notebook?.context.path ?? '';
    };
    named();
    this.drawing.update(START);
    const link = this.link;
    if (link) {
      link.verify();
      const unwatch = link.store.watch(state => this.drawing.update(state));
      notebook?.context.pathChanged.connect(named);
      this.leave = () => {
        unwatch();
        notebook?.context.pathChanged.disconnect(named);
      };
    }
  }
}

/** Links to cells, as the table of a run has them, lead to the cell of the notebook that they stand in. */
export function followLinks(tracker: INotebookTracker): void {
  document.addEventListener(
    'click',
    event => {
      const link = (event.target as Element | null)?.closest('.nbflow a[href*="#cell-id="]');
      const id = link?.getAttribute('href')?.split('#cell-id=')[1];
      const panel = link && tracker.find(one => one.node.contains(link));
      if (panel && id && reveal(panel, decodeURIComponent(id))) {
        event.preventDefault();
        event.stopPropagation();
      }
    },
    true
  );
}

/** Widgets inside notebooks ask the page for what only it can do. */
export function answerWidgets(tracker: INotebookTracker, links: Links, open: Host['open']): void {
  document.addEventListener(BRIDGE, event => {
    const request = (event as CustomEvent<Request>).detail;
    const panel = tracker.find(one => one.node.contains(event.target as Node));
    if (!panel) {
      return;
    }
    switch (request.kind) {
      case 'reveal':
        if (!reveal(panel, request.cell, request.focus)) {
          return;
        }
        break;
      case 'declare':
        request.notice = declare(panel, request.cell, request.header);
        break;
      case 'open':
        if (!open(request.title, request.page)) {
          return;
        }
        break;
      case 'interrupt':
        links.of(panel).interrupt();
        break;
    }
    event.preventDefault();
  });
}
