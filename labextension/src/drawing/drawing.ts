/**
 * The panel: a framework-free drawing of one kernel's flow, for the sidebar and for the widget alike.
 *
 * `update` may be called as often as one likes: it is drawn at most ten times a second, and only while somebody can
 * see it.
 */

import { announcement } from './announce';
import { Details } from './details';
import { button, element, mark, setAttribute, setHidden, setText } from './elements';
import { DeclareForm, ParameterForm } from './forms';
import { FlowGraph } from './graph';
import { History } from './history';
import { Question } from './question';
import type { Host } from '../host';
import { RUN } from '../messages';
import type { CardMessage, FindingView, SnapshotMessage } from '../messages';
import type { Notice, State } from '../state/reduce';
import { START, abilities, cardKey, detailKey, shown } from '../state/reduce';
import { StepList } from './steps';
import { STATUS_MARKS, age, duration, many, share, tally, ticking } from './words';

const DRAW_EVERY = 100;
const SPEAK_EVERY = 1500;
const LOG_EVERY = 1000;

const TABS = ['Steps', 'Graph', 'Parameters', 'Runs', 'Declare'] as const;
type Tab = (typeof TABS)[number];

export class Drawing {
  private readonly choice = { select: (name: string): void => this.select(name), open: (name: string): void => this.open(name) };
  private readonly list = new StepList(this.choice);
  private readonly graph = new FlowGraph(this.choice);
  private readonly details: Details;
  private readonly parameters: ParameterForm;
  readonly declare: DeclareForm;
  private readonly history: History;
  private readonly flow = element('h2', { class: 'nbf-flow' });
  private readonly status = element('span', { class: 'nbf-status' });
  private readonly order = element('p', { class: 'nbf-order' });
  private readonly past = element('div', { class: 'nbf-past' });
  private readonly question = new Question(place => this.host.send({ kind: 'trust', place }));
  private readonly notice = element('div', { class: 'nbf-notice', role: 'status' });
  private readonly live = element('div', { class: 'nbf-live', 'aria-live': 'polite', role: 'status' });
  private readonly bar = element('div', { class: 'nbf-progress', role: 'progressbar', 'aria-label': 'Tasks that have ended', 'aria-valuemin': 0, 'aria-valuemax': 100 }, element('div'));
  private readonly tally = element('p', { class: 'nbf-tally' });
  private readonly findings = element('details', { class: 'nbf-findings' });
  private readonly empty = element('div', { class: 'nbf-empty' });
  private readonly main: HTMLElement;
  private readonly body: HTMLElement;
  private readonly buttons: Record<'run' | 'stale' | 'resume' | 'cancel', HTMLButtonElement>;
  private readonly tabs = new Map<Tab, HTMLButtonElement>();
  private readonly panels = new Map<Tab, HTMLElement>();
  private readonly watches: (IntersectionObserver | ResizeObserver)[] = [];
  private readonly onVisibility = (): void => this.plan();
  private state: State = START;
  private tab: Tab = 'Steps';
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
  private drawnAt = 0;
  private drawnFindings = '';
  private timer: number | null = null;
  private inSight = false;
  private seen = false;

  constructor(
    private readonly root: HTMLElement,
    private readonly host: Host
  ) {
    const say = (notice: Notice): void => this.say(notice);
    this.details = new Details({
      host, notice: say, close: () => this.select(null), item: index => this.choose(index), card: () => this.wantCard()
    });
    this.parameters = new ParameterForm(host);
    this.declare = new DeclareForm(host, say);
    this.history = new History(run => this.look(run));
    this.buttons = {
      run: button('Run', () => host.send(RUN), { class: 'nbf-button nbf-main' }),
      stale: button('Run stale', () => host.send({ ...RUN, stale: true })),
      resume: button('Resume', () => host.send({ kind: 'resume', run: this.state.past?.run?.run ?? '' })),
      cancel: button('Cancel', () => host.send({ kind: 'cancel' }), { class: 'nbf-button nbf-stop' })
    };
    this.main = element('div', { class: 'nbf-main-part' }, this.tabList(), ...this.tabPanels());
    this.body = element('div', { class: 'nbf-body' }, this.main, this.details.root);
    root.classList.add('nbf-panel');
    root.append(
      element('header', { class: 'nbf-head' }, this.flow, this.status),
      this.order,
      element('div', { class: 'nbf-toolbar', role: 'toolbar', 'aria-label': 'Run' }, ...Object.values(this.buttons)),
      this.bar, this.tally, this.past, this.question.root, this.notice, this.empty, this.body, this.live
    );
    this.watch();
    this.draw();
  }

  private watch(): void {
    const sight = new IntersectionObserver(entries => {
      this.inSight = entries.some(entry => entry.isIntersecting);
      this.plan();
    });
    sight.observe(this.root);
    const size = new ResizeObserver(() => {
      this.list.paint();
      this.graph.resized();
    });
    size.observe(this.root);
    size.observe(this.list.root);
    this.watches.push(sight, size);
    document.addEventListener('visibilitychange', this.onVisibility);
  }

  /** No more drawing: observers and timers end. */
  dispose(): void {
    this.watches.forEach(watch => watch.disconnect());
    this.details.dispose();
    document.removeEventListener('visibilitychange', this.onVisibility);
    if (this.timer !== null) {
      window.clearTimeout(this.timer);
      this.timer = null;
    }
  }

  /** What the page knows now in; drawn soon, if somebody can see it. */
  update(state: State): void {
    if (state !== this.state) {
      this.state = state;
      this.openCard();
      this.plan();
    }
  }

  // ------------------------------------------------------------ when

  private get visible(): boolean {
    return this.inSight && document.visibilityState === 'visible';
  }

  private plan(): void {
    if (this.timer !== null || !this.visible) {
      return;
    }
    const wait = Math.max(0, this.drawnAt + DRAW_EVERY - performance.now());
    this.timer = window.setTimeout(() => {
      this.timer = null;
      this.draw();
      this.tick();
    }, wait);
  }

  /** Clocks go on while something runs. */
  private tick(): void {
    if (this.timer === null && this.visible && shown(this.state)?.steps.some(step => step.state === 'running')) {
      this.timer = window.setTimeout(() => {
        this.timer = null;
        this.draw();
        this.tick();
      }, 500);
    }
  }

  // ------------------------------------------------------------ what is drawn

  private draw(): void {
    this.drawnAt = performance.now();
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
    this.question.update(this.state.snapshot?.untrusted ?? '');
    this.drawNotice();
    const started = snapshot !== null;
    setHidden(this.empty, started && snapshot.steps.length + snapshot.cells.length > 0);
    setHidden(this.body, !started);
    this.drawEmpty(snapshot);
    this.drawHead(snapshot, now);
    if (!snapshot) {
      return;
    }
    this.drawFindings(snapshot.findings);
    this.drawTab(snapshot, now);
    this.drawDetails(snapshot, now);
    this.speak();
  }

  private drawHead(snapshot: SnapshotMessage | null, now: number): void {
    const run = snapshot?.run ?? null;
    setText(this.flow, snapshot?.flow || 'nbflow');
    setHidden(this.order, !snapshot?.order);
    setText(this.order, snapshot?.order ? `order: ${snapshot.order}` : '');
    const total = run?.finished_at ? run.finished_at - run.started_at : null;
    const words = !run || run.by_hand ? '' : run.status === 'running' ? `running for ${ticking(now - run.started_at)}` : [run.status, duration(total)].filter(Boolean).join(' in ');
    setHidden(this.status, !words);
    this.status.replaceChildren(...(words && run ? [mark(STATUS_MARKS[run.status] ?? '', run.status), words] : []));
    setHidden(this.bar, !run);
    setHidden(this.tally, !snapshot?.steps.length);
    if (snapshot && run) {
      const part = Math.round(100 * share(snapshot));
      setAttribute(this.bar, 'aria-valuenow', String(part));
      setAttribute(this.bar, 'data-status', run.status);
      (this.bar.firstElementChild as HTMLElement).style.width = `${part}%`;
    }
    setText(this.tally, snapshot ? `${many(snapshot.steps.length, 'step')}: ${tally(snapshot.steps)}` : '');
    const past = this.state.past?.run ?? null;
    setHidden(this.past, past === null);
    if (past && this.past.dataset['run'] !== past.run) {
      this.past.dataset['run'] = past.run;
      this.past.replaceChildren(
        element('span', { text: `Run ${past.run}, ${age(now - past.started_at)}` }),
        button('Back to the present', () => this.look(null))
      );
    } else if (!past) {
      delete this.past.dataset['run'];
    }
  }

  private drawNotice(): void {
    const { notice } = this.state;
    setHidden(this.notice, notice === null);
    if (!notice) {
      return;
    }
    const text = notice.fix ? `${notice.text} (${notice.fix})` : notice.text;
    setAttribute(this.notice, 'data-level', notice.level);
    setText(this.notice, text);
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

  private drawFindings(findings: readonly FindingView[]): void {
    const key = JSON.stringify(findings);
    setHidden(this.findings, findings.length === 0);
    if (key === this.drawnFindings) {
      return;
    }
    this.drawnFindings = key;
    const errors = findings.filter(finding => finding.level === 'error').length;
    const others = findings.length - errors;
    const count = [errors ? many(errors, 'error') : '', others ? many(others, 'finding') : ''];
    this.findings.open = errors > 0;
    this.findings.replaceChildren(
      element('summary', { class: errors ? 'nbf-error' : '', text: count.filter(Boolean).join(', ') }),
      element('ul', {}, ...findings.map(finding => this.finding(finding)))
    );
  }

  private finding(finding: FindingView): HTMLElement {
    const words = element('span', {}, element('b', { text: `${finding.level}: ` }), finding.message, finding.fix ? ` (${finding.fix})` : '');
    const cell = finding.cell;
    return element('li', { 'data-level': finding.level }, words, cell ? button('Go to cell', () => this.host.reveal(cell), { class: 'nbf-button nbf-quiet' }) : null);
  }

  private drawTab(snapshot: SnapshotMessage, now: number): void {
    switch (this.tab) {
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
        this.declare.update(snapshot);
        break;
    }
  }

  private drawDetails(snapshot: SnapshotMessage, now: number): void {
    const step = snapshot.steps.find(one => one.name === this.selected);
    const hidden = !step || (this.tab !== 'Steps' && this.tab !== 'Graph');
    setHidden(this.details.root, hidden);
    this.body.classList.toggle('nbf-with-details', !hidden);
    if (hidden) {
      return;
    }
    const run = snapshot.run?.run ?? '';
    const index = this.item.length ? this.item : (step.tasks[0]?.index ?? []);
    const detail = this.state.details[detailKey(run, step.name, index)] ?? null;
    const whole = this.whole === detailKey(run, step.name, index);
    const card = this.state.cards[cardKey(run, step.name, index, whole)] ?? null;
    this.details.update({ snapshot, step, detail, card, abilities: abilities(this.state), now });
    const wanted = JSON.stringify([run, step.name, index, step.state === 'running' ? '' : [step.state, step.total]]);
    const again = step.state === 'running' && performance.now() - this.askedAt > LOG_EVERY;
    if (run && step.total && this.state.link === 'linked' && (wanted !== this.askedFor || again)) {
      this.askedFor = wanted;
      this.askedAt = performance.now();
      this.host.send({ kind: 'detail', run, step: step.name, index });
      this.host.send({ kind: 'card', run, step: step.name, index, whole: false, known: card && !whole ? card.digest : '' });
    }
  }

  /** Where the step stands whose details are shown; null where it has no task yet. */
  private place(): { run: string; step: string; index: number[] } | null {
    const snapshot = shown(this.state);
    const step = snapshot?.steps.find(one => one.name === this.selected);
    const run = snapshot?.run?.run;
    return step && run && step.total ? { run, step: step.name, index: this.item.length ? this.item : (step.tasks[0]?.index ?? []) } : null;
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
        window.setTimeout(() => this.plan(), SPEAK_EVERY);
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
        (this.tab === 'Graph' ? this.graph.root : this.list.root).focus();
      }
    }
    this.draw();
    this.tick();
  }

  private open(name: string): void {
    const step = shown(this.state)?.steps.find(one => one.name === name);
    if (step && !this.host.reveal(step.cell)) {
      this.say({ level: 'note', text: `${step.label} is code cell ${step.position} of the notebook.`, fix: '' });
    }
  }

  private choose(index: number[]): void {
    this.item = index;
    this.draw();
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

  private turn(tab: Tab): void {
    this.tab = tab;
    for (const [name, made] of this.tabs) {
      setAttribute(made, 'aria-selected', String(name === tab));
      setAttribute(made, 'tabindex', name === tab ? '0' : '-1');
      setHidden(this.panels.get(name) as HTMLElement, name !== tab);
    }
    if (tab === 'Runs' && this.state.link === 'linked') {
      this.host.send({ kind: 'runs' });
    }
    this.draw();
    this.tick();
  }

  /** Set from outside: how the panel says something, and how it leaves an earlier run. */
  onNotice: (notice: Notice | null) => void = () => undefined;
  onPresent: () => void = () => undefined;

  private say(notice: Notice): void {
    this.onNotice(notice);
  }

  private present(): void {
    this.onPresent();
    this.turn('Steps');
  }

  private tabList(): HTMLElement {
    const id = `nbf-tab-${Math.random().toString(36).slice(2, 8)}`;
    const list = element('div', {
      class: 'nbf-tabs', role: 'tablist', 'aria-label': 'Views', on: { keydown: event => this.walk(event as KeyboardEvent) }
    });
    for (const tab of TABS) {
      const made = element('button', {
        type: 'button', class: 'nbf-tab', role: 'tab', id: `${id}-${tab}`, 'aria-controls': `${id}-${tab}-panel`,
        'aria-selected': String(tab === this.tab), tabindex: tab === this.tab ? 0 : -1, text: tab,
        on: { click: () => this.turn(tab) }
      });
      this.tabs.set(tab, made);
      list.append(made);
    }
    return list;
  }

  private tabPanels(): HTMLElement[] {
    const content: Record<Tab, HTMLElement[]> = {
      Steps: [this.findings, this.list.root],
      Graph: [this.graph.root],
      Parameters: [this.parameters.root],
      Runs: [this.history.root],
      Declare: [this.declare.root]
    };
    return TABS.map(tab => {
      const own = this.tabs.get(tab) as HTMLElement;
      const made = element('div', {
        class: `nbf-tabpanel nbf-${tab.toLowerCase()}-panel`, role: 'tabpanel', id: `${own.id}-panel`, 'aria-labelledby': own.id
      }, ...content[tab]);
      made.hidden = tab !== this.tab;
      this.panels.set(tab, made);
      return made;
    });
  }

  private walk(event: KeyboardEvent): void {
    const at = TABS.indexOf(this.tab);
    const steps: Record<string, number> = { ArrowRight: at + 1, ArrowLeft: at - 1 + TABS.length, Home: 0, End: TABS.length - 1 };
    const next = steps[event.key];
    if (next === undefined) {
      return;
    }
    const tab = TABS[next % TABS.length] as Tab;
    this.turn(tab);
    this.tabs.get(tab)?.focus();
    event.preventDefault();
    event.stopPropagation();
  }
}
