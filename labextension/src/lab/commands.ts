/** What the palette, the notebook's toolbar and keys can do: the buttons of the panel, for the notebook in front. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker } from '@jupyterlab/notebook';
import { LabIcon } from '@jupyterlab/ui-components';

import type { Wish } from '../messages';
import { RUN } from '../messages';
import type { Abilities } from '../state/reduce';
import { abilities } from '../state/reduce';
import type { Links } from './panel';

const svg = (inner: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><g class="jp-icon3" fill="#616161">${inner}</g></svg>`;
const PLAY = '<path d="M13 8v12l9-6z"/>';
const FLOW = '<circle cx="5" cy="4.5" r="3"/><circle cx="5" cy="19.5" r="3"/><path d="M4 7h2v10H4z"/>';
const RING = '<path d="M7 3a9 9 0 0 1 9 4l-2 1.2A6.7 6.7 0 0 0 7 5.4zM3.6 4.6l1.5 1.8A6.7 6.7 0 0 0 3 11H.8a9 9 0 0 1 2.8-6.4zM.9 13.5h2.2a6.7 6.7 0 0 0 5.4 4.8v2.3a9 9 0 0 1-7.6-7.1z"/>';

export const declareIcon = new LabIcon({
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
  'nbflow:cancel': { label: 'Cancel the Run', caption: 'End the run that is under way', able: 'cancel', wish: { kind: 'cancel' } }
};

/** The commands' names, for the palette. */
export const COMMANDS = Object.keys(ENTRIES);

/** Add the commands; they are alive where the panel's buttons are. */
export function addCommands(commands: JupyterFrontEnd['commands'], tracker: INotebookTracker, links: Links): void {
  const link = (): ReturnType<Links['of']> | null => (tracker.currentWidget ? links.of(tracker.currentWidget) : null);
  for (const [name, { able, wish, ...shown }] of Object.entries(ENTRIES)) {
    commands.addCommand(name, {
      ...shown,
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => {
        const state = link()?.store.state;
        return state !== undefined && abilities(state)[able];
      },
      execute: () => link()?.send(wish)
    });
  }
  let known = '';
  let leave = (): void => undefined;
  const follow = (): void => {
    leave();
    leave = link()?.store.watch(state => {
      const now = JSON.stringify(abilities(state));
      if (now !== known) {
        known = now;
        COMMANDS.forEach(name => commands.notifyCommandChanged(name));
      }
    }) ?? ((): void => undefined);
  };
  tracker.currentChanged.connect(follow);
  follow();
}
