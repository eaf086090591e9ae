/** `nbflow.panel()`: the drawing as an anywidget; the snapshot is a trait, commands and answers are custom messages. */

import type { Request } from './bridge';
import { ask } from './bridge';
import { Drawing } from './drawing/drawing';
import type { Host } from './host';
import type { Command, SnapshotMessage } from './messages';
import { Store, silence } from './state/store';

/** As much of anywidget's model as is used here. */
interface Model {
  get(name: 'snapshot'): SnapshotMessage | Record<string, never>;
  on(event: string, callback: (content: unknown) => void): void;
  off(event: string, callback: (content: unknown) => void): void;
  send(content: Command): void;
}

const STOP = 'The kernel is busy and does not answer: press the stop button (■) of the notebook’s toolbar.';

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const store = new Store();
  const root = document.createElement('div');
  root.classList.add('nbf-inline');
  el.append(root);
  const unanswered = (command: Command): ReturnType<typeof silence> => {
    const interrupted = command.kind === 'cancel' && ask(root, { kind: 'interrupt' }) !== null;
    return silence(command, interrupted ? 'The kernel was interrupted.' : STOP);
  };
  const host: Host = {
    send: wish => store.send(wish, command => model.send(command), unanswered),
    open: (title, page) => ask(root, { kind: 'open', title, page }) !== null,
    reveal: (cell, focus) => ask(root, { kind: 'reveal', cell, focus }) !== null,
    declare: (cell, header) =>
      ask<Request & { kind: 'declare' }>(root, { kind: 'declare', cell, header })?.notice ?? {
        level: 'note',
        text: `Put this line on top of the cell, then run it: ${header}`,
        fix: ''
      }
  };
  const drawing = new Drawing(root, host);
  drawing.onNotice = notice => store.dispatch({ type: 'notice', notice });
  drawing.onPresent = () => store.dispatch({ type: 'present' });
  const changed = (): void => {
    store.dispatch({ type: 'message', data: model.get('snapshot'), at: Date.now() / 1000 });
  };
  const heard = (content: unknown): void => {
    store.dispatch({ type: 'message', data: content, at: Date.now() / 1000 });
  };
  const leave = store.watch(state => drawing.update(state));
  model.on('change:snapshot', changed);
  model.on('msg:custom', heard);
  store.dispatch({ type: 'link', link: 'listening' });
  changed();
  host.send({ kind: 'hello' });
  return () => {
    model.off('change:snapshot', changed);
    model.off('msg:custom', heard);
    leave();
    drawing.dispose();
    store.dispose();
  };
}

export default { render };
