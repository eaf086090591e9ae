/** The flow as a graph in SVG, with scroll and zoom of its own; nodes outside the view are not in the page. */

import { drawn, element, setAttribute, setText } from './elements';
import type { LayoutView, LineView, PlaceView, SnapshotMessage, StepView } from '../messages';
import { neighbour } from './neighbour';
import type { Choice } from './steps';
import { MARKS, elapsed, spoken } from './words';

const SMALLEST = 0.2;
const LARGEST = 2.5;
const MARGIN = 300;
const EMPTY: LayoutView = { width: 0, height: 0, box: 0, places: [], lines: [] };

interface Node {
  root: SVGGElement;
  text: SVGTextElement;
  state: SVGTextElement;
}

interface Bounds {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** Nodes are buttons; one of them is a stop of Tab, arrows walk along the edges. */
export class FlowGraph {
  readonly root: HTMLElement;
  private readonly frame: HTMLElement;
  private readonly svg: SVGSVGElement;
  private readonly edges: SVGGElement;
  private readonly boxes: SVGGElement;
  private readonly level: HTMLElement;
  private readonly nodes = new Map<string, Node>();
  private readonly lines = new Map<LineView, SVGElement>();
  private bounds = new Map<LineView, Bounds>();
  private layout: LayoutView = EMPTY;
  private places = new Map<string, PlaceView>();
  private told: LayoutView | null = null;
  private structure = '';
  private steps = new Map<string, StepView>();
  private sources = new Map<string, string>();
  private selected: string | null = null;
  private now = 0;
  private zoom = 0;
  private fitted = true;

  /** Who is told of choices; `whole` to fit the height, too, and what opens the graph in a place of its own. */
  constructor(
    private readonly choice: Choice,
    private readonly room: { whole?: boolean; apart?: () => void } = {}
  ) {
    this.edges = drawn('g', { class: 'nbf-edges', 'aria-hidden': 'true' });
    this.boxes = drawn('g', { role: 'presentation' });
    this.svg = drawn('svg', { class: 'nbf-svg', role: 'group', 'aria-label': 'Graph of the flow' }, this.edges, this.boxes);
    this.frame = element(
      'div',
      {
        class: 'nbf-frame',
        on: {
          scroll: () => this.paint(),
          wheel: event => this.wheeled(event as WheelEvent),
          keydown: event => this.pressed(event as KeyboardEvent)
        }
      },
      this.svg
    );
    this.level = element('span', { class: 'nbf-zoom-level', 'aria-live': 'off' });
    this.root = element(
      'div',
      { class: 'nbf-graph' },
      element(
        'div',
        { class: 'nbf-zoom', role: 'toolbar', 'aria-label': 'Zoom' },
        this.zoomButton('−', 'Zoom out', () => this.scale(this.zoom / 1.25)),
        this.level,
        this.zoomButton('+', 'Zoom in', () => this.scale(this.zoom * 1.25)),
        this.zoomButton('Fit', room.whole ? 'Fit the graph to its place' : 'Fit the graph to the width', () => this.fit()),
        room.apart ? this.zoomButton('⤢', 'Open the graph and a time line in the main area', room.apart) : null
      ),
      this.frame
    );
  }

  private zoomButton(text: string, name: string, press: () => void): HTMLElement {
    return element('button', {
      type: 'button',
      class: 'nbf-button nbf-quiet',
      title: name,
      'aria-label': name,
      text,
      on: { click: press }
    });
  }

  /** A snapshot, the selected step and the kernel's time in; drawn. Nothing moves before the steps or edges change. */
  update(snapshot: SnapshotMessage, selected: string | null, now: number): void {
    const moved = selected !== this.selected;
    this.selected = selected;
    this.now = now;
    this.steps = new Map(snapshot.steps.map(step => [step.name, step]));
    // a change message leaves the layout as it is, a snapshot brings another object
    if (snapshot.layout !== this.told) {
      this.told = snapshot.layout;
      const structure = JSON.stringify([snapshot.layout, snapshot.edges, snapshot.steps.map(step => step.label)]);
      if (structure !== this.structure) {
        this.structure = structure;
        this.lay(snapshot);
      }
    }
    if (moved && selected !== null) {
      this.bringIntoSight(selected);
    }
    this.paint();
  }

  private lay(snapshot: SnapshotMessage): void {
    this.layout = snapshot.layout;
    this.places = new Map(this.layout.places.map(place => [place.name, place]));
    const labels = new Map(snapshot.steps.map(step => [step.name, step.label]));
    this.sources = new Map();
    for (const edge of snapshot.edges) {
      const told = `${edge.names.join(', ') || edge.why} from ${labels.get(edge.frm) ?? edge.frm}`;
      const before = this.sources.get(edge.to);
      this.sources.set(edge.to, before ? `${before}; ${told}` : told);
    }
    this.bounds = new Map(this.layout.lines.map(line => [line, boundsOf(line)]));
    this.boxes.replaceChildren();
    this.edges.replaceChildren();
    this.nodes.clear();
    this.lines.clear();
    if (this.fitted || this.zoom === 0) {
      this.fit();
    } else {
      this.scale(this.zoom);
    }
  }

  /** As large as fits its place, but never so small that names cannot be read: then it scrolls. */
  private fit(): void {
    const { clientWidth, clientHeight } = this.frame;
    const { width, height } = this.layout;
    const across = clientWidth > 4 && width ? (clientWidth - 4) / width : 1;
    const down = this.room.whole && clientHeight > 4 && height ? (clientHeight - 4) / height : across;
    this.scale(this.room.whole ? Math.min(1.4, Math.max(0.4, Math.min(across, down))) : Math.min(1, Math.max(0.75, across)));
    this.fitted = true;
  }

  private scale(zoom: number): void {
    const { frame } = this;
    const middle = { x: frame.scrollLeft + frame.clientWidth / 2, y: frame.scrollTop + frame.clientHeight / 2 };
    const before = this.zoom || 1;
    this.zoom = Math.min(LARGEST, Math.max(SMALLEST, zoom));
    this.fitted = false;
    const { width, height } = this.layout;
    setAttribute(this.svg, 'viewBox', `0 0 ${Math.max(1, width)} ${Math.max(1, height)}`);
    setAttribute(this.svg, 'width', String(Math.round(width * this.zoom)));
    setAttribute(this.svg, 'height', String(Math.round(height * this.zoom)));
    setText(this.level, `${Math.round(this.zoom * 100)} %`);
    const ratio = this.zoom / before;
    frame.scrollLeft = middle.x * ratio - frame.clientWidth / 2;
    frame.scrollTop = middle.y * ratio - frame.clientHeight / 2;
    this.paint();
  }

  /** The frame has another size. */
  resized(): void {
    if (this.fitted) {
      this.fit();
    } else {
      this.paint();
    }
  }

  // ------------------------------------------------------------ what is in sight

  private paint(): void {
    const { frame, zoom } = this;
    if (!frame.clientWidth) {
      return;
    }
    const view = {
      left: frame.scrollLeft / zoom - MARGIN,
      right: (frame.scrollLeft + frame.clientWidth) / zoom + MARGIN,
      top: frame.scrollTop / zoom - MARGIN,
      bottom: (frame.scrollTop + frame.clientHeight) / zoom + MARGIN
    };
    const first = this.layout.places[0]?.name ?? null;
    const stop = this.selected !== null && this.places.has(this.selected) ? this.selected : first;
    for (const place of this.layout.places) {
      const inSight =
        place.x > view.left && place.x < view.right && place.y > view.top && place.y < view.bottom;
      if (inSight || place.name === stop) {
        this.node(place, place.name === stop);
      } else {
        this.nodes.get(place.name)?.root.remove();
        this.nodes.delete(place.name);
      }
    }
    for (const [line, box] of this.bounds) {
      const inSight =
        box.right > view.left && box.left < view.right && box.bottom > view.top && box.top < view.bottom;
      this.line(line, inSight);
    }
  }

  private node(place: PlaceView, stop: boolean): void {
    const step = this.steps.get(place.name);
    if (!step) {
      return;
    }
    const node = this.nodes.get(place.name) ?? this.make(place, step);
    const chosen = place.name === this.selected;
    const classes = ['nbf-node', `nbf-${step.kind}`, `nbf-is-${step.state}`, ...(chosen ? ['nbf-chosen'] : [])];
    setAttribute(node.root, 'class', classes.join(' '));
    setAttribute(node.root, 'tabindex', stop ? '0' : '-1');
    setAttribute(node.root, 'aria-pressed', String(chosen));
    setAttribute(node.root, 'data-state', step.state);
    const from = this.sources.get(place.name);
    setAttribute(node.root, 'aria-label', spoken(step, this.now) + (from ? `; reads ${from}` : ''));
    setText(node.text, `${MARKS[step.state] ?? ''} ${place.text}`);
    const count = step.count.split(',')[0];
    setText(node.state, [step.state, count || elapsed(step, this.now)].filter(Boolean).join(' · '));
  }

  private make(place: PlaceView, step: StepView): Node {
    const text = drawn('text', { class: 'nbf-name', x: 0, y: -3 });
    const state = drawn('text', { class: 'nbf-word', x: 0, y: 12 });
    const { width } = place;
    const height = this.layout.box;
    const root = drawn(
      'g',
      {
        role: 'button',
        'data-step': place.name,
        transform: `translate(${place.x} ${place.y})`,
        on: {
          click: () => this.choice.select(place.name),
          dblclick: () => this.choice.open(place.name)
        }
      },
      drawn('title', { text: step.label }),
      drawn('rect', { x: -width / 2, y: -height / 2, width, height, rx: 6 }),
      text,
      state
    );
    this.boxes.append(root);
    const node = { root, text, state };
    this.nodes.set(place.name, node);
    return node;
  }

  private line(line: LineView, inSight: boolean): void {
    const known = this.lines.get(line);
    if (!inSight) {
      known?.remove();
      this.lines.delete(line);
      return;
    }
    const near = line.frm === this.selected || line.to === this.selected;
    if (known) {
      setAttribute(known, 'class', near ? 'nbf-edge nbf-near' : 'nbf-edge');
      return;
    }
    const made = drawn(
      'g',
      { class: near ? 'nbf-edge nbf-near' : 'nbf-edge' },
      drawn('path', { d: curve(line) }),
      drawn('path', { class: 'nbf-tip', d: tip(line) })
    );
    this.lines.set(line, made);
    this.edges.append(made);
  }

  private bringIntoSight(name: string): void {
    const place = this.places.get(name);
    const { frame, zoom } = this;
    if (!place || !frame.clientWidth) {
      return;
    }
    const pad = 16;
    const left = (place.x - place.width / 2) * zoom - pad;
    const right = (place.x + place.width / 2) * zoom + pad;
    const top = (place.y - this.layout.box / 2) * zoom - pad;
    const bottom = (place.y + this.layout.box / 2) * zoom + pad;
    if (left < frame.scrollLeft || right > frame.scrollLeft + frame.clientWidth) {
      frame.scrollLeft = (left + right - frame.clientWidth) / 2;
    }
    if (top < frame.scrollTop || bottom > frame.scrollTop + frame.clientHeight) {
      frame.scrollTop = (top + bottom - frame.clientHeight) / 2;
    }
  }

  // ------------------------------------------------------------ mouse and keys

  private wheeled(event: WheelEvent): void {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.scale(this.zoom * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
    }
  }

  private pressed(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const here = (event.target as Element).closest('[data-step]')?.getAttribute('data-step') ?? null;
    switch (event.key) {
      case 'ArrowUp':
      case 'ArrowDown':
      case 'ArrowLeft':
      case 'ArrowRight': {
        const next = here === null ? null : neighbour(this.layout, here, event.key);
        if (next !== null) {
          this.choice.select(next);
          this.nodes.get(next)?.root.focus({ preventScroll: true });
        }
        break;
      }
      case 'Enter':
        if (here !== null && here === this.selected) {
          this.choice.open(here);
        } else if (here !== null) {
          this.choice.select(here);
        }
        break;
      case ' ':
        if (here !== null) {
          this.choice.select(here);
        }
        break;
      case '+':
      case '=':
        this.scale(this.zoom * 1.25);
        break;
      case '-':
        this.scale(this.zoom / 1.25);
        break;
      case '0':
        this.fit();
        break;
      default:
        return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

function boundsOf(line: LineView): Bounds {
  const xs = line.points.map(([x = 0]) => x);
  const ys = line.points.map(([, y = 0]) => y);
  return { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
}

/** A line's points in; a path that is upright at each of them, and ends where the head of its arrow begins, out. */
function curve(line: LineView): string {
  let path = '';
  let [x, y] = [0, 0];
  for (const [at, [pointX = 0, pointY = 0]] of line.points.entries()) {
    if (at === 0) {
      path = `M${pointX} ${pointY}`;
      [x, y] = [pointX, pointY];
      continue;
    }
    const endY = at === line.points.length - 1 ? pointY - (pointY >= y ? 5 : -5) : pointY;
    const middle = round((y + endY) / 2);
    path += x === pointX ? `V${round(endY)}` : `C${x} ${middle} ${pointX} ${middle} ${pointX} ${round(endY)}`;
    [x, y] = [pointX, endY];
  }
  return path;
}

/** A line in; the head of its arrow out. */
function tip(line: LineView): string {
  const [before, end] = line.points.slice(-2);
  const [x = 0, y = 0] = end ?? [];
  return `M${x} ${y}l-3.5 ${y >= (before?.[1] ?? 0) ? -6 : 6}h7z`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
