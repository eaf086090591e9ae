/**
 * The panel: a framework-free drawing of one kernel's flow, for the sidebar and for the widget alike.
 *
 * `update` may be called as often as one likes: it is drawn at most ten times a second, and only while somebody can
 * see it.
 */

import { announcement } from './announce';
import { Details } from './details';
import { button, element, setAttribute, setHidden } from './elements';
import { DeclareForm } from './declare';
import { Findings } from './findings';
import { ParameterForm } from './forms';
import { FlowGraph } from './graph';
import { Head } from './head';
import { History } from './history';
import { Question } from './question';
import type { Host } from '../host';
import { RUN } from '../messages';
import type { CardMessage, SnapshotMessage, StepView } from '../messages';
import type { Notice, State } from '../state/reduce';
import { START, abilities, cardKey, detailKey, shown } from '../state/reduce';
import type { Item } from './menu';
import { Menu } from './menu';
import { Pace } from './pace';
import { StepList } from './steps';
import { Tabs } from './tabs';
import { age } from './words';

const SPEAK_EVERY = 1500;
const LOG_EVERY = 1000;

/** Runs that the menu for comparing offers. */
const COMPARABLE = 12;

export type Tab = 'Steps' | 'Graph' | 'Parameters' | 'Runs' | 'Declare';

export class Drawing {
  private readonly choice = { select: (name: string): void => this.pick(name), open: (name: string): void => this.open(name) };
  private readonly list = new StepList(this.choice);
  private readonly graph: FlowGraph;
  private readonly details: Details;
  private readonly parameters: ParameterForm;
  readonly declare: DeclareForm;
  private readonly history: History;
  private readonly head = new Head({ select: name => this.show(name), present: () => this.present() });
  private readonly question = new Question(place => this.host.send({ kind: 'trust', place }));
  private readonly live = element('div', { class: 'nbf-live', 'aria-live': 'polite', role: 'status' });
  private readonly findings: Findings;
  private readonly empty = element('div', { class: 'nbf-empty' });
  private readonly main: HTMLElement;
  private readonly body: HTMLElement;
  private readonly buttons: Record<'run' | 'stale' | 'resume' | 'cancel' | 'verify', HTMLButtonElement>;
  private readonly exports: Menu;
  private readonly compares: Menu;
  private readonly tabs: Tabs<Tab>;
  private readonly pace: Pace;
  private readonly size: ResizeObserver;
  private state: State = START;
  private selected: string | null = null;
  private item: number[] = [];
  private spokenOf: SnapshotMessage | null = null;
  private spokenAt = 0;
  private askedAt = 0;
  private askedFor = '';
  /** The key of the whole card that is waited for. */
  private opening = '';
  private stale: CardMessage | undefined;
  /** The key of the task whose whole card stands in the details, as there is no other place for it. */
  private whole = '';
  /** The command whose answer is a page to open. */
  private pageOf = '';
  private seen = false;

  constructor(
    private readonly root: HTMLElement,
    private readonly host: Host
  ) {
    const say = (notice: Notice): void => this.onNotice(notice);
    this.graph = new FlowGraph(this.choice, host.spread ? { apart: () => host.spread?.() } : {});
    this.details = new Details({
      host, notice: say, close: () => this.select(null), item: index => this.choose(index), card: () => this.wantCard()
    });
    this.findings = new Findings(host);
    this.parameters = new ParameterForm(host);
    this.declare = new DeclareForm(host, say);
    this.history = new History(run => this.look(run), host.chart);
    this.buttons = {
      run: button('Run', () => host.send(RUN), { class: 'nbf-button nbf-main' }),
      stale: button('Run stale', () => host.send({ ...RUN, stale: true })),
      resume: button('Resume', () => host.send({ kind: 'resume', run: this.state.past?.run?.run ?? '' })),
      cancel: button('Cancel', () => host.send({ kind: 'cancel' }), { class: 'nbf-button nbf-stop' }),
      verify: button('Verify', () => host.send({ kind: 'verify' }))
    };
    this.exports = new Menu('Export', () => this.offer(), 'No exporter is known.');
    this.compares = new Menu('Compare', () => {
      host.send({ kind: 'runs' });
      this.offer();
    }, 'There is no other run.');
    this.tabs = new Tabs<Tab>({
      Steps: [this.findings.root, this.list.root],
      Graph: [this.graph.root],
      Parameters: [this.parameters.root],
      Runs: [this.history.root],
      Declare: [this.declare.root]
    }, tab => this.turn(tab));
    this.main = element('div', { class: 'nbf-main-part' }, this.tabs.list, ...this.tabs.panels);
    this.body = element('div', { class: 'nbf-body' }, this.main, this.details.root);
    root.classList.add('nbf-panel');
    root.append(
      ...this.head.above,
      element('div', { class: 'nbf-toolbar', role: 'toolbar', 'aria-label': 'Run' }, ...Object.values(this.buttons), this.exports.root, this.compares.root),
      ...this.head.below, this.question.root, this.empty, this.body, this.live
    );
    this.size = new ResizeObserver(() => {
      this.list.paint();
      this.graph.resized();
    });
    this.size.observe(root);
    this.size.observe(this.list.root);
    // clocks go on while something runs
    this.pace = new Pace(root, () => this.draw(), () => shown(this.state)?.steps.some(step => step.state === 'running') ?? false);
    this.draw();
  }

  /** No more drawing: observers and timers end. */
  dispose(): void {
    this.size.disconnect();
    this.pace.dispose();
    this.details.dispose();
    this.history.dispose();
    this.exports.close();
    this.compares.close();
  }

  /** What the page knows now in; drawn soon, if somebody can see it. */
  update(state: State): void {
    if (state !== this.state) {
      this.state = state;
      this.openCard();
      this.openPage();
      this.pace.plan();
    }
  }

  // ------------------------------------------------------------ what is drawn

  private draw(): void {
    const snapshot = shown(this.state);
    const now = Date.now() / 1000 - this.state.skew;
    const able = abilities(this.state);
    setAttribute(this.root, 'data-link', this.state.link);
    setAttribute(this.root, 'data-status', snapshot?.run?.status ?? 'none');
    setAttribute(this.root, 'data-run', snapshot?.run?.run ?? null);
    for (const name of ['run', 'stale', 'resume', 'cancel'] as const) {
      this.buttons[name].disabled = !able[name];
      setAttribute(this.buttons[name], 'title', able[name] ? null : able.why || null);
    }
    this.buttons.verify.disabled = !able.run;
    setAttribute(this.buttons.verify, 'title', able.run ? 'Compare the flow with the notebook run plainly' : able.why || null);
    this.question.update(this.state.snapshot?.untrusted ?? '');
    const started = snapshot !== null;
    setHidden(this.empty, started && snapshot.steps.length + snapshot.cells.length > 0);
    setHidden(this.body, !started);
    this.drawEmpty(snapshot);
    this.head.update(snapshot, this.state, now);
    this.drawMenus(snapshot);
    if (!snapshot) {
      return;
    }
    this.findings.update(snapshot.findings);
    this.drawTab(snapshot, now);
    this.drawDetails(snapshot, now);
    this.speak();
  }

  private drawEmpty(snapshot: SnapshotMessage | null): void {
    const { link } = this.state;
    const key = snapshot ? 'steps' : link;
    if (this.empty.dataset['why'] === key) {
      return;
    }
    this.empty.dataset['why'] = key;
    const code = (text: string): HTMLElement => element('code', { text });
    if (snapshot) {
      this.empty.replaceChildren(element('p', {}, 'No steps yet. Begin a cell with ', code('%%step NAME'), ' and run it.'));
    } else if (link === 'none') {
      this.empty.replaceChildren(element('p', { text: 'Open a notebook with a running kernel to see its flow.' }));
    } else {
      this.empty.replaceChildren(
        element('p', {}, 'nbflow is not loaded in this notebook. Run ', code('%load_ext nbflow'), ' in a cell.'),
        ...(this.host.load ? [button('Load nbflow', () => this.host.load?.(), { class: 'nbf-button nbf-main' })] : [])
      );
    }
  }

  /** Exports, and runs that the one shown can be compared with. */
  private drawMenus(snapshot: SnapshotMessage | null): void {
    const dead = this.state.link !== 'linked' || !snapshot?.steps.length;
    this.exports.button.disabled = dead;
    this.compares.button.disabled = dead || !snapshot.run;
    this.offer();
  }

  private offer(): void {
    const snapshot = shown(this.state);
    const run = snapshot?.run?.run ?? '';
    const now = Date.now() / 1000 - this.state.skew;
    this.exports.offer((snapshot?.exporters ?? []).map((target): Item => ({
      label: target === 'script' ? 'A Python script' : `For ${target}`, choose: () => void this.host.send({ kind: 'export', target })
    })));
    this.compares.offer((this.state.runs ?? []).filter(row => row.run !== run && !row.by_hand).slice(0, COMPARABLE).map((row): Item => ({
      label: `With ${row.run}: ${row.status}, ${age(now - row.started_at)}`,
      choose: () => {
        this.pageOf = this.host.send({ kind: 'compare', before: row.run, after: run });
      }
    })));
  }

  /** Open the menu of exports, or that of runs to compare with. */
  openMenu(name: 'export' | 'compare'): void {
    (name === 'export' ? this.exports : this.compares).open();
  }

  /** The page that was asked for has come: it opens beside the notebook, or below the runs. */
  private openPage(): void {
    const { page } = this.state;
    if (!page || page.reply_to !== this.pageOf) {
      return;
    }
    this.pageOf = '';
    if (!this.host.open(page.title, page.page)) {
      this.turn('Runs');
      this.history.show(page);
    }
  }

  private drawTab(snapshot: SnapshotMessage, now: number): void {
    switch (this.tabs.current) {
      case 'Steps':
        this.list.update(snapshot.steps, this.selected, now);
        break;
      case 'Graph':
        this.graph.update(snapshot, this.selected, now);
        break;
      case 'Parameters':
        this.parameters.update(snapshot, abilities(this.state));
        break;
      case 'Runs':
        this.history.update(this.state.runs, snapshot.run?.run ?? null, now);
        break;
      case 'Declare':
        this.declare.update(snapshot, this.state.checked);
        break;
    }
  }

  private drawDetails(snapshot: SnapshotMessage, now: number): void {
    const step = snapshot.steps.find(one => one.name === this.selected);
    const hidden = !step || (this.tabs.current !== 'Steps' && this.tabs.current !== 'Graph');
    setHidden(this.details.root, hidden);
    this.body.classList.toggle('nbf-with-details', !hidden);
    if (hidden) {
      return;
    }
    const run = snapshot.run?.run ?? '';
    const index = this.index(step);
    const detail = this.state.details[detailKey(run, step.name, index)] ?? null;
    const whole = this.whole === detailKey(run, step.name, index);
    const card = this.state.cards[cardKey(run, step.name, index, whole)] ?? null;
    this.details.update({ step, index, worker: snapshot.workers[step.name] ?? '', detail, card, abilities: abilities(this.state), now });
    const wanted = JSON.stringify([run, step.name, index, step.state === 'running' ? '' : [step.state, step.total]]);
    const again = step.state === 'running' && performance.now() - this.askedAt > LOG_EVERY;
    if (run && step.total && this.state.link === 'linked' && (wanted !== this.askedFor || again)) {
      this.askedFor = wanted;
      this.askedAt = performance.now();
      this.host.send({ kind: 'detail', run, step: step.name, index });
      this.host.send({ kind: 'card', run, step: step.name, index, whole: false, known: card && !whole ? card.digest : '' });
    }
  }

  /** The item that a person has chosen, or the first: one that failed, if any did. */
  private index(step: StepView): number[] {
    return this.item.length ? this.item : (step.tasks[0]?.index ?? []);
  }

  /** Where the step stands whose details are shown; null where it has no task yet. */
  private place(): { run: string; step: string; index: number[] } | null {
    const snapshot = shown(this.state);
    const step = snapshot?.steps.find(one => one.name === this.selected);
    const run = snapshot?.run?.run;
    return step && run && step.total ? { run, step: step.name, index: this.index(step) } : null;
  }

  private wantCard(): void {
    const place = this.place();
    if (place) {
      this.opening = cardKey(place.run, place.step, place.index, true);
      this.stale = this.state.cards[this.opening];
      this.host.send({ kind: 'card', ...place, whole: true, known: '' });
    }
  }

  /** The whole card that was asked for has come: it opens beside the notebook, or in the details. */
  private openCard(): void {
    const card = this.opening ? this.state.cards[this.opening] : undefined;
    if (!card?.page || card === this.stale) {
      return;
    }
    this.opening = '';
    if (!this.host.open(card.title, card.page)) {
      this.whole = detailKey(card.run, card.step, card.index);
    }
  }

  /** Changes of state in words, gathered, for screen readers. */
  private speak(): void {
    const present = this.state.snapshot;
    if (!this.seen) {
      this.seen = true;
      this.spokenOf = present;
      return;
    }
    const now = performance.now();
    if (now - this.spokenAt < SPEAK_EVERY) {
      if (present !== this.spokenOf) {
        window.setTimeout(() => this.pace.plan(), SPEAK_EVERY);
      }
      return;
    }
    const words = announcement(this.spokenOf, present);
    this.spokenOf = present;
    if (words) {
      this.spokenAt = now;
      this.live.textContent = words;
    }
  }

  // ------------------------------------------------------------ what a person does

  private select(name: string | null): void {
    if (name !== this.selected) {
      this.selected = name;
      this.item = [];
      if (name === null) {
        (this.tabs.current === 'Graph' ? this.graph.root : this.list.root).focus();
      }
    }
    this.pace.now();
  }

  /** Select a step that a person has pointed at: its cell comes into sight, the keyboard stays here. */
  private pick(name: string): void {
    this.select(name);
    const step = shown(this.state)?.steps.find(one => one.name === name);
    if (this.follows && step?.cell) {
      this.host.reveal(step.cell, false);
    }
  }

  /** Select a step wherever it can be seen. */
  private show(name: string): void {
    if (this.tabs.current !== 'Graph') {
      this.turn('Steps');
    }
    this.pick(name);
  }

  /** A cell that a person has selected in: its step is selected here, and the form is about it. */
  followCell(cell: string): void {
    this.declare.follow(cell);
    const step = this.follows ? shown(this.state)?.steps.find(one => one.cell === cell) : undefined;
    if (step && step.name !== this.selected) {
      this.selected = step.name;
      this.item = [];
      this.pace.plan();
    }
  }

  private open(name: string): void {
    const step = shown(this.state)?.steps.find(one => one.name === name);
    if (step && !this.host.reveal(step.cell, true)) {
      this.onNotice({ level: 'note', text: `${step.label} is code cell ${step.position} of the notebook.`, fix: '' });
    }
  }

  private choose(index: number[]): void {
    this.item = index;
    this.pace.now();
  }

  private look(run: string | null): void {
    if (run === null || run === this.state.snapshot?.run?.run) {
      this.present();
    } else {
      this.host.send({ kind: 'past', run });
      this.turn('Steps');
    }
  }

  /** Open the form that declares a cell as a step, at this cell. */
  declareAt(cell: string): void {
    if (this.state.snapshot) {
      this.turn('Declare');
      this.onNotice(this.declare.begin(cell, this.state.snapshot));
    }
  }

  /** Turn to a view. */
  turn(tab: Tab): void {
    this.tabs.show(tab);
    if (tab === 'Runs' && this.state.link === 'linked') {
      this.host.send({ kind: 'runs' });
    }
    this.pace.now();
  }

  /** Set from outside: how the panel says something, and how it leaves an earlier run. */
  onNotice: (notice: Notice | null) => void = () => undefined;
  onPresent: () => void = () => undefined;
  /** Whether cells and steps follow each other's selection. */
  follows = true;

  private present(): void {
    this.onPresent();
    this.turn('Steps');
  }
}
