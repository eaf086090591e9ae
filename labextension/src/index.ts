/** The extension of JupyterLab and Notebook 7: a side panel that shows the flow of the notebook in front. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import type { NotebookPanel } from '@jupyterlab/notebook';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { ISettingRegistry as Settings } from '@jupyterlab/settingregistry';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { cardInMain, chartsOf, rendererOf } from './lab/cards';
import { addCommands, flowIcon } from './lab/commands';
import { FlowPages } from './lab/flow_page';
import { headerLine } from './lab/header_line';
import { FlowPanel, Links, answerWidgets, followLinks } from './lab/panel';

const ID = 'nbflow:plugin';

const cards: JupyterFrontEndPlugin<void> = {
  id: 'nbflow:cards',
  description: 'Cards of steps in the outputs of notebooks.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (_: JupyterFrontEnd, registry: IRenderMimeRegistry) => {
    registry.addFactory(rendererOf(registry));
  }
};

const headers: JupyterFrontEndPlugin<void> = {
  id: 'nbflow:headers',
  description: 'The header lines of steps in colour.',
  autoStart: true,
  requires: [IEditorExtensionRegistry],
  activate: (_: JupyterFrontEnd, registry: IEditorExtensionRegistry) => {
    registry.addExtension({ name: 'nbflow:header', factory: () => EditorExtensionRegistry.createImmutableExtension(headerLine) });
  }
};

/** A person's settings in; the panel and the marks in cells as they say, now and later. */
function obey(settings: Settings.ISettings, panel: FlowPanel): void {
  const read = (): void => {
    panel.follows = settings.get('follow').composite !== false;
    document.body.classList.toggle('nbf-without-marks', settings.get('marks').composite === false);
  };
  settings.changed.connect(read);
  read();
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'The flow of the current notebook in a side panel.',
  autoStart: true,
  requires: [INotebookTracker, IRenderMimeRegistry],
  optional: [ILabShell, ILayoutRestorer, ICommandPalette, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    registry: IRenderMimeRegistry,
    lab: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    settings: Settings | null
  ) => {
    const links = new Links();
    tracker.forEach(notebook => links.of(notebook));
    tracker.widgetAdded.connect((_, notebook) => links.of(notebook));
    const chart = chartsOf(registry);
    // Notebook 7 has room for one document only
    const open = (title: string, page: string): boolean => {
      lab?.add(cardInMain(title, page, chart), 'main', { mode: 'split-right' });
      return lab !== null;
    };
    const pages = new FlowPages(notebook => links.of(notebook), flowIcon);
    const show = (): void => app.shell.activateById(panel.id);
    const spread = (notebook: NotebookPanel): void => {
      if (lab) {
        const page = pages.of(notebook);
        if (!page.isAttached) {
          lab.add(page, 'main', { mode: 'split-bottom', ref: notebook.id });
        }
        lab.activateById(page.id);
      } else {
        show();
        panel.turn('Graph');
      }
    };
    const places = lab ? { open, chart, spread: () => tracker.currentWidget && spread(tracker.currentWidget) } : { open, chart };
    const panel: FlowPanel = new FlowPanel(tracker, links, places);
    panel.title.icon = flowIcon;
    app.shell.add(panel, 'right', { rank: 900, type: 'Flow' });
    restorer?.add(panel, panel.id);
    followLinks(tracker);
    answerWidgets(tracker, links, open);
    const commands = addCommands({ commands: app.commands, tracker, links, panel, show, spread });
    commands.forEach(command => palette?.addItem({ command, category: 'nbflow' }));
    void settings?.load(ID).then(loaded => obey(loaded, panel));
  }
};

export default [plugin, cards, headers];
