/** The extension of JupyterLab and Notebook 7: a side panel that shows the flow of the notebook in front. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { LabIcon } from '@jupyterlab/ui-components';

import { cardInMain, chartsOf, rendererOf } from './lab/cards';
import { COMMANDS, addCommands, declareIcon } from './lab/commands';
import { FlowPanel, Links, answerWidgets, followLinks } from './lab/panel';

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
<g class="jp-icon3" fill="#616161"><circle cx="6" cy="4.5" r="3"/><circle cx="18" cy="9" r="3"/><circle cx="6" cy="19.5" r="3"/>
<path d="M5 7h2v10H5zM6.4 14.2l-.8-1.8 9.6-4.2.8 1.8z"/></g></svg>`;

const SHOW = 'nbflow:show';
const DECLARE = 'nbflow:declare';

const cards: JupyterFrontEndPlugin<void> = {
  id: 'nbflow:cards',
  description: 'Cards of steps in the outputs of notebooks.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (_: JupyterFrontEnd, registry: IRenderMimeRegistry) => {
    registry.addFactory(rendererOf(registry));
  }
};

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'nbflow:plugin',
  description: 'The flow of the current notebook in a side panel.',
  autoStart: true,
  requires: [INotebookTracker, IRenderMimeRegistry],
  optional: [ILabShell, ILayoutRestorer, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    registry: IRenderMimeRegistry,
    lab: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ) => {
    const links = new Links();
    tracker.forEach(panel => links.of(panel));
    tracker.widgetAdded.connect((_, panel) => links.of(panel));
    const chart = chartsOf(registry);
    // Notebook 7 has room for one document only
    const open = (title: string, page: string): boolean => {
      lab?.add(cardInMain(title, page, chart), 'main', { mode: 'split-right' });
      return lab !== null;
    };
    const panel = new FlowPanel(tracker, links, { open, chart });
    panel.title.icon = new LabIcon({ name: 'nbflow:flow', svgstr: ICON });
    app.shell.add(panel, 'right', { rank: 900, type: 'Flow' });
    restorer?.add(panel, panel.id);
    followLinks(tracker);
    answerWidgets(tracker, links, open);
    app.commands.addCommand(SHOW, {
      label: 'Show the Flow of the Notebook',
      describedBy: { args: { type: 'object', properties: {} } },
      execute: () => app.shell.activateById(panel.id)
    });
    app.commands.addCommand(DECLARE, {
      label: 'Make This Cell a Step',
      caption: 'Make this cell a step: a form writes its first line',
      icon: declareIcon,
      describedBy: { args: { type: 'object', properties: {} } },
      isEnabled: () => tracker.activeCell?.model.type === 'code',
      execute: () => {
        app.shell.activateById(panel.id);
        panel.declareSelected();
      }
    });
    addCommands(app.commands, tracker, links);
    [SHOW, DECLARE, ...COMMANDS].forEach(command => palette?.addItem({ command, category: 'nbflow' }));
  }
};

export default [plugin, cards];
