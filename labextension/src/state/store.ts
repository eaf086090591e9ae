/** One kernel's state on the page, and the commands that are under way: the only place of the page that changes. */

import type { Command, Wish } from '../messages';
import type { Action, Notice, State } from './reduce';
import { START, reduce } from './reduce';

/** Milliseconds in which the kernel's control channel answers even while a cell blocks. */
export const ANSWER = 1000;

export class Store {
  private current: State = START;
  private readonly watchers = new Set<(state: State) => void>();
  private readonly timers = new Map<string, number>();
  private count = 0;
  /** Who the page is for the kernel, where it can put outputs under cells. */
  client = '';
  private readonly prefix = Math.random().toString(36).slice(2, 8);

  get state(): State {
    return this.current;
  }

  /** Be told of each change; a function that ends it out. */
  watch(watcher: (state: State) => void): () => void {
    this.watchers.add(watcher);
    watcher(this.current);
    return () => this.watchers.delete(watcher);
  }

  dispatch(action: Action): void {
    const next = reduce(this.current, action);
    if (next === this.current) {
      return;
    }
    this.current = next;
    for (const [id, timer] of this.timers) {
      if (!(id in next.pending)) {
        window.clearTimeout(timer);
        this.timers.delete(id);
      }
    }
    this.watchers.forEach(watcher => watcher(next));
  }

  /**
   * A wish in, delivered as a command; its id out. Where no acknowledgement comes within a second, `unanswered` says
   * what a person should know; null leaves the command waiting, as the kernel will hear it when its cell has ended.
   */
  send(wish: Wish, deliver: (command: Command) => void, unanswered: (command: Command) => Notice | null): string {
    this.count += 1;
    const command = { ...wish, id: `${this.prefix}-${this.count}`, client: this.client } as Command;
    this.dispatch({ type: 'sent', command });
    deliver(command);
    this.timers.set(
      command.id,
      window.setTimeout(() => {
        this.timers.delete(command.id);
        if (command.id in this.current.pending) {
          const notice = unanswered(command);
          if (notice) {
            this.dispatch({ type: 'unanswered', id: command.id, notice });
          }
        }
      }, ANSWER)
    );
    return command.id;
  }

  dispose(): void {
    this.timers.forEach(timer => window.clearTimeout(timer));
    this.timers.clear();
    this.watchers.clear();
  }
}

/** A command that nobody answered in; what a person should know out, null where waiting is all there is to do. */
export function silence(command: Command, cancelled: string): Notice | null {
  switch (command.kind) {
    case 'cancel':
      return { level: 'note', text: cancelled, fix: '' };
    case 'run':
    case 'resume':
      return {
        level: 'note',
        text: 'The kernel is busy and has not answered yet; the run starts when its cell has ended.',
        fix: ''
      };
    default:
      return null;
  }
}
