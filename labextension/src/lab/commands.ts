/** What the palette, the notebook's toolbar, menus and keys can do, for the notebook in front: all that the panel can. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { LabIcon } from '@jupyterlab/ui-components';

import type { Wish } from '../messages';
import { RUN } from '../messages';
import type { Abilities } from '../state/reduce';
import { abilities } from '../state/reduce';
import type { Link } from './link';
import type { FlowPanel, Links } from './panel';

export const flowIcon = new LabIcon({
  name: 'nbflow:flow',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
<g class="jp-icon3" fill="#616161"><circle cx="6" cy="4.5" r="3"/><circle cx="18" cy="9" r="3"/><circle cx="6" cy="19.5" r="3"/>
<path d="M5 7h2v10H5zM6.4 14.2l-.8-1.8 9.6-4.2.8 1.8z"/></g></svg>`
});

const svg = (inner: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><g class="jp-icon3" fill="#616161">${inner}</g></svg>`;
const PLAY = '<path d="M13 8v12l9-6z"/>';
const FLOW = '<circle cx="5" cy="4.5" r="3"/><circle cx="5" cy="19.5" r="3"/><path d="M4 7h2v10H4z"/>';
const RING = '<path d="M7 3a9 9 0 0 1 9 4l-2 1.2A6.7 6.7 0 0 0 7 5.4zM3.6 4.6l1.5 1.8A6.7 6.7 0 0 0 3 11H.8a9 9 0 0 1 2.8-6.4zM.9 13.5h2.2a6.7 6.7 0 0 0 5.4 4.8v2.3a9 9 0 0 1-7.6-7.1z"/>';

const declareIcon = new LabIcon({
  name: 'nbflow:declare', svgstr: svg('<circle cx="6" cy="12" r="3.4"/><path d="M8 11h6v2H8zM18 8h2v3h3v2h-3v3h-2v-3h-3v-2h3z"/>')
});

interface Entry {
  label: string;
  caption: string;
  icon?: LabIcon;
  able: keyof Omit<Abilities, 'why'>;
  wish: Wish;
}

const ENTRIES: Readonly<Record<string, Entry>> = {
  'nbflow:run': {
    label: 'Run the Flow', caption: 'Run the flow: what has not changed is reused', able: 'run', wish: RUN,
    icon: new LabIcon({ name: 'nbflow:run', svgstr: svg(FLOW + PLAY) })
  },
  'nbflow:run-stale': {
    label: 'Run Stale Steps', caption: 'Run the steps that have changed, and what they need', able: 'stale', wish: { ...RUN, stale: true },
    icon: new LabIcon({ name: 'nbflow:run-stale', svgstr: svg(RING + PLAY) })
  },
  'nbflow:resume': {
    label: 'Resume the Last Run', caption: 'Run again what did not end well, with its parameters', able: 'resume', wish: { kind: 'resume', run: '' }
  },
  'nbflow:verify': {
    label: 'Verify the Flow', caption: 'Compare the flow with the notebook run plainly: values, displays and files', able: 'run', wish: { kind: 'verify' }
  },
  'nbflow:cancel': { label: 'Cancel the Run', caption: 'End the run that is under way', able: 'cancel', wish: { kind: 'cancel' } }
};

/** What commands act on. */
export interface Scene {
  commands: JupyterFrontEnd['commands'];
  tracker: INotebookTracker;
  links: Links;
  panel: FlowPanel;
  /** Bring the panel into sight. */
  show(): void;
  /** Open a notebook's graph in the main area, or in the panel. */
  spread(notebook: NotebookPanel): void;
}

const NOTHING = { type: 'object' as const, properties: {} };

/** What opens something of the panel, or of the page: alive wherever a notebook is open. */
function views({ commands, tracker, panel, show, spread }: Scene): string[] {
  const shown = (then: () => void) => () => {
    show();
    then();
  };
  const made: Record<string, { label: string; caption?: string; icon?: LabIcon; execute: () => void; isEnabled?: () => boolean }> = {
    'nbflow:show': { label: 'Show the Flow of the Notebook', caption: 'Show the flow of the notebook', icon: flowIcon, execute: show },
    'nbflow:graph': {
      label: 'Open the Graph and the Timeline', isEnabled: () => tracker.currentWidget !== null,
      execute: () => tracker.currentWidget && spread(tracker.currentWidget)
    },
    'nbflow:declare': {
      label: 'Make This Cell a Step', caption: 'Make this cell a step, or change its line: a form writes it', icon: declareIcon,
      isEnabled: () => tracker.activeCell?.model.type === 'code', execute: shown(() => panel.declareSelected())
    },
    'nbflow:parameters': { label: 'Run with Parameters…', execute: shown(() => panel.turn('Parameters')) },
    'nbflow:runs': { label: 'Show Earlier Runs', execute: shown(() => panel.turn('Runs')) },
    'nbflow:export': { label: 'Export the Flow…', execute: shown(() => panel.openMenu('export')) },
    'nbflow:compare': { label: 'Compare Runs…', execute: shown(() => panel.openMenu('compare')) }
  };
  Object.entries(made).forEach(([name, options]) => commands.addCommand(name, { ...options, describedBy: { args: NOTHING } }));
  return Object.keys(made);
}

/** What runs the step of the selected cell. */
function ofStep({ commands, tracker }: Scene, link: () => Link | null): string[] {
  const step = (): string | null => {
    const cell = tracker.activeCell?.model.id;
    return link()?.store.state.snapshot?.steps.find(one => one.cell === cell && one.kind !== 'params')?.name ?? null;
  };
  const made = { 'nbflow:run-to-here': ['Run to This Step', false], 'nbflow:run-afresh': ['Run This Step Afresh', true] } as const;
  for (const [name, [label, fresh]] of Object.entries(made)) {
    commands.addCommand(name, {
      label,
      describedBy: { args: NOTHING },
      isEnabled: () => step() !== null && abilities((link() as Link).store.state).run,
      execute: () => {
        const wanted = step();
        return wanted === null ? undefined : link()?.send({ ...RUN, steps: [wanted], fresh });
      }
    });
  }
  return Object.keys(made);
}

/** Add the commands; their names, for the palette, out. Those that run something are alive where the panel's buttons are. */
export function addCommands(scene: Scene): string[] {
  const { commands, tracker, links } = scene;
  const link = (): Link | null => (tracker.currentWidget ? links.of(tracker.currentWidget) : null);
  for (const [name, { able, wish, ...shown }] of Object.entries(ENTRIES)) {
    commands.addCommand(name, {
      ...shown,
      describedBy: { args: NOTHING },
      isEnabled: () => {
        const state = link()?.store.state;
        return state !== undefined && abilities(state)[able];
      },
      execute: () => link()?.send(wish)
    });
  }
  commands.addCommand('nbflow:load', {
    label: 'Load nbflow into the Kernel',
    describedBy: { args: NOTHING },
    isEnabled: () => link()?.store.state.link === 'waiting',
    execute: () => link()?.load()
  });
  const made = [...views(scene), ...Object.keys(ENTRIES), ...ofStep(scene, link), 'nbflow:load'];
  follow(scene, link, made);
  return made;
}

/** Menus and buttons ask again which commands are alive when that may have changed. */
function follow({ commands, tracker }: Scene, link: () => Link | null, names: readonly string[]): void {
  const tell = (): void => names.forEach(name => commands.notifyCommandChanged(name));
  let known = '';
  let leave = (): void => undefined;
  const turn = (): void => {
    leave();
    leave = link()?.store.watch(state => {
      const now = JSON.stringify([state.link, abilities(state)]);
      if (now !== known) {
        known = now;
        tell();
      }
    }) ?? ((): void => undefined);
  };
  tracker.currentChanged.connect(turn);
  tracker.activeCellChanged.connect(tell);
  turn();
}
